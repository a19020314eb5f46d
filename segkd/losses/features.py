"""Where student and teacher look: maps of attention, which need not have the same channels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from segkd.machine.precision import wide

SILENT = 1e-12
"""Maps whose largest number is less say nothing: their attention is 0, and so is its gradient."""


def attention(maps: Tensor, size: tuple[int, int] | None = None) -> Tensor:
    """Where the energy of maps (N,C,h,w) is: the mean over C of their squares, (N,h,w), of length 1 for each image.

    `size`: the energy is resampled to (H,W) first, bilinearly over the area of the new place. It is the same for maps of any
    scale; that of maps without energy is 0. Source: arXiv:1612.03928 (Q of p = 2).
    """
    maps = wide(maps)
    # Exact, since scale means nothing, and the squares of large numbers stay finite.
    maps = maps / maps.detach().abs().amax(dim=(1, 2, 3), keepdim=True).clamp_min(SILENT)
    energy = maps.square().mean(dim=1, keepdim=True)
    if size is not None and energy.shape[2:] != size:
        energy = functional.interpolate(energy, size, mode="bilinear", antialias=True)
    return functional.normalize(energy.flatten(1), dim=1).unflatten(1, energy.shape[2:])


def attention_distance(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Sum over layers of |A(student) - A(teacher)|^2 of maps (N,C,h,w), averaged over N: 0 to 2 a layer.

    Channels may differ; the teacher's attention is resampled to the size of the student's. Lists of other lengths are paired
    from the end, where networks of one task are most alike; what is left over at the beginning counts for nothing.
    Source: arXiv:1612.03928. Differs: no factor of 1/2, and the squared length in place of a mean over the places, so that one
    weight serves maps of any size.

    Raises:
        ValueError: a list is empty.
    """
    if not student or not teacher:
        raise ValueError(f"{len(student)} maps of the student and {len(teacher)} of the teacher: none to compare")
    pairs = zip(reversed(student), reversed(teacher), strict=False)
    gaps = [attention(own) - attention(other, own.shape[2:]) for own, other in pairs]
    return torch.stack([gap.square().sum(dim=(1, 2)).mean() for gap in gaps]).sum()
