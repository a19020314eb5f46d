"""Generators as networks: from latents to images in the teacher's input range, at any height and width."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segkd.machine.precision import upcast

Size = tuple[int, int]


class ToRange(nn.Module):
    """Maps [-1,1] onto [low, high] of each channel: what images in [0,1] become under the teacher's normalisation."""

    def __init__(self, low: Tensor, high: Tensor) -> None:
        super().__init__()
        self.register_buffer("centre", ((high + low) / 2).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("reach", ((high - low) / 2).view(1, -1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.reach + self.centre


class GeneratorNetwork(nn.Module):
    """Latents (N,latent) to images (N,K,H,W): a linear layer makes a small map, stages double it, the rest is cropped.

    Args:
        latent: numbers a latent.
        size: the largest (H,W); `forward` also makes smaller ones, whose small map is resampled from the same layer.
        stages: modules that each double height and width.
        channels: channels of the small map.
        last: from the last stage's channels to K in [-1,1].
        low, high: the teacher's input range (K,).
    """

    def __init__(
        self,
        latent: int,
        size: Size,
        stages: Sequence[nn.Module],
        channels: int,
        last: nn.Module,
        low: Tensor,
        high: Tensor,
    ) -> None:
        super().__init__()
        self.latent, self.size, self.channels = latent, size, channels
        self.factor = 2 ** len(stages)
        self.small = _small(size, self.factor)
        self.project = nn.Linear(latent, channels * self.small[0] * self.small[1])
        self.first = nn.BatchNorm2d(channels)
        self.stages = nn.Sequential(*stages)
        self.last = last
        self.range = ToRange(low, high)

    def forward(self, z: Tensor, size: Size | None = None) -> Tensor:
        """Images (N,K,H,W) of `size` (default: the largest) from latents (N,latent)."""
        height, width = size if size is not None else self.size
        x = self.stages(self.begun(z, (height, width)))
        return self.range(upcast(self.last(x)[..., :height, :width]))

    def begun(self, z: Tensor, size: Size) -> Tensor:
        """The small map (N,channels,h,w) of images of `size`."""
        small = self.project(z).view(-1, self.channels, *self.small)
        wanted = _small(size, self.factor)
        if wanted != self.small:
            small = F.interpolate(small, wanted, mode="bilinear", align_corners=False)
        return self.first(small.contiguous(memory_format=torch.channels_last))


def _small(size: Size, factor: int) -> Size:
    return math.ceil(size[0] / factor), math.ceil(size[1] / factor)


def dcgan(latent: int, size: Size, width: int, low: Tensor, high: Tensor) -> GeneratorNetwork:
    """The DCGAN of DFAD (arXiv:1912.11006): linear, BN, four transposed convolutions, 3x3 convolution, tanh.

    With width 64, latent 256 and 128x128 it has 11.2 M parameters. Differs: any H and W; the output is mapped to the
    teacher's input range, which for mean = std = 0.5 is [-1,1] as published.
    """
    plan = [8 * width, 4 * width, 2 * width, width, width]
    stages = [
        nn.Sequential(
            nn.ConvTranspose2d(before, after, 4, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(after),
            nn.LeakyReLU(0.2),
        )
        for before, after in zip(plan, plan[1:], strict=False)
    ]
    last = nn.Sequential(nn.Conv2d(width, len(low), 3, padding=1), nn.Tanh())
    generator = GeneratorNetwork(latent, size, stages, plan[0], last, low, high)
    for module in generator.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(module.weight, 0.0, 0.02)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.02)
    return generator


def resize_convolution(latent: int, size: Size, width: int, low: Tensor, high: Tensor) -> GeneratorNetwork:
    """Upsampling and 3x3 convolutions instead of transposed ones, ending in BN and tanh: no checkerboards.

    Five stages from H/32 on; channels fall from 8*width to width, so that the finest, largest maps are the thinnest.
    The last BN (without scale) spreads the pixels over the whole range before tanh bends it. Source of the idea:
    Odena et al., "Deconvolution and checkerboard artifacts", Distill 2016.
    """
    plan = [8 * width, 8 * width, 4 * width, 4 * width, 2 * width, width]
    stages = [
        nn.Sequential(
            nn.Upsample(scale_factor=2, mode="nearest"),
            nn.Conv2d(before, after, 3, padding=1, bias=False),
            nn.BatchNorm2d(after),
            nn.LeakyReLU(0.2),
        )
        for before, after in zip(plan, plan[1:], strict=False)
    ]
    last = nn.Sequential(nn.Conv2d(width, len(low), 3, padding=1), nn.BatchNorm2d(len(low), affine=False), nn.Tanh())
    return GeneratorNetwork(latent, size, stages, plan[0], last, low, high)
