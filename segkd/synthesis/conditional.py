"""A generator that is told what to show where: maps of class ids in, images out."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segkd.machine import ranks
from segkd.machine.passes import Passes
from segkd.machine.precision import upcast
from segkd.players.player import Player
from segkd.synthesis.architectures import GeneratorNetwork, Size
from segkd.synthesis.augment import Augment
from segkd.synthesis.generator import Generator
from segkd.synthesis.label_maps import LabelMaps
from segkd.synthesis.source import Batch, Judge, Move


class ConditionalNetwork(GeneratorNetwork):
    """Latents (N,latent) and maps of class ids (N,H,W) to images (N,K,H,W) in the teacher's input range.

    That of `resize`, and at every scale the one-hot map, its ids those of the nearest pixels, lies beside the channels
    (arXiv:2112.15358 conditions a generator by labels; a map in place of a label is the dense form).

    Args:
        classes: of the maps.
        latent, size, width, low, high: see `architectures.resize_convolution`.
    """

    def __init__(self, classes: int, latent: int, size: Size, width: int, low: Tensor, high: Tensor) -> None:
        plan = [8 * width, 8 * width, 4 * width, 4 * width, 2 * width, width]
        stages = [
            nn.Sequential(
                nn.Conv2d(before + classes, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.LeakyReLU(0.2)
            )
            for before, after in zip(plan, plan[1:], strict=False)
        ]
        last = nn.Sequential(
            nn.Conv2d(width + classes, len(low), 3, padding=1), nn.BatchNorm2d(len(low), affine=False), nn.Tanh()
        )
        super().__init__(latent, size, stages, plan[0], last, low, high)
        self.classes = classes

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        """Images of the maps' size."""
        height, width = labels.shape[1:]
        x = self.begun(z, (height, width))
        rows, columns = (
            torch.arange(small * self.factor, device=labels.device).clamp(max=side - 1)
            for small, side in zip(x.shape[2:], (height, width), strict=True)
        )
        labels = labels[:, rows][..., columns]  # what is cropped in the end goes on as the last row and column
        for stage in self.stages:
            x = stage(self._told(F.interpolate(x, scale_factor=2, mode="nearest"), labels))
        return self.range(upcast(self.last(self._told(x, labels))[..., :height, :width]))

    def _told(self, x: Tensor, labels: Tensor) -> Tensor:
        """Channels (N,D,h,w) and the one-hot map beside them."""
        step = labels.shape[1] // x.shape[2]
        told = F.one_hot(labels[:, ::step, ::step], self.classes).permute(0, 3, 1, 2)
        return torch.cat([x, told.to(x.dtype)], 1).contiguous(memory_format=torch.channels_last)


class Conditional(Generator):
    """Images of a network that paints maps of class ids; the maps go with them.

    Args:
        network: latents (N,latent) and class ids (N,H,W) to images (N,K,H,W) in the teacher's input range.
        maps: draws the class ids, and is told what the teacher sees in the images that the network learns by.
        player, augment, passes: see `Generator`; what changes an image changes its map alike.
    """

    def __init__(
        self, network: ConditionalNetwork, latent: int, maps: LabelMaps, player: Player | None = None,
        augment: Augment | None = None, passes: Passes | None = None,
    ) -> None:  # fmt: skip
        super().__init__(network, latent, player, augment, passes)
        self.maps = maps

    def improve(self, batch: int, size: Size, judge: Judge) -> Batch:
        """One update down the judge's loss; returns the images that it was made on, with their maps."""
        made = super().improve(batch, size, judge)
        self.maps.remember(judge.logits.detach(), judge.refused)
        return made

    def generate(self, network: nn.Module, batch: int, size: Size, move: Move) -> Batch:
        """Images that `network` makes of fresh latents and maps, with both."""
        device = next(network.parameters()).device
        labels = self.maps(batch, size, move).to(device)
        z = move.latents(batch, self.latent).to(device, non_blocking=True)
        move.begin(ranks.stream("synthesis"))
        with self.passes.through(network):
            images = network.train()(z, labels)
        images = upcast(images)
        if self.augment is not None and move.progress is not None:
            images, labels = self.augment.alike(images, labels, move.progress)
        return Batch(self.augmented(images, replace(move, progress=None)), labels, z)  # they are changed already
