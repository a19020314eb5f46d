"""The interfaces of the loop: what it trains (Game), what it calls (Events), and what it tells (Progress)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


class Game(Protocol):
    """What is trained: one supervised player (`teaching`), or a student against a source of images (`distiller`).

    Attributes:
        precision: of its networks.
        attempt: how often it was rolled back; other attempts have other random numbers.
        notes: lines about the last step, on an accelerator about the one before: why an update was refused, say. The loop
            writes them down and clears the list.
        on_progress: called with the finished fraction of a step whenever a part of it is done.
        stopping: asked between the parts of a long step, whether a signal has come.
    """

    precision: str
    attempt: int
    notes: list[str]
    on_progress: Callable[[float], None]
    stopping: Callable[[], bool]

    def play(self, step: int) -> dict[str, float | Tensor]:
        """One step; returns what is to be logged. Values on a device are only waited for when they are written.

        Raises:
            Interrupted: a signal came within the step. The state is that of a step half done, and the next call does the rest.
            NumbersError: too many updates were refused.
        """

    def vitals(self) -> tuple[dict[str, float], str | None]:
        """Figures that tell whether it is well, and in words what is wrong."""

    def state(self) -> dict:
        """All that resuming needs. Raises NumbersError as `play` does."""

    def restore(self, state: dict) -> None:
        """Become what `state()` described."""


@dataclass(frozen=True)
class Progress:
    """How far a run is after a step, for whoever asked to be told.

    Attributes:
        step, steps: finished steps, and how many the run has.
        seconds: what it took so far, earlier parts of a resumed run counted in.
    """

    step: int
    steps: int
    seconds: float
    _values: Mapping[str, float | Tensor]

    @property
    def values(self) -> dict[str, float]:
        """The step's losses and learning rates by name; on a GPU, whoever reads them waits for the step."""
        return {name: float(value) for name, value in self._values.items()}


@dataclass(frozen=True)
class Events:
    """What the loop calls when it is due, with the number of finished steps.

    Attributes:
        evaluate: returns what is to be logged, and under `notes` lines of their own.
        sample: writes a grid of samples.
        check: called after each step, before anything is written.
        opened: how many images this process has opened for training.
        forecast: lines on what the run will take, asked once its first steps have shown it.
        progress: told of each step.
        enough: whether the run ends before its last step.
    """

    evaluate: Callable[[int], dict[str, object]] | None = None
    sample: Callable[[int], None] | None = None
    check: Callable[[], None] = lambda: None
    opened: Callable[[], int] = lambda: 0
    forecast: Callable[[], list[str]] = lambda: []
    progress: Callable[[Progress], object] | None = None
    enough: Callable[[], bool] = lambda: False
