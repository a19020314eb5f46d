"""A run whose standard output or error is closed, full or gone ends as any other: nothing is lost with its words."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.child import close_at_first_line
from tests.faults.harness import PLAIN

ROOT = Path(__file__).parents[2]


def put(descriptor: int) -> None:
    """Both streams into one descriptor."""
    for stream in (1, 2):
        os.dup2(descriptor, stream)


class Closed:
    """As `>&- 2>&-` in a shell leaves them; `known`: Python saw it when it started."""

    def __init__(self, known: bool) -> None:
        self.known = known

    def __call__(self) -> None:
        os.close(1)
        os.close(2)
        if self.known:
            sys.stdout = sys.stderr = None


def full() -> None:
    put(os.open("/dev/full", os.O_WRONLY))


def unread() -> None:
    """A pipe whose reader went away."""
    ours, theirs = os.pipe()
    os.close(ours)
    put(theirs)


def terminal_gone() -> None:
    """A terminal that goes away when the first line is in the diary."""
    os.environ["TERM"] = "xterm"
    ours, theirs = pty.openpty()
    put(theirs)
    assert sys.stderr.isatty()
    close_at_first_line(ours)


FAULTS: dict[str, Callable[[], None]] = {
    "closed before the start": Closed(known=True),
    "closed since": Closed(known=False),
    "full": full,
    "pipe": unread,
    "terminal": terminal_gone,
}


@pytest.mark.row("S3", 5)
def test_a_run_ends_well_whatever_becomes_of_its_words(row, job):
    it = job("noise", *PLAIN)
    arguments = [word for word in it.arguments if word != "--quiet"]
    for index in row:
        child = it.forks.start(arguments, it.fresh().folder, list(FAULTS.values())[index])
        assert child.wait() == 0, list(FAULTS)[index]
        it.ends_as_expected()


@pytest.mark.row("S3", 1)
def test_a_run_in_a_shell_that_closes_its_error_and_reads_one_line(row, job):
    it = job("noise", *PLAIN).fresh()
    command = f"(2>&- {sys.executable} -m segkd {' '.join(it.arguments)}; echo $? >code) | head -1"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    for _ in row:
        done = subprocess.run(["sh", "-c", command], cwd=it.folder, capture_output=True, env=environment, check=True)
        assert (it.folder / "code").read_text() == "0\n" and done.stdout.count(b"\n") == 1
        (it.folder / "code").unlink()
        it.ends_as_expected()
