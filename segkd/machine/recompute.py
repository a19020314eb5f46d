"""Gradient checkpointing (arXiv:1604.06174): blocks of a network whose activations are computed again, not kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

Context = AbstractContextManager[Any]


@contextmanager
def recomputing(network: nn.Module, again: Callable[[], Context] = nullcontext) -> Iterator[None]:
    """Of forwards inside the block, blocks keep no more than what they are given; the backward pass computes the rest again.

    The values are the same: random numbers are drawn as before, and buffers such as running statistics move once. `again`
    is entered around what is computed again, so that whoever listened to the first pass has the same operations in the
    second.
    """
    blocks = blocks_of(network)
    for block in blocks:
        block.forward = partial(_checkpointed, block, block.forward, again)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward


def blocks_of(network: nn.Module) -> list[nn.Module]:
    """The parts of a row or a list that have two or more layers with weights, such as residual blocks, or such a row itself.

    Outermost ones only: a block within another would be computed three times.
    """
    if isinstance(network, nn.Sequential | nn.ModuleList):
        parts = [child for child in network if _layers(child) > 1]
        whole = isinstance(network, nn.Sequential) and _layers(network) > 1
        return parts or ([network] if whole else [])
    return list(dict.fromkeys(block for child in network.children() for block in blocks_of(child)))


def _layers(module: nn.Module) -> int:
    return sum(any(True for _ in part.parameters(recurse=False)) for part in module.modules())


def _checkpointed(
    block: nn.Module, forward: Callable[..., Any], again: Callable[[], Context], *given: Any, **options: Any
) -> Any:
    if not torch.is_grad_enabled():
        return forward(*given, **options)

    def contexts() -> tuple[Context, Context]:
        return nullcontext(), _second_pass(block, again)

    return checkpoint(forward, *given, use_reentrant=False, context_fn=contexts, **options)


@contextmanager
def _second_pass(block: nn.Module, again: Callable[[], Context]) -> Iterator[None]:
    """What a forward writes into buffers is forgotten after the block."""
    own = [(module, dict(module._buffers)) for module in block.modules() if module.training]
    for module, buffers in own:
        module._buffers.update({name: value if value is None else value.clone() for name, value in buffers.items()})
    try:
        with again():
            yield
    finally:
        for module, buffers in own:
            module._buffers.update(buffers)
