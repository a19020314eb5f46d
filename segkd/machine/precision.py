"""fp32 or bf16: which of them a machine computes sooner, and what is computed in fp32 whichever it is."""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from segkd.foundation.files import sha256
from segkd.machine import ranks
from segkd.machine.device import machine

WORDS = ("fp32", "bf16")


def upcast(value: Tensor) -> Tensor:
    """The tensor in fp32, or in fp64 where it is: what losses, statistics and images are computed in under autocast."""
    return value.to(torch.promote_types(value.dtype, torch.float32))


def bf16_of(precision: str, device: torch.device, asked_by: str = "run.precision") -> bool:
    """Whether networks run in bf16: as asked, or (`auto`) where the GPU computes in it, or the processor sooner.

    Who asks a processor for what takes it longer is told; `asked_by` is the key or the flag.
    """
    if precision != "auto":
        bf16 = precision == "bf16"
        if bf16 and device.type == "cpu" and not quicker_in_bf16():
            ranks.say(f"warning: {asked_by}: this processor computes bf16 more slowly than fp32; set {asked_by}=auto")
        return bf16
    if device.type == "cpu":
        return quicker_in_bf16()
    return device.type == "cuda" and torch.cuda.is_bf16_supported()


def quicker_in_bf16() -> bool:
    """Whether this processor convolves in bf16 sooner than in fp32: some have such units, and slow ones.

    Without AMX an Intel Xeon has bf16 products at half the rate of fp32's; an AMD EPYC has them at twice the rate. It is
    measured once on a machine with a version of torch and a number of threads, and kept in the user's cache: where both
    are nearly as quick, a run that is begun again must not come out in the other one.
    """
    supported = getattr(
        torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None
    )  # a torch without oneDNN (Apple's) has none
    return supported is not None and supported() and bf16_is_quicker("a convolution", measured)


def bf16_is_quicker(about: str, find: Callable[[], bool]) -> bool:
    """What the first process that ever asked on this machine about `about` has found.

    It is found anew where there is no folder to keep it in.
    """
    here = f"{machine()}, torch {torch.__version__}, {torch.get_num_threads()} threads: {about}"
    name = f"precision-{sha256(here.encode())[:16]}"
    lacking = (OSError, RuntimeError, ValueError)  # nothing kept, or no home, no right to write there, a damaged file
    with contextlib.suppress(*lacking):
        return WORDS.index((cache() / name).read_text()) == 1
    found = find()
    with contextlib.suppress(*lacking):
        path = cache() / name
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f".tmp-{name}-{os.getpid()}")
        fresh.write_text(WORDS[found])
        with contextlib.suppress(FileExistsError):
            os.link(fresh, path)  # unlike a replacement it fails where another process was first
        fresh.unlink()
        return WORDS.index(path.read_text()) == 1
    return found


def cache() -> Path:
    """The folder of what segkd may forget. Raises RuntimeError where the user has no home."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "segkd"


@functools.cache
def measured() -> bool:
    """Which of the two is quicker now."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        maps, kernel = torch.randn(4, 64, 48, 64), torch.randn(64, 64, 3, 3)
    both = (maps.bfloat16(), kernel.bfloat16()), (maps, kernel)
    # in turn, so that what else the machine does just now slows both
    bf16, fp32 = (min(column) for column in zip(*([seconds_of(*one) for one in both] for _ in range(5)), strict=True))
    return bf16 < fp32


@torch.no_grad()
def seconds_of(maps: torch.Tensor, kernel: torch.Tensor, trials: int = 2) -> float:
    """The least of some trials, after one that warms up."""
    maps, kernel = (value.contiguous(memory_format=torch.channels_last) for value in (maps, kernel))
    times = []
    for _ in range(1 + trials):
        start = time.perf_counter()
        torch.conv2d(maps, kernel, padding=1)
        times.append(time.perf_counter() - start)
    return min(times[1:])
