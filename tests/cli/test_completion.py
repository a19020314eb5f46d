"""What a shell is told when somebody presses Tab: click's own protocol, in a process."""

import os
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
        ("segkd compress qui", ["plain,quickstart", "file,qui"]), ("segkd distill quickstart run.st", ["plain,run.steps="]),
        ("segkd comp", ["plain,compare", "plain,compress"]), ("segkd eval a --data cam", ["plain,camvid"]),
    ],
)  # fmt: skip
def test_names_keys_verbs_and_flags_are_completed(words: str, answers: list[str]) -> None:
    assert told(words) == answers


def test_the_script_for_the_shell() -> None:
    assert "complete -o nosort -F _segkd_completion segkd" in "\n".join(told("segkd", "bash_source"))
