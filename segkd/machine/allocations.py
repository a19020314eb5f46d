"""How many bytes the tensors of a computation take at once: counted as they come and go, whatever the process did before."""

from __future__ import annotations

import functools
import weakref
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


class Allocations(TorchDispatchMode):
    """`with Allocations() as seen: ...; seen.peak` is the most bytes that tensors made inside the block took at once.

    Results are those without it. What a kernel needs for itself while it runs is not seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: dict[int, weakref.ref] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        for tensor in tree_iter((args, kwargs)):
            self._meet(tensor, own=False)  # what was there before, and may be handed back by what changes it in place
        results = function(*args, **kwargs)
        for tensor in tree_iter(results):
            self._meet(tensor, own=True)
        return results

    def _meet(self, tensor: object, own: bool) -> None:
        if not isinstance(tensor, Tensor) or tensor.layout != torch.strided:
            return
        storage = tensor.untyped_storage()
        if (key := id(storage)) in self._known:
            return
        size = storage.nbytes() if own else 0
        self._known[key] = weakref.ref(storage, functools.partial(self._leave, key, size))
        self.now += size
        self.peak = max(self.peak, self.now)

    def _leave(self, key: int, size: int, _: weakref.ref) -> None:
        self._known.pop(key, None)
        self.now -= size
