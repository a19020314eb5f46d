"""The machine that a run has: what it is, in words, and what it does quicker."""

from __future__ import annotations

import functools
import os
import time
from pathlib import Path

import torch


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


@functools.cache
def quicker_in_bf16() -> bool:
    """Whether this processor convolves in bf16 sooner than in fp32, measured once: some have such units, and slow ones.

    Without AMX an Intel Xeon has bf16 products at half the rate of fp32's; an AMD EPYC has them at twice the rate.
    """
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        maps, kernel = torch.randn(4, 64, 48, 64), torch.randn(64, 64, 3, 3)
    both = (maps.bfloat16(), kernel.bfloat16()), (maps, kernel)
    # in turn, so that what else the machine does just now slows both
    bf16, fp32 = (min(column) for column in zip(*([_seconds(*one) for one in both] for _ in range(5)), strict=True))
    return bf16 < fp32


@torch.no_grad()
def _seconds(maps: torch.Tensor, kernel: torch.Tensor, trials: int = 2) -> float:
    """The least of some trials, after one that warms up."""
    maps, kernel = (value.contiguous(memory_format=torch.channels_last) for value in (maps, kernel))
    times = []
    for _ in range(1 + trials):
        start = time.perf_counter()
        torch.conv2d(maps, kernel, padding=1)
        times.append(time.perf_counter() - start)
    return min(times[1:])
