"""How this process holds on to memory, and how much it has."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from pathlib import Path

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4
LARGE = 2**18
"""Bytes of a tensor that is given back as soon as it is freed, where memory is spared."""
_forgotten_mb = 0.0


def hold(sparing: bool = False) -> bool:
    """Let the C library keep what is freed for the next tensor of the size, from now on; False where it cannot.

    By default glibc returns large tensors to the system at once and gets the next ones page by page: a tenth of a
    training step on a CPU. What is held grows where tensors that stay lie between the freed: the replay bank lies apart.

    Args:
        sparing: let it give back every large tensor as it is freed instead, so that no more is held than is in use.
    """
    options = [(M_MMAP_THRESHOLD, LARGE)] if sparing else [(M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1)]
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # another C library, or another system
        return False
    return all([set_option(*option) for option in options])


def resident_mb() -> float | None:
    """Memory of this process in MB; None where the system does not tell (it is no Linux)."""
    return _status("VmRSS")


def peak_mb() -> float | None:
    """The most that it held since it started, or since `forget_peak`; unlike getrusage's figure not its parent's."""
    return _status("VmHWM")


def largest_mb() -> int:
    """The most that this process held, in whole MB, as well as the system tells."""
    peak = peak_mb()
    if peak is None:
        try:
            import resource
        except ImportError:  # Windows
            return int(_forgotten_mb)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    return int(max(peak, _forgotten_mb))


def forget_peak() -> None:
    """Let `peak_mb` begin anew, where the system can; `largest_mb` remembers."""
    global _forgotten_mb
    _forgotten_mb = max(peak_mb() or 0.0, _forgotten_mb)
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def available_mb() -> float | None:
    """MB that this process may still take: what the machine has left, or its control group where that is less."""
    left = []
    with contextlib.suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        left.append(next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")) / 1024)
        group = Path("/sys/fs/cgroup")
        most, now = ((group / f"memory.{name}").read_text() for name in ("max", "current"))
        left.append((int(most) - int(now)) / 2**20)  # "max" is no number: no limit
    return min(left, default=None)


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says so, on the host or on the device; torch and oneDNN say the former with a plain RuntimeError."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    no_room_for_code = str(error) == "could not create a primitive"  # oneDNN's word, once it has a descriptor of it
    return isinstance(error, RuntimeError) and (no_room_for_code or "DefaultCPUAllocator: can't allocate" in str(error))


def _status(name: str) -> float | None:
    with contextlib.suppress(OSError, StopIteration, MemoryError):  # the last: it is asked for where none is left
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 1024
    return None
