"""Networks that somebody else describes: built of arguments that are known, in memory that is there."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from segkd.machine import memory

MOST_TENSORS = 20_000
"""Tensors that a network may be built of, those for its initialisation included."""
_UNKNOWN_MB = 64_000.0
"""Memory that is taken for free where the system does not tell."""
_SIZED = ("empty", "empty_strided", "zeros", "ones", "full", "rand", "randn", "randint")


def unknown_arguments(network: type[nn.Module], encoder: str | None, given: Iterable[str]) -> list[str]:
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
