"""A generator as a source: latents in, images out, and updates down the judge's loss."""

from __future__ import annotations

import torch
from torch import nn

from segkd.machine import ranks
from segkd.machine.passes import Passes
from segkd.machine.precision import wide
from segkd.models.taps import untouched_statistics
from segkd.players.player import Player
from segkd.synthesis.augment import Augment
from segkd.synthesis.source import Batch, Judge, Move, Size, Source


class Generator(Source):
    """Images of a network that paints latents; its BatchNorm works with the statistics of the batch at hand.

    Args:
        network: latents (N,latent) and a size (H,W) to images (N,3,H,W) in the teacher's input range.
        player: moves the network; without one it stays as it is.
    """

    def __init__(
        self, network: nn.Module, latent: int, player: Player | None = None, augment: Augment | None = None,
        passes: Passes | None = None,
    ) -> None:  # fmt: skip
        super().__init__(augment)
        self.network, self.latent, self.player = network, latent, player
        self.passes = passes or Passes()

    @torch.no_grad()
    def draw(self, batch: int, size: Size, move: Move, judge: Judge | None = None) -> Batch:
        """Images of the averaged network where there is an average (arXiv:2209.10359); no buffer moves."""
        painter = self.network if self.player is None else self.player.headline
        with untouched_statistics(painter):
            return self.painted(painter, batch, size, move)

    def improve(self, batch: int, size: Size, judge: Judge) -> Batch:
        """One update down the judge's loss; returns the images that it was made on."""
        judge.update(self.player, lambda: judge(self.painted(self.network, batch, size, judge.move)))
        return judge.batch

    def painted(self, painter: nn.Module, batch: int, size: Size, move: Move) -> Batch:
        """Images that `painter`, the network or its average, makes of fresh latents."""
        z = move.latents(batch, self.latent).to(next(painter.parameters()).device, non_blocking=True)
        move.begin(ranks.stream("synthesis"))
        with self.passes.through(painter):
            images = painter.train()(z, size)
        return Batch(self.finished(wide(images), move), latents=z)


class Live(Source):
    """Images of another source's generator as it is now, where that source's own are those of its average."""

    def __init__(self, start: Generator) -> None:
        super().__init__()
        self.start = start

    @torch.no_grad()
    def draw(self, batch: int, size: Size, move: Move, judge: Judge | None = None) -> Batch:
        """`batch` images of `size`; no buffer moves."""
        with untouched_statistics(self.start.network):
            return self.start.painted(self.start.network, batch, size, move)
