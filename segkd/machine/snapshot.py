"""Buffers of networks, kept while something is tried that may have to be undone."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from segkd.machine import waiting


class Snapshot:
    """Copies of all buffers of some networks: a forward full of NaN writes running statistics before anybody sees it.

    They are laid end to end by dtype: one by one, hundreds of small ones would keep a GPU waiting.
    """

    def __init__(self, modules: list[nn.Module]) -> None:
        groups: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
        for module in modules:
            for buffer in module.buffers():
                groups.setdefault((buffer.dtype, buffer.device), []).append(buffer)
        self._groups = [(alike, _end_to_end(alike)) for alike in groups.values()]

    @torch.no_grad()
    def put_back(self, where: Tensor | None = None) -> None:
        """Write them back; given `where`, () bool on the networks' device, only if it is true, without a look at it."""
        if where is not None and waiting.on_cpu(where):
            if not where:
                return
            where = None
        for alike, saved in self._groups:
            values = saved if where is None else torch.where(where, saved, _end_to_end(alike))
            parts = values.split([buffer.numel() for buffer in alike])
            torch._foreach_copy_(alike, [part.view(buffer.shape) for part, buffer in zip(parts, alike, strict=True)])


def _end_to_end(tensors: list[Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])
