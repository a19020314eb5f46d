"""Networks that somebody else describes: built of arguments that are known, in memory that is there."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from segkd.foundation.channels import RGB
from segkd.foundation.errors import RecipeError, SegkdError, one_line
from segkd.machine import memory
from segkd.machine.memory import out_of_memory
from segkd.models.family import Builder, architectures

MOST_TENSORS = 20_000
"""Tensors that a network may be built of, those for its initialisation included."""
_UNKNOWN_MB = 64_000.0
"""Memory that is taken for free where the system does not tell."""
_SIZED = ("empty", "empty_strided", "zeros", "ones", "full", "rand", "randn", "randint")


def unknown_arguments(network: Builder, encoder: str | None, given: Iterable[str]) -> list[str]:
    """Those of the given names that are no arguments of the architecture, or of its timm encoder.

    What timm takes to find files and weights (`checkpoint_path`, `pretrained_cfg`, `cache_dir`, ...) is none of a network;
    timm itself refuses what its encoder does not know.
    """
    own = {name for name, each in signature(network).parameters.items() if each.kind is not each.VAR_KEYWORD}
    more = [name for name in given if name not in own]
    if encoder is None or not encoder.startswith("tu-"):
        return sorted(more)
    import timm
    from timm.models import build_model_with_cfg

    loading = {*signature(timm.create_model).parameters, *signature(build_model_with_cfg).parameters}
    loading |= {"features_only", "feature_cls", "out_indices", "pruned", "device", "dtype", "in_chans", "num_classes"}
    return sorted(name for name in more if name in loading or name.startswith("pretrained"))


def fitting_mb(state: Mapping[str, Tensor]) -> float:
    """Enough memory to build the network of such tensors, in fp32 and with what its initialisation takes besides."""
    return 4 * 4 * sum(value.numel() for value in state.values()) / 2**20 + 64


Option = int | float | str | bool | None | list
GIVEN = {"classes", "encoder_name", "encoder_weights", "in_channels", "activation", "aux_params", "kwargs"}
"""Arguments of an architecture that are no options: segkd gives them, or none."""


def create_network(
    arch: str, encoder: str | None, classes: int, options: Mapping[str, Option], *, channels: int = RGB,
    block: str = "model", megabytes: float | None = None, folder: Path | None = None,
) -> nn.Module:  # fmt: skip
    """A network of one of the families, with random weights.

    Args:
        arch: the name of an architecture: any of smp's (`DeepLabV3Plus`, `fpn`, ...) or of another family; case does not matter.
        encoder: any smp encoder name, `tu-` names of timm included; None where the architecture has no choice.
        classes: number of classes C of the logits.
        options: further arguments of the architecture or of a timm encoder. One that is None is left out, which takes a
            base recipe's back.
        channels: those of the images.
        block: the block of the recipe that describes it, for errors.
        megabytes: what it may take while it is built; by default what the machine has left.
        folder: that of its weights, which describes the networks of some families.

    Raises:
        TeacherError: what the folder holds describes no such network.
        RecipeError: there is no such architecture or encoder, it refuses an option, or it takes more memory.
    """
    options = {key: value for key, value in options.items() if value is not None}
    known = architectures()
    found = next((name for name in known if name.lower() == arch.lower()), None)
    if found is None:
        raise RecipeError([f"{block}.arch: no architecture is called {arch} (known: {', '.join(sorted(known))})"])
    family, kind = known[found]
    of = f"{found}{f' with encoder {encoder}' if encoder else ''}"
    if not is_local(encoder):
        raise RecipeError(
            [f"{block}.encoder: no encoder is called {encoder}: a name with a source would be downloaded"]
        )
    if family.from_folder and folder is None:
        raise RecipeError(
            [f"{block}.arch: {found} is described by the folder of its weights, which only a teacher has"]
        )
    if channels != RGB and not family.from_folder:
        if "in_channels" not in signature(kind).parameters:
            raise RecipeError([f"{block}.arch: {found} takes RGB images, and the teacher's mean has {channels} values"])
        options |= {"in_channels": channels}
    if unknown := sorted(options) if family.from_folder else unknown_arguments(kind, encoder, options):
        own = (
            []
            if family.from_folder or str(encoder).startswith("tu-")
            else sorted(signature(kind).parameters.keys() - GIVEN)
        )
        has = f"; it has {', '.join(own)}" if own else ""
        raise RecipeError([f"{block}.options: {of} has no option {unknown[0]!r}{has}"])
    try:
        if family.whole:  # of code that is trusted, and that a watch over its tensors would disturb
            return family.build_from(kind, folder, classes, channels)
        with at_most(megabytes):
            if family.from_folder:
                return family.build_from(kind, folder, classes, channels)
            return family.build(kind, encoder, classes, options)
    except SegkdError:
        raise
    except Exception as error:  # code of libraries, which check little
        if out_of_memory(error):
            raise
        raise RecipeError([f"{block}: {of} cannot be built: {one_line(error)}"]) from error


def is_whole(arch: str) -> bool:
    """Whether the networks of an architecture are programs, each in a file with its weights."""
    return any(family.whole for name, (family, _) in architectures().items() if name.lower() == arch.lower())


def is_local(encoder: object) -> bool:
    """Whether the name of an encoder stands for code that is installed: timm reads `hf-hub:NAME` from the network."""
    return encoder is None or (isinstance(encoder, str) and ":" not in encoder)


@contextmanager
def at_most(megabytes: float | None = None) -> Iterator[None]:
    """Tensors that are made inside the block take no more than so many MB together; by default, than are left.

    Raises:
        ValueError: one would; it is not made.
    """
    left = memory.available_mb() or _UNKNOWN_MB
    with _Allotment(min(left, math.inf if megabytes is None else megabytes)):
        yield


class _Allotment(TorchDispatchMode):
    def __init__(self, megabytes: float) -> None:
        super().__init__()
        self.megabytes, self.left, self.tensors = megabytes, megabytes * 2**20, MOST_TENSORS

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func.overloadpacket.__name__ in _SIZED and torch.device(kwargs.get("device") or "cpu").type != "meta":
            size = next((each for each in args if isinstance(each, list | tuple)), ())
            dtype = kwargs.get("dtype") or torch.get_default_dtype()
            self.left -= math.prod(size) * dtype.itemsize
            self.tensors -= 1
            if self.left < 0:
                raise ValueError(f"it asks for more than the {self.megabytes:,.0f} MB that it may take")
            if self.tensors < 0:
                raise ValueError(f"it asks for more than {MOST_TENSORS:,} tensors")
        return func(*args, **kwargs)
