"""How often student and teacher give a pixel the same class, on images that nobody trained on."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


@torch.no_grad()
def agreement(student: nn.Module, teacher: nn.Module, batches: Iterable[Tensor], *, bf16: bool = False) -> float:
    """Share in [0,1] of the pixels of images (N,3,H,W) to which both networks give the same class.

    Both run in eval mode, and the student's mode is put back. No labels are involved, so it may be looked at at any time.
    """
    training = student.training
    student.eval()
    same, total = 0, 0
    for images in batches:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=bf16):
            a, b = student(images).argmax(1), teacher(images).argmax(1)
        same, total = same + int((a == b).sum()), total + a.numel()
    student.train(training)
    return same / total
