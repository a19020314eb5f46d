"""What safety costs on the shipped quickstart."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "price.py"


@pytest.mark.faults
def test_guarding_takes_no_more_than_a_fiftieth_of_a_run(tmp_path):
    command = [sys.executable, str(TOOL), "quickstart", "--json", str(tmp_path / "price.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    found = json.loads((tmp_path / "price.json").read_text())
    assert 0 < found["guarding"] <= 0.02, done.stdout
    assert found["plain_save"] < found["safe_save"]
