"""Layers that a library does slowly, a CPU's above all, computed in another order: the same values up to the rounding of sums.

oneDNN has no kernels of its own for the gradients of dilated depthwise convolutions (up to a hundred times slower than
plain ones), is twenty times slower for those of strided ones in bf16 than in fp32, and multiplies the zeros around the
maps with all else when it makes the gradient of a dilated kernel. torch copies the gradient of an upsampling that was
concatenated into another memory format than the maps have. Other devices compute as they always do, but for an ASPP's
image pooling.

One layer it does not do at all: the kernel's gradient of a dense 1x1 convolution with stride, of 2 to 7 channels in
channels_last, writes past its end on processors without AVX-512 and kills the process (the first layer of MobileOne).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from segkd.machine.precision import upcast

SMALLEST = 4
"""Least sides of the plain maps that a dilated depthwise convolution is split into: below, single taps are quicker."""
USEFUL = 0.5
"""Share of a dense dilated kernel's products that meet the maps, below which its gradient is made tap by tap."""
FEW = 16
"""Channels below which a strided 1x1 convolution is given only the pixels that it looks at: a vector's of AVX-512."""


class QuickConv2d(nn.Conv2d):
    """A convolution that `quicken` chose: depthwise and dilated or strided, dense and dilated, or strided 1x1 of few channels."""

    def forward(self, images: Tensor) -> Tensor:
        """As Conv2d: maps (N,C,H,W) to maps (N,D,h,w), in the dtype of the autocast that is on."""
        kind = images.device.type
        quick = kind == "cpu" or (kind == "cuda" and self._splits(images.shape[-2:]))
        if not quick or torch.compiler.is_exporting():
            return super().forward(images)
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else images.dtype
        x, weight = images.to(dtype), self.weight.to(dtype)
        with torch.autocast(kind, enabled=False):
            y = self._convolved(x, weight)
        return y if self.bias is None else y + self.bias.to(dtype).view(1, -1, 1, 1)

    def _splits(self, sides: tuple[int, ...]) -> bool:
        """Whether maps of such sides are split into plain ones: the layer is depthwise and dilated, and they are large."""
        dilation = self.dilation[0]
        return self.groups > 1 and self.stride == (1, 1) and SMALLEST * dilation <= min(sides)

    def _convolved(self, x: Tensor, weight: Tensor) -> Tensor:
        dilation, sides = self.dilation[0], x.shape[-2:]
        if _is_fatal(self):
            return F.conv2d(x[..., :: self.stride[0], :: self.stride[1]], weight)
        splits = self._splits(sides)
        if self.groups == 1:
            x = x.contiguous(memory_format=torch.channels_last)
            tap_by_tap = weight.requires_grad and _useful(self.kernel_size, sides, dilation) < USEFUL
            return _DenseTaps.apply(x, weight, dilation) if tap_by_tap else _dilated(x, weight, dilation)
        if self.stride == (1, 1) and not splits:
            return _DepthwiseTaps.apply(x, weight, dilation)
        asked = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
        if x.device.type == "cpu" and not asked:  # only gradients are slow
            return F.conv2d(x, weight, None, self.stride, self.padding, self.dilation, self.groups)
        if splits:
            maps = F.conv2d(_apart(x, dilation), weight, padding=_half(self.kernel_size), groups=self.groups)
            return _together(maps, dilation, x.shape)
        wide = torch.promote_types(x.dtype, torch.float32)
        return F.conv2d(x.to(wide), weight.to(wide), None, self.stride, self.padding, 1, self.groups).to(x.dtype)


class QuickUpsample(nn.Upsample):
    """An upsampling whose gradient arrives in the memory format in which its kernels are quick."""

    def forward(self, images: Tensor) -> Tensor:
        """As Upsample: maps (N,C,H,W) to maps (N,C,h,w)."""
        y = super().forward(images)
        if y.requires_grad and y.device.type == "cpu" and y.is_contiguous(memory_format=torch.channels_last):
            y.register_hook(lambda slope: slope.contiguous(memory_format=torch.channels_last))
        return y


class QuickPooling(nn.Sequential):
    """The image pooling of an ASPP, whose one pixel is repeated: interpolated, it would leave the maps' memory format.

    The maps that it is concatenated with would leave theirs, on every device.
    """

    def forward(self, maps: Tensor) -> Tensor:
        """As the ASPP's own: maps (N,C,H,W) to maps (N,D,H,W), the same everywhere."""
        y = super().forward(maps).expand(-1, -1, *maps.shape[-2:])
        last = maps.is_contiguous(memory_format=torch.channels_last)
        return y.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


def quicken(network: nn.Module) -> nn.Module:
    """The network itself, in which such layers are of the classes above from now on; names and tensors stay as they are."""
    for module in network.modules():
        if type(module) is nn.Conv2d and _is_slow(module):
            module.__class__ = QuickConv2d
        elif type(module) is nn.Upsample:
            module.__class__ = QuickUpsample
        elif type(module).__name__ == "ASPPPooling" and _is_image_pooling(module):
            module.__class__ = QuickPooling
    return network


def _is_image_pooling(module: nn.Module) -> bool:
    """Whether it is built as smp's and torchvision's are: a row of layers that begins by averaging all pixels."""
    first = next(module.children(), None)
    return (
        isinstance(module, nn.Sequential)
        and isinstance(first, nn.AdaptiveAvgPool2d)
        and first.output_size in (1, (1, 1))
    )


