"""The scripts of tools/ do their verbs' jobs from any folder, without segkd installed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / "tools"


def script(name: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, str(TOOLS / name), *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("eval_miou.py", {"--data", "--json", "--who", "--slide", "--scales", "--flip", "--confusion"}),
        ("visualize_masks.py", {"--out", "--teacher", "--kind"}),
        ("price.py", {"--json"}),
        ("benchmark.py", {"--pair", "--turns", "--json"}),
        ("time_to_quality.py", {"--pair", "--who", "--share", "--every", "--limit", "--json"}),
    ],
)
def test_help_from_another_folder(tmp_path: Path, name: str, flags: set[str]) -> None:
    done = script(name, tmp_path, "--help")
    assert done.returncode == 0 and done.stdout.startswith(f"Usage: {name} ")
    assert all(flag in done.stdout for flag in flags)


def test_errors_are_those_of_the_command_line(tmp_path: Path) -> None:
    assert script("eval_miou.py", tmp_path, "--nonsense").returncode == 2
    done = script("eval_miou.py", tmp_path, "nowhere", "--data", "scenes")
    assert done.returncode == 2 and done.stderr.startswith("segkd: nowhere: no such student folder")
    assert len(done.stderr.splitlines()) == 1
