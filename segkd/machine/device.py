"""The device that a run computes on, and the machine that it is on, in words."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import torch

from segkd.foundation.errors import RecipeError

UNITS = {"amx_bf16": "AMX", "avx512_bf16": "AVX-512 bf16", "avx512f": "AVX-512", "avx2": "AVX2"}
"""The vector units of processors, the best first, by Linux's names of them."""


def machine() -> str:
    """The processor (and GPU) of this machine in words, for logs.

    Its vector units are a part of it: among machines that call themselves alike some take three times as long as others.
    """
    units = f" ({found})" if (found := vector_units()) else ""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{_processor().get('model name', 'unknown CPU')}{units}, {cores} core{'' if cores == 1 else 's'}{gpu}"


def vector_units() -> str | None:
    """The best of `UNITS` that this processor has; None where it has none of them, or does not tell."""
    flags = _processor().get("flags", "").split()
    return next((name for flag, name in UNITS.items() if flag in flags), None)


def _processor() -> dict[str, str]:
    """What Linux tells of the first processor."""
    try:
        first = Path("/proc/cpuinfo").read_text().partition("\n\n")[0]
    except OSError:
        return {}
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first.splitlines())}


def device_of(name: str, asked_by: str = "run.device") -> torch.device:
    """`auto` is the first CUDA device, or the CPU.

    Raises:
        RecipeError: torch has no such device; `asked_by` is the key or the flag that names it.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and "LOCAL_RANK" in os.environ:  # torchrun's number of this process on its machine
        name = f"cuda:{os.environ['LOCAL_RANK']}"
    device, lacks = torch.device(name), None
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        lacks = None if (device.index or 0) < count else f"{count or 'no'} CUDA device{'s' if count > 1 else ''}"
    elif device.type == "mps" and not torch.backends.mps.is_available():
        lacks = "no MPS device"
    if lacks is not None:
        raise RecipeError([f"{asked_by}: {name}, but torch sees {lacks}; set {asked_by}=cpu"])
    return device


def seconds_of(action: Callable[[], object], device: torch.device) -> float:
    """How long an action takes, until the device has done all of it."""
    began = time.perf_counter()
    action()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began
