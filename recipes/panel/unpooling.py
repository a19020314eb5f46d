"""The panel's network of a `--teacher-file`: residual blocks with PReLU, max-unpooling and transposed convolutions."""

import torch.nn.functional as F
from torch import Tensor, nn


def around(before: int, after: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    """A convolution of 3x3 with its normalisation and activation."""
    convolution = nn.Conv2d(before, after, 3, stride, padding=dilation, dilation=dilation, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(after), nn.PReLU(after))


class Residual(nn.Module):
    """Two convolutions beside the identity."""

    def __init__(self, channels: int, dilation: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(around(channels, channels, dilation=dilation), around(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Unpooling(nn.Module):
    """Images (N,3,H,W) to logits (N,classes,H,W); sides are multiples of 8."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.stem = around(3, 24, stride=2)
        self.high = nn.Sequential(around(24, 48), Residual(48))
        self.middle = nn.Sequential(around(48, 96), Residual(96), Residual(96, dilation=2))
        self.low = nn.Sequential(*(Residual(96, dilation) for dilation in (1, 2, 4, 8)))
        self.up_middle = nn.Sequential(around(96, 48), Residual(48))
        self.up_high = nn.Sequential(around(48, 24), Residual(24))
        self.head = nn.ConvTranspose2d(24, classes, 2, stride=2)

    def forward(self, images: Tensor) -> Tensor:
        high, where_high = F.max_pool2d(self.high(self.stem(images)), 2, return_indices=True)
        middle, where_middle = F.max_pool2d(self.middle(high), 2, return_indices=True)
        x = self.low(middle) + middle
        x = F.interpolate(x, scale_factor=2, mode="nearest") + self.unpooled(middle, where_middle)
        x = self.up_middle(x)
        return self.head(self.up_high(F.max_unpool2d(x, where_high, 2)))

    @staticmethod
    def unpooled(maps: Tensor, places: Tensor) -> Tensor:
        """Each maximum back at its place."""
        return F.max_unpool2d(maps, places, 2)


def build() -> nn.Module:
    """For CamVid's eleven classes."""
    return Unpooling(11)
