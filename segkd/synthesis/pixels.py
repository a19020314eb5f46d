"""Images that follow their judges themselves, pixel by pixel, before they are kept."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from segkd.players.player import Optimizer, Player, Schedule
from segkd.synthesis.source import Batch, Judge, Move, Size, Source

PACE = 0.08
"""Adam's learning rate, on logits of the unit range: a pixel moves by at most a fiftieth of the range a step.

Half or twice as much makes images on CamVid that a student learns less from (recipes/logs/trials_camvid_val.jsonl)."""


class Pixels(Source):
    """Images of another source, after a few steps of Adam on their pixels down a loss, within [low, high].

    A generator that has just begun cannot paint what its judges want; a few steps of the images themselves bring their
    statistics in the teacher nearer to those of its training images than hundreds of moves of the generator.
    Source of the idea: arXiv:1912.08795, which makes images of noise by thousands of such steps. Differs: few steps, from
    images that already have borders and textures.

    Args:
        start: what they begin with; it also learns, if it can. What it makes meanwhile is not kept: students learn more
            where no raw images are among the refined ones.
        steps: how many.
        low, high: the teacher's input range (K,).
    """

    def __init__(self, start: Source, steps: int, low: Tensor, high: Tensor) -> None:
        super().__init__()
        self.start, self.steps = start, steps
        self.register_buffer("low", low.view(1, -1, 1, 1), persistent=False)
        self.register_buffer("span", (high - low).view(1, -1, 1, 1), persistent=False)

    @property
    def player(self) -> Player | None:
        return self.start.player

    @property
    def real(self) -> int:
        return self.start.real

    def draw(self, batch: int, size: Size, move: Move, judge: Judge | None = None) -> Batch:
        """Images that have followed `judge`; without one, those that they would begin with."""
        drawn = self.start.draw(batch, size, move)
        return drawn if judge is None else self.refined(drawn, judge)

    def improve(self, batch: int, size: Size, judge: Judge) -> None:
        """One move of the source that the images begin with."""
        self.start.improve(batch, size, judge)

    @torch.enable_grad()
    def refined(self, drawn: Batch, judge: Judge) -> Batch:
        """The batch after its steps, detached."""
        # logits keep the pixels in their range; the ends themselves have none
        logits = nn.Parameter(torch.logit(((drawn.images - self.low) / self.span).clamp(0.01, 0.99)))
        moved = nn.ParameterList([logits])
        player = Player("pixels", moved, Optimizer("adam", PACE), Schedule("constant"), self.steps, shared=False)
        for _ in range(self.steps):
            judge.update(player, lambda: judge(replace(drawn, images=self._pixels(logits))))
        return replace(drawn, images=self._pixels(logits).detach())

    def _pixels(self, logits: Tensor) -> Tensor:
        return (logits.sigmoid() * self.span + self.low).contiguous(memory_format=torch.channels_last)
