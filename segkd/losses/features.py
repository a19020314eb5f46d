"""What maps of a network tell: where it looks, and how unlike images are to it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.linalg import vector_norm
from torch.nn import functional

from segkd.machine.precision import upcast

SILENT = 1e-12
"""Maps whose largest number is less say nothing: their attention is 0, and so is its gradient."""
PLACES = 8
"""Along each side, into which maps are pooled before images are compared by them."""
NEAREST = 1e-3
"""Added to the distance of two images: where they are the same, the slope is still finite."""


def attention(maps: Tensor, size: tuple[int, int] | None = None) -> Tensor:
    """Where the energy of maps (N,C,h,w) is: the mean over C of their squares, (N,h,w), of length 1 for each image.

    `size`: the energy is resampled to (H,W) first, bilinearly over the area of the new place. It is the same for maps of any
    scale; that of maps without energy is 0. Source: arXiv:1612.03928 (Q of p = 2).
    """
    energy = _scaled(maps).square().mean(dim=1, keepdim=True)
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


def sameness(maps: Tensor, logits: Tensor) -> Tensor:
    """How much less two images of a pair (0 and 1, 2 and 3, ...) differ in maps (N,c,h,w) than in logits (N,C,H,W), averaged over pairs.

    |p2 - p1| / |f2 - f1|: p are the predictions, whose distance is the root of a mean over H and W, 0 to sqrt(2); f are the maps
    pooled to 8x8 places or a few more, as vectors of length 1, their distance 0 to 2. Source: arXiv:2011.03749 (L_DS). Differs:
    maps of length 1 in place of images, so that neither noise nor the scale of a teacher's maps counts.
    """
    kernel = [max(1, side // PLACES) for side in maps.shape[2:]]
    looks = functional.normalize(functional.avg_pool2d(_scaled(maps), kernel).flatten(1), dim=1)
    predictions = torch.softmax(upcast(logits), dim=1).flatten(2).movedim(2, 1)
    pairs = len(maps) // 2
    one, other = slice(0, 2 * pairs, 2), slice(1, 2 * pairs, 2)
    apart = vector_norm(looks[other] - looks[one], dim=1)
    unlike = vector_norm(predictions[other] - predictions[one], dim=(1, 2)) / predictions.shape[1] ** 0.5
    return (unlike / (apart + NEAREST)).sum() / max(1, pairs)


def _scaled(maps: Tensor) -> Tensor:
    """The maps of each image over their largest number, where scale means nothing: squares of large numbers stay finite."""
    maps = upcast(maps)
    return maps / maps.detach().abs().amax(dim=(1, 2, 3), keepdim=True).clamp_min(SILENT)
