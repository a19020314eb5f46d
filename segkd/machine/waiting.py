"""Numbers that a device has not computed yet: who looks at one waits for it, and the device for whoever waits."""

from __future__ import annotations

import torch
from torch import Tensor


def at_hand(value: Tensor) -> bool:
    """Whether a look at a tensor costs no wait: on a CPU it is computed before the call that asked for it returns."""
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
