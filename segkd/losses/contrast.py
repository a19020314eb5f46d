"""How unlike images are to one another, and to those before them, as a network sees them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from segkd.machine.precision import upcast


def contrast(images: Tensor, views: Tensor, others: Tensor, temperature: float = 0.1) -> Tensor:
    """InfoNCE of features: of images (N,D), of other views of them (N,D), the positives, and of other images (M,D), the negatives.

    -log(e^(a.v/tau) / (e^(a.v/tau) + sum_m e^(a.o_m/tau))) in nats, averaged over N; all vectors at unit length. Each image
    should be like its own view, and unlike the others; log(1 + M) where all are alike. Rows of zeros among the others are
    places that hold none yet. Source: arXiv:1807.03748, and in arXiv:2105.08584 (L_cr) of a generator's images and its past.
    """
    a, v, o = (_of_unit_length(upcast(x)) for x in (images, views, others))
    unlike = (a @ o.T).masked_fill(~others.any(1), -torch.inf)
    logits = torch.cat([(a * v).sum(1, keepdim=True), unlike], 1) / temperature
    return -torch.log_softmax(logits, 1)[:, 0].mean()


def _of_unit_length(x: Tensor) -> Tensor:
    """Rows (N,D) of unit length; divided by their largest number first, whose square may overflow."""
    return F.normalize(x / x.detach().abs().amax(1, keepdim=True).clamp_min(1e-12), dim=1) if x.numel() else x


def pooled(maps: Tensor, places: Sequence[Tensor] | None = None) -> Tensor:
    """Means (N,C) over the places of maps (N,C,h,w); given `places`, two tensors (N,) in 0..1, over a window of each image.

    The window has half the maps' height and width, rounded up; 0 is at the top, or to the left, and 1 at the other end.
    """
    if places is None:
        return upcast(maps).mean((2, 3))
    sides = [(side + 1) // 2 for side in maps.shape[2:]]
    starts = [(place * (side - part + 1)).long().clamp(max=side - part).tolist()
              for place, side, part in zip(places, maps.shape[2:], sides, strict=True)]  # fmt: skip
    windows = [
        one[:, top : top + sides[0], left : left + sides[1]] for one, top, left in zip(maps, *starts, strict=True)
    ]
    return upcast(torch.stack(windows)).mean((2, 3))
