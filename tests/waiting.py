"""Waiting for other processes, as long as the busiest machine may need: nothing is judged by how long it took."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE = 300
"""Seconds after which something hangs."""


def until(seen: Callable[[], object], alive: Callable[[], bool] = lambda: True) -> None:
    """Until `seen()`; fail where what it waits for is no longer `alive()`, or hangs."""
    end = time.monotonic() + PATIENCE
    while not seen():
        assert alive() or seen(), "it ended before"
        assert time.monotonic() < end, "it hangs"
        time.sleep(0.01)
