"""A generator as a source of images: latents in, images out; it is trained on the judge's loss."""

from __future__ import annotations

import torch
from torch import nn

from segkd.machine import ranks
from segkd.machine.passes import Passes
from segkd.machine.precision import upcast
from segkd.models.taps import untouched_statistics
from segkd.players.player import Player
from segkd.synthesis.augment import Augment
from segkd.synthesis.source import Batch, Judge, Move, Size, Source


class Generator(Source):
    """Images of a generator network. Its BatchNorm normalises by the batch at hand, also where it is not trained.

    Args:
        network: latents (N,latent) and a size (H,W) to images (N,K,H,W) in the teacher's input range.
        player: trains the network; without one it stays as it is.
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
        """Images of the averaged network where there is one (arXiv:2209.10359); running statistics stay as they are.

        `judge` is not asked: sources around this one refine its images (`pixels`).
        """
        network = self.network if self.player is None else self.player.ema_or_live
        with untouched_statistics(network):
            return self.generate(network, batch, size, move)

    def improve(self, batch: int, size: Size, judge: Judge) -> Batch:
        """One update on the judge's loss of fresh images; returns these."""
        judge.update(self.player, lambda: judge(self.generate(self.network, batch, size, judge.move)))
        return judge.batch

    def generate(self, network: nn.Module, batch: int, size: Size, move: Move) -> Batch:
        """Images that `network`, the live one or its average, makes of fresh latents."""
        z = move.latents(batch, self.latent).to(next(network.parameters()).device, non_blocking=True)
        move.begin(ranks.stream("synthesis"))  # for what augmentation draws; the latents had a stream of their own
        with self.passes.through(network):
            images = network.train()(z, size)
        return Batch(self.augmented(upcast(images), move), latents=z)


class Live(Source):
    """Images of a generator's live network, where `Generator.draw` takes its average. MAD shows a student both."""

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.generator = generator

    @torch.no_grad()
    def draw(self, batch: int, size: Size, move: Move, judge: Judge | None = None) -> Batch:
        """`batch` images of `size`; running statistics stay as they are."""
        with untouched_statistics(self.generator.network):
            return self.generator.generate(self.generator.network, batch, size, move)
