"""The device that a run computes on, and the machine that it is on, in words."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import torch

from segkd.foundation.errors import RecipeError


def machine() -> str:
    """The processor (and GPU) of this machine in words, for logs."""
    model = "unknown CPU"
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{model}, {len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()} cores{gpu}"


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
