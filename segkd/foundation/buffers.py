"""Buffers of networks, kept while something is tried that may have to be undone."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def snapshot(modules: list[nn.Module]) -> list[Tensor]:
    """Copies of all buffers, laid end to end by dtype: one by one, hundreds of small ones would keep a GPU waiting."""
    return [torch.cat([buffer.flatten() for buffer in alike]) for alike in _alike(modules)]


@torch.no_grad()
def put_back(modules: list[nn.Module], saved: list[Tensor]) -> None:
    """Write a snapshot back: a forward full of NaN has already written the running statistics."""
    for alike, values in zip(_alike(modules), saved, strict=True):
        parts = values.split([buffer.numel() for buffer in alike])
        for buffer, part in zip(alike, parts, strict=True):
            buffer.copy_(part.view(buffer.shape))


def _alike(modules: list[nn.Module]) -> list[list[Tensor]]:
    """All buffers, those of one dtype and device together, in a fixed order."""
    groups: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for module in modules:
        for buffer in module.buffers():
            groups.setdefault((buffer.dtype, buffer.device), []).append(buffer)
    return list(groups.values())
