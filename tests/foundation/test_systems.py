"""Systems without POSIX's modules: what needs none of them works, and what does ends in one line."""

import subprocess
import sys

from tests.waiting import PATIENCE

WITHOUT = """
import sys
for name in ("fcntl", "resource", "termios", "pwd", "grp"):
    sys.modules[name] = None
import os
del os.O_NOFOLLOW, os.O_DIRECTORY
import signal
for name in ("SIGHUP", "SIGPIPE", "SIGKILL", "SIGUSR1"):
    vars(signal).pop(name, None)
"""


def run(code: str, *arguments: str) -> str:
    """What a Python as on Windows prints."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT + code, *arguments], capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_the_command_line_answers():
    said = run("from segkd.cli.main import main\nfor line in (['--help'], ['recipes', 'ls']): assert main(line) == 0")
    assert "distill" in said and "quickstart" in said


def test_a_run_that_cannot_lock_its_folder_says_so(tmp_path):
    code = """
from segkd.foundation import files
from segkd.machine import memory
from segkd.foundation.errors import StorageError
import segkd.training.signals
folder = sys.argv[1]
files.atomic_write(folder + "/x", "y")
memory.largest_mb()
try:
    files.RunLock(folder).__enter__()
except StorageError as error:
    print(error)
"""
    assert (
        run(code, str(tmp_path))
        .strip()
        .endswith("has no file locks, which runs need: use Linux, macOS, or WSL on Windows")
    )
    assert (tmp_path / "x").read_text() == "y"
