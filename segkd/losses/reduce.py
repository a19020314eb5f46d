"""Means over processes, for terms that are no plain means over images. One process: the identity.

Each process computes the same total from the means, and each gradient of a parameter is averaged over the processes
afterwards: together that is the gradient of one process with the whole batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from segkd.machine import ranks


def mean_over_ranks(value: Tensor) -> Tensor:
    """The mean of `value` over all processes, through which gradients flow; `value` itself in a run of one."""
    return value if ranks.size() == 1 else _Mean.apply(value)


def moments_over_ranks(
    moments: Sequence[tuple[Tensor, Tensor]], near: Sequence[Tensor]
) -> Sequence[tuple[Tensor, Tensor]]:
    """Means and biased variances (C,) over all processes' batches, which are equally large, from each one's own.

    All in one exchange. `near` (C,) lie near the means: squares are taken of differences from them, which keeps the digits.
    """
    if ranks.size() == 1:
        return moments
    own = [
        part for (mean, var), base in zip(moments, near, strict=True) for part in (mean, var + (mean - base).square())
    ]
    parts = iter(mean_over_ranks(torch.cat(own)).split([len(part) for part in own]))
    found = []
    for base in near:
        mean, second = next(parts), next(parts)
        found.append((mean, second - (mean - base).square()))
    return found


class _Mean(torch.autograd.Function):
    """The mean over processes; its gradient is the mean of the gradients that arrive in them."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return _mean(value)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        return _mean(slope)


def _mean(value: Tensor) -> Tensor:
    total = value.detach().clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total / ranks.size()
