"""Networks of torchvision: a backbone, a classifier on its maps, and logits that are brought to the image's size."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cache, partial

import torch
from torch import Tensor, nn
from torchvision.models import segmentation

from segkd.models.family import Builder, Family, Sizes

NAMES = (
    "deeplabv3_resnet50", "deeplabv3_resnet101", "deeplabv3_mobilenet_v3_large", "fcn_resnet50", "fcn_resnet101",
    "lraspp_mobilenet_v3_large",
)  # fmt: skip
IMAGENET = True
"""Its training scripts take ImageNet's mean and std: a recipe has to say whether it does."""
AUXILIARY = "aux_classifier."
_PROBE = 64  # pixels of an image's side, for the stride of the head: a multiple of every network's


def made(name: str, classes: int) -> nn.Module:
    """A network without the auxiliary head, which is there for training only; nothing is downloaded."""
    network = getattr(segmentation, name)(weights=None, weights_backbone=None, num_classes=classes, aux_loss=False)
    network.config = {"_model_class": name, "classes": classes}
    return network


@cache
def _keys(name: str) -> frozenset[str]:
    with torch.device("meta"):
        return frozenset(made(name, 2).state_dict())


class Torchvision(Family):
    """DeepLabV3, FCN and LR-ASPP, by the names of their builders; they take images of any size as they are."""

    beside = (AUXILIARY,)

    def architectures(self) -> Mapping[str, Builder]:
        return {name: partial(made, name) for name in NAMES}

    def build(self, kind: Builder, encoder: str | None, classes: int, options: Mapping[str, object]) -> nn.Module:
        if encoder is not None:
            raise ValueError(f"its encoder is part of its name: set encoder: null instead of {encoder}")
        return kind(classes=classes, **options)

    def owns(self, network: nn.Module) -> bool:
        return isinstance(network, (segmentation.FCN, segmentation.DeepLabV3, segmentation.LRASPP))

    def named(self, keys: Collection[str]) -> str | None:
        own = {key for key in keys if not key.startswith(AUXILIARY)}
        return next((name for name in NAMES if _without_counters(_keys(name)) == _without_counters(own)), None)

    def config(self, network: nn.Module) -> Mapping[str, object]:
        return network.config

    def sizes(self, network: nn.Module) -> Sizes:
        return Sizes(1)

    def head_stride(self, network: nn.Module) -> int:
        named = (*network.named_parameters(), *network.named_buffers())
        found: list[int] = []
        handle = network.classifier.register_forward_hook(lambda _, __, maps: found.append(maps.shape[-1]))
        try:  # two images: in training, BatchNorm refuses a single one of one pixel, in an ASPP
            with torch.no_grad():
                images = torch.empty(2, 3, _PROBE, _PROBE, device="meta")
                torch.func.functional_call(network, {name: value.to("meta") for name, value in named}, images)
        finally:
            handle.remove()
        return _PROBE // found[0]

    def at_head(self, network: nn.Module, images: Tensor) -> Tensor:
        maps = network.backbone(images)
        return network.classifier(maps if isinstance(network, segmentation.LRASPP) else maps["out"])

    def features(self, network: nn.Module) -> tuple[str, ...]:
        """The deepest maps, and the last before the logits."""
        last = "cbr" if isinstance(network, segmentation.LRASPP) else str(len(network.classifier) - 2)
        return ("backbone", f"classifier.{last}")


def _without_counters(keys: Collection[str]) -> set[str]:
    return {key for key in keys if not key.endswith("num_batches_tracked")}


FAMILY = Torchvision()
