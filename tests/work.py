"""How much work something takes, without a clock: calls that Python makes, and memory.

A time says how busy the machine was. Calls are as many each time, on any machine.
"""

from __future__ import annotations

import cProfile
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def work_below(calls: int, megabytes: int) -> Iterator[None]:
    """Fail where more is done than so many calls, or where the process's peak memory grows by more.

    Calls are those of functions of Python and of C, and steps of generators; what C does within one of them is not seen.
    """
    profile = cProfile.Profile()  # of its times nobody asks
    with memory_below(megabytes):
        profile.enable()
        try:
            yield
        finally:
            profile.disable()
    made = sum(function.callcount for function in profile.getstats())
    assert made < calls, f"{made} calls"


@contextmanager
def memory_below(limit: int) -> Iterator[None]:
    """Fail when the process's peak memory grows by more than `limit` megabytes; measured on Linux only."""
    measured = sys.platform == "linux"
    if measured:
        Path("/proc/self/clear_refs").write_text("5")  # sets the peak back to what is used now
        before = _kilobytes("VmRSS")
    yield
    if measured:
        grown = _kilobytes("VmHWM") - before
        assert grown < limit * 1000, f"{grown / 1000:.0f} MB"


def _kilobytes(key: str) -> int:
    return int(next(line for line in Path("/proc/self/status").open() if line.startswith(key)).split()[1])
