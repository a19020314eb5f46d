"""How networks are run: in which precision, and with activations kept or computed again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import nn

from segkd.machine.recompute import Context, recomputing


@dataclass(frozen=True)
class Passes:
    """The passes of a run's networks.

    Args:
        bf16: they are made under bf16 autocast.
        checkpointing: activations are computed again in backward passes, block by block (arXiv:1604.06174): the same
            values in less memory.
    """

    bf16: bool = False
    checkpointing: bool = False

    def autocast(self, device: torch.device) -> torch.autocast:
        """A block of passes on `device`."""
        return torch.autocast(device.type, torch.bfloat16, enabled=self.bf16)

    def recomputing(self, network: nn.Module, again: Callable[[], Context] = nullcontext) -> Context:
        """A block in which `network` keeps what the run asks for; `again` is entered around what is computed again."""
        return recomputing(network, again) if self.checkpointing else nullcontext()

    @contextmanager
    def through(self, network: nn.Module) -> Iterator[None]:
        """A block of passes of `network`, on its own device."""
        with self.recomputing(network), self.autocast(next(network.parameters()).device):
            yield
