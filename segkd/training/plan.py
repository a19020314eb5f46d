"""Steps for a budget of time, decided once, before step 1: schedules depend on steps only, never on the clock."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable


def steps_for(seconds: float, play: Callable[[int], object], trials: int = 3) -> int:
    """How many steps fit into `seconds`: the median of `trials` played steps, after one that warms up; at least 1."""
    play(0)
    times = []
    for step in range(1, trials + 1):
        start = time.perf_counter()
        play(step)
        times.append(time.perf_counter() - start)
    return max(1, int(seconds / statistics.median(times)))
