"""How a learning rate falls over the steps of a run."""

from __future__ import annotations

import math
from collections.abc import Callable


def constant(step: int) -> float:
    """1 at any step."""
    return 1.0


def poly(step: int, steps: int, power: float) -> float:
    """(1 - s/S)^power."""
    return (1 - _done(step, steps)) ** power


def cosine(step: int, steps: int) -> float:
    """Half a period, from 1 to 0 (arXiv:1608.03983, without restarts)."""
    return 0.5 * (1 + math.cos(math.pi * _done(step, steps)))


def stages(step: int, steps: int, every: float, gamma: float) -> float:
    """`gamma` times what it was after each `every` of the run.

    An `every` of 0.3333 means three stages: the fourth, 0.0001 of the run, is left out.
    """
    last = math.ceil(1 / every - 0.01) - 1
    return gamma ** min(math.floor(_done(step, steps) / every + 1e-9), last)


def warmed_up(step: int, factor: Callable[[int], float], warmup: int) -> float:
    """A factor that rises linearly to its own in the first `warmup` steps."""
    return min((step + 1) / warmup, 1.0) * factor(step)


def _done(step: int, steps: int) -> float:
    """The fraction of a run before a step, from 0."""
    return min(step / max(steps, 1), 1.0)
