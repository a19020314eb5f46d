"""BatchNorm over the batch of all processes, on any device: torch's own is for GPUs only."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from segkd.foundation import ranks
from segkd.foundation.precision import wide
from segkd.losses.reduce import mean_over_ranks


class SyncedBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d whose statistics in training are those of all processes' maps (N,C,H,W), which are equally many.

    Means are exchanged first and variances about them afterwards, so that no digits are lost; gradients flow through both.
    """

    def forward(self, maps: Tensor) -> Tensor:
        if ranks.size() == 1 or not self.training:
            return super().forward(maps)
        x, axes, shape = wide(maps), (0, 2, 3), (1, -1, 1, 1)
        mean = mean_over_ranks(x.mean(axes))
        centred = x - mean.view(shape)
        var = mean_over_ranks(centred.square().mean(axes))
        if self.track_running_stats and self.running_mean is not None:
            count = x.numel() // x.shape[1] * ranks.size()
            self.num_batches_tracked.add_(1)
            with torch.no_grad():
                self.running_mean.lerp_(mean, self.momentum)
                self.running_var.lerp_(var * (count / (count - 1)), self.momentum)
        y = centred * torch.rsqrt(var + self.eps).view(shape)
        if self.affine:
            y = y * self.weight.view(shape) + self.bias.view(shape)
        return y.to(maps.dtype)


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
