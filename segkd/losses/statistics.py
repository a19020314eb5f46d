"""How far a batch is from what the teacher's BatchNorm layers remember of their training."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import torch
from torch import Tensor
from torch.linalg import vector_norm

from segkd.losses.reduce import moments_over_ranks

LEAST_VARIANCE = 1e-3
"""Added to a running variance that scales: a channel that was silent in training must not outweigh all others."""


class Statistics(Protocol):
    """Per-channel statistics (C,) of one layer's input: this batch's, and the layer's running ones."""

    mean: Tensor
    var: Tensor
    running_mean: Tensor
    running_var: Tensor


def batchnorm_distance(statistics: Iterable[Statistics], reduction: str = "mean", first: float = 1.0) -> Tensor:
    """Distance of batch statistics to running statistics; norms are not squared.

    `sum`: the sum over layers l of |mu_l - rm_l|_2 + |v_l - rv_l|_2, the published plain form (arXiv:1912.08795 with
    unsquared norms; arXiv:2104.05382 names the judge). `mean`: the mean over layers of the same, divided by sqrt(C_l),
    so that one weight serves teachers of any depth and width. `scaled`: as `mean`, but every channel's differences are
    in units of its own running standard deviation and variance, so that loud layers do not drown quiet ones. The
    batch is that of all processes. `first` is the weight of the first layer, by which nothing else grows lighter.
    Differs: `mean` and `scaled` are ours.

    Raises:
        ValueError: no layer, or another reduction.
    """
    distances = layer_distances(statistics, reduction)
    return torch.cat([first * distances[:1], distances[1:]]).sum()


def layer_distances(statistics: Iterable[Statistics], reduction: str = "mean") -> Tensor:
    """What each layer (L,) adds to `batchnorm_distance`; raises as it does."""
    layers = list(statistics)
    if not layers:
        raise ValueError("no BatchNorm statistics were collected")
    if reduction not in ("mean", "sum", "scaled"):
        raise ValueError(f"reduction {reduction!r}: expected mean, sum or scaled")
    distances = []
    moments = moments_over_ranks(
        [(layer.mean, layer.var) for layer in layers], [layer.running_mean for layer in layers]
    )
    for layer, (mean, var) in zip(layers, moments, strict=True):
        mean, var = mean - layer.running_mean, var - layer.running_var
        if reduction == "scaled":
            unit = layer.running_var + LEAST_VARIANCE
            mean, var = mean / unit.sqrt(), var / unit
        share = 1.0 if reduction == "sum" else len(layers) * mean.numel() ** 0.5
        distances.append((vector_norm(mean) + vector_norm(var)) / share)
    return torch.stack(distances)
