"""How long a run is, and how often it saves, looks and samples: after so many steps, or a time, which becomes steps once."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from segkd.machine import ranks

KINDS = ("save_every", "eval_every", "sample_every")
TRIALS = 4
"""Steps that tell what one takes; the first, which warms up, is not counted."""


class Seconds(float):
    """A time between saves, looks or samples that is still to become steps."""


@dataclass(frozen=True)
class Plan:
    """The length and rhythm of a run, in steps.

    What is given as `Seconds` is not due until it has become steps; from then on it stays so, in every part of the run.

    Attributes:
        times: the seconds of what was given as a time and has become steps, by name.
    """

    steps: int
    save_every: int | Seconds
    eval_every: int | Seconds
    sample_every: int | Seconds
    keep: int
    rollback: int = 0
    log_every: int = 10
    times: Mapping[str, float] = field(default_factory=dict)

    def due(self, every: int | Seconds, done: int) -> bool:
        """Whether what comes each `every` steps, and after the last one, comes after `done` steps."""
        return done == self.steps or (not isinstance(every, Seconds) and done % every == 0)

    @property
    def undecided(self) -> dict[str, Seconds]:
        """What is still a time, by name."""
        return {name: value for name in KINDS if isinstance(value := getattr(self, name), Seconds)}

    @property
    def decided(self) -> dict[str, list[float]]:
        """What was a time, by name: its seconds, and the steps that it has become. So a checkpoint keeps it."""
        return {name: [seconds, getattr(self, name)] for name, seconds in self.times.items()}

    def at_pace(self, seconds: float) -> Plan:
        """The plan once it is known that a step takes `seconds`."""
        steps = {name: max(1, int(every / max(seconds, 1e-9))) for name, every in self.undecided.items()}
        return replace(self, **steps, times={**self.times, **{name: float(t) for name, t in self.undecided.items()}})

    def as_before(self, decided: Mapping[str, list[float]]) -> Plan:
        """The plan with the steps that the same times have become in an earlier part of the run."""
        same = {name: int(decided[name][1]) for name, t in self.undecided.items() if decided.get(name, [None])[0] == t}
        return replace(self, **same, times={**self.times, **{name: decided[name][0] for name in same}})

    def words(self) -> str:
        """The rhythm in a line."""
        save, look, sample = (getattr(self, name) for name in KINDS)
        return f"a checkpoint every {save} steps, an evaluation every {look}, a sample every {sample}, and all after the last"


class StepTimer:
    """Sees how long the first steps take, and turns the times of a plan into steps."""

    def __init__(self) -> None:
        self._times = [time.perf_counter()]

    def after_step(self, plan: Plan) -> Plan:
        """The plan, decided if it can be by now; all processes ask at the same step, and the first one's clock counts."""
        self._times.append(time.perf_counter())
        played = len(self._times) - 1
        first = min(1, played - 1)
        seconds = (self._times[-1] - self._times[first]) / (played - first)
        # No step is played for it, and no more than one rhythm passes without a checkpoint.
        known = played >= TRIALS or self._times[-1] - self._times[0] >= min(plan.undecided.values())
        seconds = ranks.broadcast(seconds if known else None)
        return plan if seconds is None else plan.at_pace(seconds)
