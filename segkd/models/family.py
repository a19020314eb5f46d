"""What networks of one kind have in common: how they are built, which sizes they take, where head and features are."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn

from segkd.foundation import rooms

Size = tuple[int, int]
Builder = Callable[..., nn.Module]
"""The class of a network, or a function that makes it, whose arguments are its options."""


@dataclass(frozen=True)
class Sizes:
    """The sizes of images that a network takes: with sides that are multiples of a number, or a fixed one (H,W)."""

    multiple: int = 1
    fixed: Size | None = None

    def takes(self, size: Size) -> bool:
        """Whether images of a size are shown as they are."""
        return size == self.fixed if self.fixed else not any(side % self.multiple for side in size)

    def fitted(self, images: Tensor) -> Tensor:
        """Images (N,C,H,W) as the network takes them: padded bottom and right by replication, or resampled to the fixed size."""
        height, width = images.shape[-2:]
        if self.fixed:
            return images if self.takes((height, width)) else _resampled(images, self.fixed)
        bottom, right = -height % self.multiple, -width % self.multiple
        return F.pad(images, (0, right, 0, bottom), mode="replicate") if bottom or right else images

    def restored(self, logits: Tensor, size: Size) -> Tensor:
        """The logits of fitted images, at these images' size or smaller, brought back to those (H,W) of the images given."""
        if self.fixed:
            return logits if logits.shape[-2:] == size else _resampled(logits, size)
        padded = tuple(side + -side % self.multiple for side in size)
        if logits.shape[-2:] != padded:
            logits = _resampled(logits, padded)
        return logits[..., : size[0], : size[1]]


@dataclass(frozen=True)
class Described:
    """A network as the `config.json` beside its weights has it.

    Attributes:
        arch, encoder, options: what a recipe would say of it, in the order in which it is to be told.
        defaults: what the options of such an architecture are where nothing is said.
    """

    arch: str
    encoder: str | None
    options: Mapping[str, object]
    defaults: Mapping[str, object]


def _resampled(maps: Tensor, size: Size) -> Tensor:
    return F.interpolate(maps, size, mode="bilinear", align_corners=False)


class Family:
    """Networks of one kind. This one is any module that maps images to logits, of which nothing else is known."""

    beside: tuple[str, ...] = ()
    """Beginnings of the names of tensors that a file may hold, and that have no part in segmenting."""
    from_folder = False
    """Whether the folder of its weights describes a network: it is made by `build_from`, and has no options."""
    whole = False
    """Whether the file of its weights is a program, which brings them along."""

    def architectures(self) -> Mapping[str, Builder]:
        """Those that it can build, by name."""
        return {}

    def build(self, kind: Builder, encoder: str | None, classes: int, options: Mapping[str, object]) -> nn.Module:
        """A network with random weights, from torch's global generator; raises whatever the library does."""
        raise NotImplementedError

    def build_from(self, kind: Builder, folder: Path, classes: int, channels: int) -> nn.Module:
        """A network with random weights, as the folder of its weights describes it, for images of so many channels."""
        raise NotImplementedError

    def config(self, network: nn.Module) -> Mapping[str, object] | None:
        """What a student's `config.json` says of it: `build`'s arguments, and `_model_class`; None: its library writes the folder."""
        return None

    def described(self, config: Mapping[str, object]) -> Described | None:
        """The network that a `config.json` beside weights describes; None: it is none of them, or nothing is to be compared."""
        return None

    def owns(self, network: nn.Module) -> bool:
        """Whether a network is one of them."""
        return True

    def named(self, keys: Collection[str]) -> str | None:
        """The architecture of the network whose tensors have these names, where they tell."""
        return None

    def labels(self, network: nn.Module) -> tuple[str, ...]:
        """What it calls its classes, where it knows; else nothing."""
        return ()

    def renamed(self, network: nn.Module, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The tensors of a file by the names that the library has for them today."""
        return state

    def sizes(self, network: nn.Module) -> Sizes:
        """Which sizes it takes."""
        return Sizes(int(getattr(getattr(network, "encoder", None), "output_stride", 32)))

    def made_for(self, network: nn.Module) -> Size | None:
        """The one size (H,W) that it was built for, where another would be refused; None: there is none."""
        return None

    def head_stride(self, network: nn.Module) -> int:
        """How much smaller than its image the last maps are before the network itself upsamples them; 1: they are not."""
        return 1

    def at_head(self, network: nn.Module, images: Tensor) -> Tensor:
        """These maps (N,C,H/stride,W/stride) of images (N,K,H,W), where the stride is above 1."""
        raise NotImplementedError

    def from_head(self, network: nn.Module, maps: Tensor, stride: int) -> Tensor:
        """Such maps upsampled as the network does it."""
        return F.interpolate(maps, scale_factor=stride, mode="bilinear", align_corners=False)

    def features(self, network: nn.Module) -> tuple[str, ...]:
        """The submodules whose last maps a term may look at, in the order of execution; none: they have to be found."""
        return ()


@cache
def families() -> tuple[Family, ...]:
    """Those of `families/`, one a file."""
    return tuple(
        importlib.import_module(f"segkd.models.families.{name}").FAMILY for name in rooms.files(rooms.FAMILIES)
    )


def architectures() -> dict[str, tuple[Family, Builder]]:
    """All that can be built, by name: the family, and what makes it."""
    return {name: (family, kind) for family in families() for name, kind in family.architectures().items()}


def family_of(network: nn.Module) -> Family:
    """The family of a network."""
    return next((family for family in families() if family.owns(network)), Family())
