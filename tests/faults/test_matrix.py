"""The table says what was run, what passed and what was not run; and a row that falls short fails."""

from pathlib import Path

import pytest

from tests.faults.conftest import run
from tests.faults.matrix import HEAD, ROWS, Entry, merge

TESTS = """
import pytest

@pytest.mark.row("R1", 5)
def test_all(row):
    for fault in row:
        assert fault >= 0

@pytest.mark.row("R1", 3)
def test_in_bulk(row):
    row.count(3)

@pytest.mark.row("R2", 5)
def test_one_fails(row):
    for fault in row:
        assert fault < 3

@pytest.mark.row("R2", 2)
def test_one_in_bulk_fails(row):
    row.count()
    assert False

@pytest.mark.row("W1", 4)
def test_too_few(row):
    row.count(3)

@pytest.mark.row("L3")
def test_as_many_as_there_are(row):
    row.count(11)

@pytest.mark.row("W4", 2)
@pytest.mark.skipif(True, reason="no GPU")
def test_elsewhere(row):
    row.count(2)

@pytest.mark.faults
@pytest.mark.row("R1", 7)
def test_another_tier(row):
    row.count(7)
"""


def cells(file: Path) -> dict[str, dict[str, str]]:
    """The rows of a Markdown table by their names."""
    text = [line for line in file.read_text().splitlines() if line.startswith("|")]
    lines = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in text]
    return {line[0]: dict(zip(HEAD, line, strict=True)) for line in lines[2:]}


@pytest.mark.parametrize("processes", ["-n0", "-n2"])
def test_a_session_writes_what_it_did(copy: Path, processes: str) -> None:
    (copy / "tests" / "faults" / "test_rows.py").write_text(TESTS)
    file = copy / "faults.md"
    done = run(copy, processes, "--fault-table", str(file), "tests/faults/test_rows.py")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "2 failed, 4 passed, 1 skipped, " in done.stdout.splitlines()[-1]
    assert "8/8" in next(line for line in done.stdout.splitlines() if line.startswith("R1 "))
    rows = cells(file)
    assert list(rows) == list(ROWS)
    shown = {name: [rows[name][key] for key in ("tier", "N", "run", "passed")] for name in rows}
    assert shown["R1"] == ["T0/T1", "15", "8", "8"]  # the other tier has not been run yet
    assert shown["R2"] == ["T0", "7", "6", "4"]
    assert shown["W1"] == ["T0", "4", "3", "3"]
    assert shown["L3"] == ["T0", "11", "11", "11"]
    assert shown["W4"] == ["T0", "2", "not run: no GPU", ""]
    assert shown["P1"] == ["", "", "not run", ""]
    assert "core" in rows["R1"]["machine"] and not rows["W4"]["machine"]

    merge(file, {"tests/faults/test_rows.py::test_another_tier": Entry("R1", "T1", 7, 7, 7, 3.0, "elsewhere")})
    merged = cells(file)
    assert [merged["R1"][key] for key in ("N", "run", "passed")] == ["15", "15", "15"]
    assert merged["R1"]["machine"] == f"{rows['R1']['machine']}; elsewhere"
    assert {name: merged[name] for name in rows if name != "R1"} == {n: rows[n] for n in rows if n != "R1"}
