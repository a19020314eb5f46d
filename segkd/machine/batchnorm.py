"""BatchNorm over the batch of all processes, on any device: torch's own is for GPUs only."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from segkd.machine import ranks
from segkd.machine.precision import upcast


class SyncedBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d whose statistics in training are those of all processes' maps (N,C,H,W), which are equally many.

    Gradients flow through them: each process's maps have a share in what all others make of theirs.
    """

    def forward(self, maps: Tensor) -> Tensor:
        if ranks.size() == 1 or not self.training:
            return super().forward(maps)
        x = upcast(maps)
        mean, var = _moments(x.detach())
        if self.track_running_stats and self.running_mean is not None:
            count = x.numel() // x.shape[1] * ranks.size()
            self.num_batches_tracked.add_(1)
            # None: the mean over all batches so far, as `update_bn` wants it
            share = 1 / int(self.num_batches_tracked) if self.momentum is None else self.momentum
            with torch.no_grad():
                self.running_mean.lerp_(mean, share)
                self.running_var.lerp_(var * (count / (count - 1)), share)
        return _Normalised.apply(x, self.weight, self.bias, mean, var, self.eps).to(maps.dtype)


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Means and biased variances (C,) of all processes' maps.

    Each one's own are exchanged, not sums of squares: so no digits are lost.
    """
    means, variances = ranks.all_gather(torch.stack(torch.batch_norm_update_stats(x, None, None, 0.0))).unbind(1)
    mean = means.mean(0)
    return mean, (variances + (means - mean).square()).mean(0)


class _Normalised(torch.autograd.Function):
    """BatchNorm with given moments, whose gradient knows that they are those of all processes' maps."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, var: Tensor, eps: float
    ) -> Tensor:
        ctx.save_for_backward(x, weight, mean, var)
        ctx.eps = eps
        return F.batch_norm(x, mean, var, weight, bias, eps=eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, var = ctx.saved_tensors
        scale = torch.ones_like(mean) if weight is None else weight
        # As if the moments were constants, and then what they change: linear in x, channel by channel.
        to_x, to_weight, to_bias = torch.ops.aten.native_batch_norm_backward(
            slope, x, scale, mean, var, None, None, False, ctx.eps, (True, True, True)
        )
        count = x.numel() // x.shape[1] * ranks.size()
        means = ranks.all_reduce(torch.stack([to_weight, to_bias])) / count
        through_var, through_mean = means * -(scale * torch.rsqrt(var + ctx.eps))
        to_x += F.batch_norm(x, mean, var, through_var, through_mean, eps=ctx.eps)
        asked = weight is not None
        return to_x, to_weight if asked else None, to_bias if asked else None, None, None, None


def synced(network: nn.Module) -> nn.Module:
    """The network itself, whose BatchNorm layers are of the class above from now on; names and tensors stay as they are.

    Raises:
        ValueError: it has BatchNorm layers of another kind, such as timm's that end in an activation.
    """
    for module in network.modules():
        if type(module) is nn.BatchNorm2d and module.momentum is not None:
            module.__class__ = SyncedBatchNorm2d
        elif isinstance(module, BatchNorm) and type(module) is not SyncedBatchNorm2d:
            raise ValueError(f"{type(module).__name__} cannot be synchronised, only BatchNorm2d")
    return network
