"""What may end a run early: signals and numbers that went wrong."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from segkd.foundation import ranks
from segkd.foundation.errors import NumbersError


class StopFlag:
    """Set by SIGINT or SIGTERM; the loop looks at it between moves and evaluation batches. A second SIGINT exits at once.

    With several processes it is set by `agree` alone, in all of them at the same place.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self._noticed = 0

    def agree(self) -> None:
        """Let every process know the signals that any has noticed."""
        if ranks.size() > 1:
            self.signum = ranks.most(self._noticed) or None

    def __call__(self) -> bool:
        return self.signum is not None

    @contextmanager
    def listening(self) -> Iterator[StopFlag]:
        """Handle the two signals inside the block, and put the old handlers back (main thread only)."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        old = {number: signal.signal(number, self._notice) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield self
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)

    def _notice(self, signum: int, frame: FrameType | None) -> None:
        if self._noticed and signum == signal.SIGINT:
            os._exit(128 + signum)
        self._noticed = signum
        if ranks.size() == 1:
            self.signum = signum


class Refusals:
    """Counts refused moves: each is named in the log, and more than `max_bad` in a row of one player end the run.

    Each player counts for itself: one that is always refused learns nothing, however well the other plays.
    """

    def __init__(self, max_bad: int) -> None:
        self.max_bad = max_bad
        self.total = 0
        self.in_a_row: dict[str, int] = {}

    def accept(self, player: str) -> None:
        self.in_a_row.pop(player, None)

    def refuse(self, player: str, step: int, reason: str) -> str:
        """The line to log.

        Raises:
            NumbersError: too many in a row.
        """
        self.total += 1
        self.in_a_row[player] = self.in_a_row.get(player, 0) + 1
        line = f"step {step}: {player} {reason}"
        if self.in_a_row[player] > self.max_bad:
            raise NumbersError(
                f"{line}, {self.in_a_row[player]} refused moves in a row (run.max_bad {self.max_bad}): it has diverged;"
                " lower the learning rates or run.precision=fp32, and resume"
            )
        return f"{line}: move refused, nothing changed"

    def state(self) -> dict:
        return {"total": self.total, "in_a_row": dict(self.in_a_row)}

    def restore(self, state: dict) -> None:
        self.total, self.in_a_row = state["total"], dict(state["in_a_row"])
