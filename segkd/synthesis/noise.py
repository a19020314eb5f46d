"""Noise as a source: the baseline that a generator has to beat. Nothing is learnt."""

from __future__ import annotations

import torch
from torch import Tensor

from segkd.machine import ranks
from segkd.synthesis.architectures import ToRange
from segkd.synthesis.augment import Augment
from segkd.synthesis.source import Batch, Judge, Move, Size, Source


class Noise(Source):
    """Gaussian noise over the teacher's input range, `low` to `high`, (K,) of K channels: standard normal pixels, cut at its ends."""

    def __init__(self, low: Tensor, high: Tensor, augment: Augment | None = None) -> None:
        super().__init__(augment)
        self.range = ToRange(low, high)

    def draw(self, batch: int, size: Size, move: Move, judge: Judge | None = None) -> Batch:
        """`batch` images of `size`."""
        move.begin(ranks.stream("synthesis"))
        centre = self.range.centre
        pixels = torch.randn(move.share(batch), centre.shape[1], *size, device=centre.device)
        return Batch(self.augmented(self.range(pixels.clamp(-1, 1)), move))
