"""Signs that a game has gone wrong although its numbers are finite; none of them needs a label or a real image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

ALIKE, ONE_CLASS, ASTRAY = 0.02, 0.99, 10.0
"""Below this diversity images are alike; above this share there is one class; beyond this distance a student is lost."""


def diversity(images: Tensor) -> float:
    """Share of the variance of images (N,3,H,W), N > 1, that is between them, at equal pixels.

    About 1 for unrelated images, whatever their contrast; 0 where all are the same, flat ones too.
    """
    pixels = images.float()
    between, total = pixels.var(dim=0).mean(), pixels.transpose(0, 1).flatten(1).var(dim=1).mean()
    return float(between / total.clamp_min(torch.finfo(torch.float32).tiny))


def class_shares(logits: Tensor) -> Tensor:
    """The share (C,) of the pixels of logits (N,C,H,W) that each class has."""
    return torch.bincount(logits.argmax(1).flatten(), minlength=logits.shape[1]) / logits[:, 0].numel()


def distance(student: Tensor, teacher: Tensor) -> float:
    """How far logits (N,C,H,W) are from the teacher's, in units of a constant's distance: 0 for equal ones."""
    student, teacher = student.float(), teacher.float()
    spread = (teacher - teacher.mean()).abs().mean().clamp_min(torch.finfo(torch.float32).tiny)
    return float((student - teacher).abs().mean() / spread)


def collapsed(variety: float, shares: Tensor, names: Sequence[str]) -> str | None:
    """What is wrong with synthetic images of such a diversity, in which classes have such shares (C,), if anything."""
    if variety < ALIKE:
        return f"collapsed: the synthetic images are all alike (diversity {variety:.3f})"
    if float(shares.max()) > ONE_CLASS:
        most = int(shares.argmax())
        return f"collapsed: {100 * float(shares[most]):.1f} % of the synthetic pixels are {names[most]}"
    return None
