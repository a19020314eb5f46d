"""What a shell is told when somebody presses Tab: click's own protocol, in a process."""

import os
import pty
import select
import shutil
import subprocess
import sys

import pytest

from tests.waiting import PATIENCE


def told(words: str, how: str = "bash_complete") -> list[str]:
    """What `segkd` answers where the last of the words is to be completed."""
    asked = {"_SEGKD_COMPLETE": how, "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    done = subprocess.run(
        [sys.executable, "-m", "segkd"], env=os.environ | asked, capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0 and not done.stderr, done
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("words", "answers"),
    [
        ("segkd compress qui", ["file,qui", "plain,quickstart"]), ("segkd distill quickstart run.st", ["plain,run.steps="]),
        ("segkd comp", ["plain,compare", "plain,compress"]), ("segkd eval a --data cam", ["plain,camvid"]),
    ],
)  # fmt: skip
def test_names_keys_verbs_and_flags_are_completed(words: str, answers: list[str]) -> None:
    assert told(words) == answers


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_completes_a_recipe_s_name_and_waits_for_a_key_s_value(tmp_path) -> None:
    command = tmp_path / "segkd"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m segkd "$@"\n')
    command.chmod(0o755)
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(tmp_path)
        os.environ.update(PATH=f"{tmp_path}:{os.environ['PATH']}", PS1="type: ", TERM="dumb")
        os.execvp("bash", ["bash", "--norc", "--noprofile", "-i"])
    try:
        os.write(terminal, b'eval "$(_SEGKD_COMPLETE=bash_source segkd)"; echo distill\n')
        read_until(terminal, "\ndistill\r\ntype: ")
        os.write(terminal, b"segkd distill qui\trun.st\t7 #end")
        assert "segkd distill quickstart run.steps=7 #end" in read_until(terminal, "#end").replace("\x07", "")
    finally:
        os.close(terminal)  # which ends the shell
        os.waitpid(child, 0)


def read_until(terminal: int, last: str) -> str:
    """What a terminal shows up to a word."""
    shown = ""
    while last not in shown:
        ready, _, _ = select.select([terminal], [], [], PATIENCE)
        assert ready, shown
        shown += os.read(terminal, 4096).decode()
    return shown
