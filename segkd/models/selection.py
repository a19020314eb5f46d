"""A smaller network that starts from a part of a trained one's weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


@torch.no_grad()
def select_weights(network: nn.Module, trained: nn.Module, classes: int = 0, taken: Sequence[int] = ()) -> list[str]:
    """Copy evenly spaced channels of `trained` into `network`; returns the names of the tensors that stay as they are.

    A tensor (a,b,...) of `network` is made of that of the same name, (A,B,...) with A >= a, B >= b and so on: of each
    dimension those at floor(i A / a). Networks of one architecture and of half the width thus keep every second channel,
    and all that is added or put together in them still belongs together (weight selection, arXiv:2311.18823). A tensor
    without such a counterpart stays as it is, and so do counts of batches, which are not named. Where `network` has a row
    for each of the classes that are `taken` of those of `trained`, it has these rows.
    """
    there, left = trained.state_dict(), []
    for name, own in network.state_dict().items():
        if not own.is_floating_point():
            continue
        value = there.get(name)
        if value is None or value.ndim != own.ndim or any(a > b for a, b in zip(own.shape, value.shape, strict=True)):
            left.append(name)
            continue
        if own.ndim and (own.shape[0], value.shape[0]) == (len(taken), classes):
            value = value[list(taken)]
        own.copy_(_evenly(value, own.shape))
    return left


def _evenly(value: Tensor, shape: torch.Size) -> Tensor:
    """Of each dimension of `value` as many entries as `shape` says, evenly spaced from the first on."""
    for dimension, (few, many) in enumerate(zip(shape, value.shape, strict=True)):
        value = value.index_select(dimension, torch.arange(few, device=value.device) * many // max(1, few))
    return value
