"""How much memory a refusal costs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
