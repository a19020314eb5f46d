"""SegNet (arXiv:1511.00561): an encoder of the shape of VGG16, and its mirror image that undoes every pooling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from segkd.foundation.channels import RGB
from segkd.models.family import Builder, Described, Family

STAGES = ((1, 2), (2, 2), (4, 3), (8, 3), (8, 3))
"""Channels (in widths) and convolutions of the encoder's stages, from the image downwards."""
STRIDE = 2 ** len(STAGES)
UPSAMPLES = ("unpool", "bilinear")
NAMES = ("SegNet",)
WIDTH = 64
"""That of the paper."""


def unpool(x: Tensor, indices: Tensor) -> Tensor:
    """Maps (N,C,h,w) at the places of their maxima in (N,C,2h,2w), zero elsewhere.

    `indices` (N,C,h,w) int64 are those of a 2x2 max pooling with stride 2. Its windows do not overlap, so that no
    index occurs twice, and a scatter does what `max_unpool2d` does and refuses to do deterministically.
    """
    n, c, h, w = x.shape
    # Rows of channels: views of channels_last maps, which training uses; there nothing is copied.
    rows, places = (value.permute(0, 2, 3, 1).reshape(n, h * w, c) for value in (x, indices))
    spread = x.new_zeros(n, 4 * h * w, c).scatter(1, places, rows)
    return spread.view(n, 2 * h, 2 * w, c).permute(0, 3, 1, 2)


class SegNet(nn.Module):
    """Images (N,in_channels,H,W) to logits (N,C,H,W); H and W must be multiples of 32.

    Thirteen 3x3 convolutions with BatchNorm and ReLU in five stages, each of which ends in a 2x2 max pooling; then as
    many in reverse order, each stage beginning with the undoing of its pooling. The very last convolution has neither
    BatchNorm nor ReLU: it gives the logits.
    Differs: no bias before BatchNorm; `width` may be less than the paper's 64; `upsample` may ignore the indices.

    Args:
        classes: number of classes C.
        width: channels of the first stage; the next ones have 2, 4, 8 and 8 times as many.
        in_channels: those of the images.
        upsample: `unpool` puts each value where the maximum was; `bilinear` interpolates.

    Raises:
        ValueError: an option is out of range; in `forward`, 32 does not divide H and W.
    """

    def __init__(self, classes: int, width: int = WIDTH, upsample: str = UPSAMPLES[0], in_channels: int = RGB) -> None:
        super().__init__()
        if type(width) is not int or not 1 <= width <= 1024:
            raise ValueError(f"width: expected a whole number 1..1024, not {width!r}")
        if upsample not in UPSAMPLES:
            raise ValueError(f"upsample: expected {' or '.join(UPSAMPLES)}, not {upsample!r}")
        self.config: dict[str, int | str] = {"_model_class": NAMES[0]}
        self.config |= {"classes": classes, "width": width, "upsample": upsample}
        self.config |= {} if in_channels == RGB else {"in_channels": in_channels}
        self.encoder = Encoder(in_channels, width, keep_indices=upsample == "unpool")
        self.decoder = Decoder(width)
        self.segmentation_head = nn.Conv2d(width, classes, 3, padding=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")  # arXiv:1502.01852, as in the paper
        nn.init.zeros_(self.segmentation_head.bias)

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        if height % STRIDE or width % STRIDE:
            raise ValueError(
                f"SegNet: H and W must be multiples of {STRIDE}, not {height}x{width}; pad to"
                f" {-(-height // STRIDE) * STRIDE}x{-(-width // STRIDE) * STRIDE}"
            )
        return self.segmentation_head(self.decoder(*self.encoder(images)))


class Encoder(nn.Module):
    """Images (N,in_channels,H,W) to maps (N,8*width,H/32,W/32), and the indices of each pooling's maxima (None: not kept)."""

    output_stride = STRIDE

    def __init__(self, in_channels: int, width: int, keep_indices: bool) -> None:
        super().__init__()
        self.keep_indices = keep_indices
        self.stages = nn.ModuleList()
        channels = in_channels
        for widths, convolutions in STAGES:
            self.stages.append(stage(channels, [widths * width] * convolutions))
            channels = widths * width

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor | None]]:
        indices: list[Tensor | None] = []
        for layers in self.stages:
            x, places = F.max_pool2d(layers(x), 2, return_indices=True)
            indices.append(places if self.keep_indices else None)
        return x, indices


class Decoder(nn.Module):
    """The encoder's maps and indices back to maps (N,width,H,W)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList()
        channels = [widths * width for widths, _ in STAGES]
        for index in reversed(range(len(STAGES))):
            own, convolutions = channels[index], STAGES[index][1]
            below = channels[index - 1 : index]  # none for the last: its second convolution is the network's head
            self.stages.append(stage(own, [own] * (convolutions - 1) + below))

    def forward(self, x: Tensor, indices: list[Tensor | None]) -> Tensor:
        for layers, places in zip(self.stages, reversed(indices), strict=True):
            if places is None:
                x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            else:
                x = unpool(x, places)
            x = layers(x)
        return x


def stage(channels: int, outputs: Sequence[int]) -> nn.Sequential:
    """3x3 convolutions to so many channels each, with BatchNorm and ReLU."""
    layers: list[nn.Module] = []
    for out in outputs:
        # Without bias: BatchNorm takes it away again, and Adam would make it wander.
        layers += [nn.Conv2d(channels, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU(inplace=True)]
        channels = out
    return nn.Sequential(*layers)


class SegNets(Family):
    """SegNet of any width; it has no choice of encoder."""

    def architectures(self) -> Mapping[str, Builder]:
        return dict.fromkeys(NAMES, SegNet)

    def build(self, kind: Builder, encoder: str | None, classes: int, options: Mapping[str, object]) -> nn.Module:
        if encoder is not None:
            raise ValueError(f"a SegNet has no choice of encoder: set encoder: null instead of {encoder}")
        return kind(classes=classes, **options)

    def owns(self, network: nn.Module) -> bool:
        return isinstance(network, SegNet)

    def config(self, network: nn.Module) -> Mapping[str, object]:
        return network.config

    def described(self, config: Mapping[str, object]) -> Described | None:
        """How it upsamples no shape of a tensor tells."""
        if config.get("_model_class") != NAMES[0]:
            return None
        defaults = {"width": WIDTH, "upsample": UPSAMPLES[0]}
        return Described(NAMES[0], None, {key: config[key] for key in defaults if key in config}, defaults)

    def features(self, network: nn.Module) -> tuple[str, ...]:
        return ("encoder", "decoder")


FAMILY = SegNets()