def _is_slow(layer: nn.Conv2d) -> bool:
    dilation, depthwise = layer.dilation[0], layer.groups == layer.in_channels == layer.out_channels > 1
    if layer.dilation != (dilation, dilation) or layer.padding_mode != "zeros" or isinstance(layer.padding, str):
        return False
    if _is_fatal(layer):
        return True
    if dilation == 1:
        return depthwise and layer.stride != (1, 1)
    keeps_size = layer.padding == tuple(dilation * half for half in _half(layer.kernel_size)) and layer.stride == (1, 1)
    odd = all(side % 2 for side in layer.kernel_size) and max(layer.kernel_size) > 1
    return keeps_size and odd and (depthwise or layer.groups == 1)


def _is_fatal(layer: nn.Conv2d) -> bool:
    strided = layer.kernel_size == (1, 1) and layer.stride != (1, 1) and layer.padding == (0, 0)
    return strided and layer.groups == 1 and layer.in_channels < FEW


def _half(kernel: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(side // 2 for side in kernel)


def _dilated(x: Tensor, weight: Tensor, dilation: int) -> Tensor:
    return F.conv2d(x, weight, padding=[dilation * half for half in _half(weight.shape[-2:])], dilation=dilation)


def _useful(kernel: tuple[int, ...], sides: tuple[int, ...], dilation: int) -> float:
    share = 1.0
    for taps, side in zip(kernel, sides, strict=True):
        reached = [max(side - abs(tap - taps // 2) * dilation, 0) for tap in range(taps)]
        share *= sum(reached) / (taps * side)
    return share


def _apart(x: Tensor, d: int) -> Tensor:
    """Maps (N,C,H,W) as (N*d*d,C,H/d,W/d), every d-th row and column a map of its own; zeros fill up to multiples of d."""
    n, c, height, width = x.shape
    rows = F.pad(x.permute(0, 2, 3, 1), (0, 0, 0, -width % d, 0, -height % d))
    high, wide = rows.shape[1] // d, rows.shape[2] // d
    split = rows.reshape(n, high, d, wide, d, c).permute(0, 2, 4, 1, 3, 5)
    return split.reshape(n * d * d, high, wide, c).permute(0, 3, 1, 2)


def _together(maps: Tensor, d: int, shape: torch.Size) -> Tensor:
    """The inverse of `_apart`, cut back to `shape`."""
    n, c, height, width = shape
    high, wide = maps.shape[-2:]
    split = maps.permute(0, 2, 3, 1).reshape(n, d, d, high, wide, c).permute(0, 3, 1, 4, 2, 5)
    return split.reshape(n, high * d, wide * d, c)[:, :height, :width].permute(0, 3, 1, 2)


def _taps(kernel: tuple[int, ...], sides: tuple[int, ...], d: int) -> Iterator[tuple[int, int, Any, Any]]:
    """Each tap that meets a map: its row and column in the kernel, and which part of (N,H,W,C) it brings to which."""
    (high, wide), (height, width) = kernel, sides
    for row in range(high):
        for column in range(wide):
            down, right = (row - high // 2) * d, (column - wide // 2) * d
            if abs(down) < height and abs(right) < width:
                source = (slice(None), _within(down, height), _within(right, width))
                target = (slice(None), _within(-down, height), _within(-right, width))
                yield row, column, source, target


def _within(offset: int, side: int) -> slice:
    """The places of a side that are still on it after a step of `offset` back."""
    return slice(max(offset, 0), side + min(offset, 0))


class _DepthwiseTaps(torch.autograd.Function):
    """A dilated depthwise convolution as one multiplication of maps by channel weights for each tap, summed in fp32."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, dilation: int) -> Tensor:
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, weight)
        ctx.dilation = dilation
        rows = _rows(x)
        y = torch.zeros_like(rows)
        for row, column, source, target in _taps(weight.shape[-2:], x.shape[-2:], dilation):
            y[target].addcmul_(rows[source], weight[:, 0, row, column].to(rows.dtype))
        return y.to(x.dtype).permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, to_y: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        slopes, rows = _rows(to_y), None if x is None else _rows(x)
        to_rows = torch.zeros_like(slopes) if ctx.needs_input_grad[0] else None
        to_weight = None if rows is None else torch.zeros_like(weight)
        for row, column, source, target in _taps(weight.shape[-2:], to_y.shape[-2:], ctx.dilation):
            if to_rows is not None:
                to_rows[source].addcmul_(slopes[target], weight[:, 0, row, column].to(slopes.dtype))
            if rows is not None:
                to_weight[:, 0, row, column] = (rows[source] * slopes[target]).flatten(0, 2).sum(0)
        to_x = None if to_rows is None else to_rows.to(to_y.dtype).permute(0, 3, 1, 2)
        return to_x, to_weight, None


class _DenseTaps(torch.autograd.Function):
    """A dilated convolution whose kernel's gradient is one product of matrices for each tap that meets the maps."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, dilation: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.dilation = dilation
        return _dilated(x, weight, dilation)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, to_y: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        to_x, to_weight, d = None, None, ctx.dilation
        if ctx.needs_input_grad[0]:
            padding = [d * half for half in _half(weight.shape[-2:])]
            to_x = torch.ops.aten.convolution_backward(
                to_y, x, weight, None, (1, 1), padding, (d, d), False, (0, 0), 1, (True, False, False)
            )[0]
        if ctx.needs_input_grad[1]:
            rows, slopes = x.permute(0, 2, 3, 1), to_y.permute(0, 2, 3, 1)
            each = weight.new_zeros(len(weight), *weight.shape[-2:], weight.shape[1])
            for row, column, source, target in _taps(weight.shape[-2:], x.shape[-2:], d):
                torch.mm(slopes[target].flatten(0, 2).t(), rows[source].flatten(0, 2), out=each[:, row, column])
            to_weight = each.permute(0, 3, 1, 2)
        return to_x, to_weight, None


def _rows(x: Tensor) -> Tensor:
    """Maps (N,C,H,W) as (N,H,W,C), in fp32 at least."""
    return upcast(x.permute(0, 2, 3, 1))
