"""The signals that end a run early, with all that is finished saved."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from segkd.machine import ranks

HANGUP = getattr(signal, "SIGHUP", None)
"""What comes when a terminal is closed; Windows has none."""
STOPPING = tuple(number for number in (signal.SIGINT, signal.SIGTERM, HANGUP) if number is not None)
"""The signals that a run answers by saving."""


class Interrupted(Exception):
    """A signal came within a step: what is finished of it can be saved, and the rest is played when the run goes on."""


class StopFlag:
    """Set by SIGINT, SIGTERM or SIGHUP; the loop looks at it between moves and evaluation batches. A second SIGINT exits at once.

    A SIGHUP that was ignored when the run began, as `nohup` has it, stays ignored. With several processes it is set by `agree`
    alone, in all of them at the same place.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self._noticed = 0

    def agree(self) -> None:
        """Let every process know the signals that any has noticed."""
        if ranks.size() > 1:
            self.signum = ranks.largest(self._noticed) or None

    def __call__(self) -> bool:
        return self.signum is not None

    @contextmanager
    def listening(self) -> Iterator[StopFlag]:
        """Handle the signals inside the block, and put the old handlers back (main thread only)."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        heard = [number for number in STOPPING if not (number == HANGUP and signal.getsignal(number) == signal.SIG_IGN)]
        old = {number: signal.signal(number, self._notice) for number in heard}
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
