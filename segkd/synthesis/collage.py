"""Collages by dead leaves: random shapes that show other images of the batch, or a plain material of their own.

A young generator paints soft spots; shapes with sharp borders that hide each other, and textures of every grain, are what
it learns last. The dead leaves model has both and knows nothing of any data (arXiv:2106.05963 trains on it alone). Here
it cuts up what the generator makes, as CutMix (arXiv:1905.04899) does with boxes, and gradients flow through to the
images that are shown.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

LEAVES = 12
OWN = 0.5
"""Share of the leaves that are of their own material; the rest show an image, at the place where the leaf lies."""


def collage(images: Tensor) -> Tensor:
    """Three quarters of the images (N,3,H,W) in [0,1] become collages; the first quarter stays. By torch's global generator."""
    n, _, height, width = images.shape
    device = images.device
    shown = leaves(n, height, width, device)
    source = torch.randint(n, (n, LEAVES + 1), device=device)
    source[:, 0] = torch.arange(n, device=device)
    picks = source.gather(1, shown.flatten(1)).view(n, height, width)
    rows, columns = torch.meshgrid(
        torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij"
    )
    cut = images.permute(0, 2, 3, 1)[picks, rows, columns].permute(0, 3, 1, 2)
    is_own = _of_leaf((torch.rand(n, LEAVES + 1, 1, device=device) < OWN).float(), shown)
    made = torch.lerp(cut, material(shown), is_own).clamp(0, 1)
    plain = n // 4
    return torch.cat([images[:plain], made[plain:]])


def leaves(n: int, height: int, width: int, device: torch.device) -> Tensor:
    """The topmost leaf at each pixel: (n,height,width) from 1 to LEAVES, and 0 where none lies.

    Boxes, ellipses and half-planes, large ones below; radii from 1/20 to 9/10 of half the width, evenly by logarithm;
    most upright, some turned, some with a ragged edge.
    """
    aspect = height / width
    y, x = torch.meshgrid(
        torch.linspace(-aspect, aspect, height, device=device),
        torch.linspace(-1, 1, width, device=device),
        indexing="ij",
    )

    def chance(share: float) -> Tensor:
        return torch.rand(n, LEAVES, device=device) < share

    def spread(low: float, high: float) -> Tensor:
        return torch.empty(n, LEAVES, device=device).uniform_(low, high)

    radius = spread(math.log(0.05), math.log(0.9)).exp().sort(1, descending=True)[0]
    centre_x, centre_y = spread(-1.1, 1.1), spread(-1.1 * aspect, 1.1 * aspect)
    stretch = (0.7 * torch.randn(n, LEAVES, device=device)).exp()
    upright = 0.1 * torch.randn(n, LEAVES, device=device)
    angle = torch.where(chance(0.15), spread(0, math.pi), upright)
    box, plane, ragged = chance(0.5), chance(0.12), chance(0.4)
    edge = _field(n, height, width, 10, device)[:, 0] * 0.25
    top = torch.zeros(n, height, width, dtype=torch.long, device=device)
    for leaf in range(LEAVES):
        own = [t[:, leaf].view(n, 1, 1) for t in (radius, centre_x, centre_y, stretch, angle, box, plane, ragged)]
        r, cx, cy, s, a, is_box, is_plane, is_ragged = own
        u = ((x - cx) * a.cos() + (y - cy) * a.sin()) * s / r
        v = ((y - cy) * a.cos() - (x - cx) * a.sin()) / (s * r)
        distance = torch.where(is_box, torch.maximum(u.abs(), v.abs()), torch.hypot(u, v))
        distance = torch.where(is_plane, 1 - v, distance) + is_ragged * edge
        top = torch.where(distance < 1, leaf + 1, top)
    return top


def material(shown: Tensor) -> Tensor:
    """Colours (N,3,H,W), about [0,1], for leaves (N,H,W): each has one colour, and a grain or stripes of some strength."""
    n, height, width = shown.shape
    device = shown.device
    count = (n, LEAVES + 1)
    grey = torch.rand(*count, 1, device=device)
    colour = grey + 0.24 * torch.randn(*count, 3, device=device) * torch.rand(*count, 1, device=device)
    fields = torch.cat([_field(n, height, width, cell, device) for cell in (1, 2, 4, 8)], dim=1)
    fields = torch.cat([fields, _stripes(n, height, width, device)], dim=1)
    strength = 0.4 * (torch.rand(*count, fields.shape[1], device=device) * torch.rand(*count, 1, device=device)) ** 2
    return _of_leaf(colour, shown) + (_of_leaf(strength, shown) * fields).sum(dim=1, keepdim=True)


def _of_leaf(values: Tensor, shown: Tensor) -> Tensor:
    """What each leaf has (N,leaves,C), at the pixels where it shows (N,H,W): (N,C,H,W)."""
    index = shown.flatten(1).unsqueeze(-1).expand(-1, -1, values.shape[-1])
    return values.gather(1, index).view(*shown.shape, values.shape[-1]).permute(0, 3, 1, 2)


def _field(n: int, height: int, width: int, cell: int, device: torch.device) -> Tensor:
    """Smooth noise (n,1,height,width) whose grains are `cell` pixels wide."""
    small = torch.randn(n, 1, max(height // cell, 2), max(width // cell, 2), device=device)
    return small if cell == 1 else F.interpolate(small, (height, width), mode="bilinear", align_corners=False)


def _stripes(n: int, height: int, width: int, device: torch.device) -> Tensor:
    """Upright and level stripes (n,2,height,width) of -1 and 1, with periods of 4 to 20 pixels."""
    waves = []
    for length in (width, height):
        period = torch.empty(n, 1, device=device).uniform_(math.log(4), math.log(20)).exp()
        phase = torch.arange(length, device=device) / period + torch.rand(n, 1, device=device)
        waves.append(torch.where(phase % 1 < 0.5, 1.0, -1.0))
    upright, level = waves
    return torch.stack(
        [upright[:, None, :].expand(n, height, width), level[:, :, None].expand(n, height, width)], dim=1
    )
