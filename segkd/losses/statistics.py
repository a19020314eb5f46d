"""How far a batch is from what the teacher's BatchNorm layers remember of their training."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.linalg import vector_norm

from segkd.losses.reduce import moments_over_ranks
from segkd.machine.ranks import all_gather

LEAST_VARIANCE = 1e-3
"""Added to a running variance that scales: a channel that was silent in training must not outweigh all others."""


class Statistics(Protocol):
    """Per-channel statistics (C,) of one layer's input: this batch's, and the layer's running ones."""

    mean: Tensor
    var: Tensor
    running_mean: Tensor
    running_var: Tensor


class OfImages(Protocol):
    """Per-channel statistics of one layer's input: mean and variance (N,C) of each image, and the layer's running ones (C,)."""

    images: tuple[Tensor, Tensor]
    running_mean: Tensor
    running_var: Tensor


@dataclass(frozen=True)
class Blended:
    """See `Statistics`."""

    mean: Tensor
    var: Tensor
    running_mean: Tensor
    running_var: Tensor


def blended(statistics: Iterable[Statistics], past: Tensor, decay: Tensor) -> tuple[list[Blended], Tensor]:
    """Statistics of which `decay` () are those of past batches: all processes' mean = decay past + (1 - decay) this batch's.

    `past` (P,) holds means and variances of all layers, end to end. Returns the layers, through which gradients flow, and
    what to take for the past next time. Source: arXiv:2112.06253, of batches that are too small to have the statistics of a
    whole training set.
    """
    layers, found = list(statistics), []
    own = moments_over_ranks([(layer.mean, layer.var) for layer in layers], [layer.running_mean for layer in layers])
    parts = iter(past.split([len(part) for moments in own for part in moments]))
    for layer, moments in zip(layers, own, strict=True):
        mean, var = (torch.lerp(now, next(parts), decay) for now in moments)
        found.append(Blended(mean, var, layer.running_mean, layer.running_var))
    return found, torch.cat([part.detach() for layer in found for part in (layer.mean, layer.var)])


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


def layer_distances(statistics: Iterable[Statistics], reduction: str) -> Tensor:
    """What each layer (L,) adds to `batchnorm_distance`; raises as it does."""
    layers = list(statistics)
    if not layers:
        raise ValueError("no BatchNorm statistics were collected")
    moments = moments_over_ranks(
        [(layer.mean, layer.var) for layer in layers], [layer.running_mean for layer in layers]
    )
    return _distances(layers, moments, reduction)


def image_distances(statistics: Iterable[OfImages], reduction: str = "mean") -> Tensor:
    """The distance (N,) of each image's own statistics, as `batchnorm_distance` has a batch's; no gradient flows to it.

    It says how far an image is from what the teacher was trained on, and is larger than a batch's: no single image has all
    that a training set has. Source of the idea: arXiv:2512.13175.

    Raises:
        ValueError: no layer, or another reduction.
    """
    layers = list(statistics)
    if not layers:
        raise ValueError("no BatchNorm statistics were collected")
    return _distances(layers, [layer.images for layer in layers], reduction).sum(0).detach()


def nearness(distances: Tensor) -> Tensor:
    """1 for the least of distances (N,), 0 for the greatest, and in a straight line between; 1 where all are alike.

    Those of all processes count. Source: arXiv:2512.13175 (w_i).
    """
    everywhere = all_gather(distances)
    least, most = everywhere.min(), everywhere.max()
    return torch.where(most == least, 1.0, (most - distances) / (most - least))


def _distances(
    layers: Sequence[Statistics | OfImages], moments: Iterable[tuple[Tensor, Tensor]], reduction: str
) -> Tensor:
    """Each layer's share (L,) of means and variances (C,), or (L,N) of such (N,C)."""
    if reduction not in ("mean", "sum", "scaled"):
        raise ValueError(f"reduction {reduction!r}: expected mean, sum or scaled")
    distances = []
    for layer, (mean, var) in zip(layers, moments, strict=True):
        mean, var = mean - layer.running_mean, var - layer.running_var
        if reduction == "scaled":
            unit = layer.running_var + LEAST_VARIANCE
            mean, var = mean / unit.sqrt(), var / unit
        share = 1.0 if reduction == "sum" else len(layers) * mean.shape[-1] ** 0.5
        distances.append((vector_norm(mean, dim=-1) + vector_norm(var, dim=-1)) / share)
    return torch.stack(distances)
