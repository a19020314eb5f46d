"""How far logits are from what images were to show: maps of class ids, and what each id stands for."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from segkd.machine.precision import upcast


def softened(classes: int, sure: float) -> Tensor:
    """What ids stand for, (C,C): row k has `sure` at class k, and the others share the rest."""
    rest = (1 - sure) / max(classes - 1, 1)
    return torch.full((classes, classes), rest).fill_diagonal_(sure)


def cross_entropy(logits: Tensor, labels: Tensor, targets: Tensor, temperature: float = 1.0) -> Tensor:
    """Cross-entropy of logits (N,C,h,w), divided by `temperature`, to what ids stand for; in nats, over N, h and w.

    `labels` (N,H,W) are class ids, each that of the nearest place where sizes differ; `targets`, (C,C) or (N,C,C), has a
    distribution over the classes in row k for the pixels, or those of an image, with id k. Source: arXiv:2112.15358 (the
    labels of a conditional generator), at every pixel.
    """
    if labels.shape[1:] != logits.shape[2:]:
        labels = functional.interpolate(labels.unsqueeze(1).float(), logits.shape[2:]).squeeze(1).long()
    image = torch.arange(len(labels), device=labels.device).view(-1, 1, 1)
    wanted = targets[labels] if targets.dim() == 2 else targets[image, labels]
    log_p = torch.log_softmax(upcast(logits) / temperature, dim=1)
    return -(wanted.permute(0, 3, 1, 2) * log_p).sum(dim=1).mean()
