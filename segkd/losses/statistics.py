"""How far a batch is from what the teacher's BatchNorm layers remember of their training."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import torch
from torch import Tensor
from torch.linalg import vector_norm


class Statistics(Protocol):
    """Per-channel statistics (C,) of one layer's input: this batch's, and the layer's running ones."""

    mean: Tensor
    var: Tensor
    running_mean: Tensor
    running_var: Tensor


def batchnorm_distance(statistics: Iterable[Statistics], reduction: str = "mean") -> Tensor:
    """Distance of batch statistics to running statistics; norms are not squared.

    `sum`: the sum over layers l of |mu_l - rm_l|_2 + |v_l - rv_l|_2, the published plain form (arXiv:1912.08795 with
    unsquared norms; arXiv:2104.05382 names the judge). `mean`: the mean over layers of the same, divided by sqrt(C_l),
    so that one weight serves teachers of any depth and width. Differs: `mean` is ours.

    Raises:
        ValueError: no layer, or another reduction.
    """
    layers = list(statistics)
    if not layers:
        raise ValueError("no BatchNorm statistics were collected")
    distances = []
    for layer in layers:
        distance = vector_norm(layer.mean - layer.running_mean) + vector_norm(layer.var - layer.running_var)
        distances.append(distance / layer.mean.numel() ** 0.5 if reduction == "mean" else distance)
    if reduction == "mean":
        return torch.stack(distances).mean()
    if reduction == "sum":
        return torch.stack(distances).sum()
    raise ValueError(f"reduction {reduction!r}: expected mean or sum")
