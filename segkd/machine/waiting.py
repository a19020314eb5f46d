"""Numbers that a device may not have computed yet: whoever reads one too early waits for it."""

from __future__ import annotations

import torch
from torch import Tensor


def on_cpu(value: Tensor) -> bool:
    """Whether a tensor lies on the CPU, where it can be read without waiting for a device."""
    return value.device.type == "cpu"


class Sent:
    """A tensor on its way to the host, where it is read without a wait for what the device was given since."""

    def __init__(self, value: Tensor) -> None:
        self._copy = value.to("cpu", non_blocking=value.is_cuda)  # into pinned memory, which a GPU fills by itself
        self._there = torch.cuda.current_stream(value.device).record_event() if value.is_cuda else None

    def read(self) -> Tensor:
        """The values, as soon as they are there."""
        if self._there is not None:
            self._there.synchronize()
        return self._copy
