"""A terminal that is closed over a run: the signal that comes with it, and the streams that are dead from then on."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import sys
import termios

import pytest

from tests.faults.child import close_at_first_line
from tests.faults.harness import PLAIN


class Hangup:
    """The run has a terminal of its own, which is closed when the first line is in its diary.

    `ignored`: as `nohup` and `trap '' HUP` have it; `interactive`: progress is written over.
    """

    def __init__(self, ignored: bool, interactive: bool) -> None:
        self.ignored, self.interactive = ignored, interactive

    def __call__(self) -> None:
        os.environ["TERM"] = "xterm" if self.interactive else "dumb"
        if self.ignored:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
        os.setsid()
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)
        for stream in (0, 1, 2):
            os.dup2(theirs, stream)
        os.close(theirs)
        assert sys.stderr.isatty() and os.tcgetpgrp(2) == os.getpgrp()
        close_at_first_line(ours)


@pytest.mark.row("S2", 2)
@pytest.mark.parametrize("interactive", [True, False])
def test_a_closed_terminal_lets_it_save_and_stop(row, job, interactive):
    it = job("noise", *PLAIN)
    arguments = [word for word in it.arguments if word != "--quiet"]
    for ignored in (bool(index) for index in row):
        child = it.forks.start(arguments, it.fresh().folder, Hangup(ignored, interactive))
        assert child.wait() == (0 if ignored else 128 + signal.SIGHUP)
        if not ignored:
            assert it.standing() >= 1 and not (it.folder / "run" / "summary.json").exists()
            it.goes_on()
        it.ends_as_expected()
