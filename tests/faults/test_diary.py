"""Diaries after bits have flipped and values have changed their kind: the whole lines stay, and the others are named."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from segkd.training.log import RunLog, read_lines

LINES = 40


@pytest.fixture
def diary(tmp_path: Path) -> Path:
    """Of a run of forty steps."""
    path = tmp_path / "metrics.jsonl"
    written = RunLog(path, LINES, quiet=True)
    for step in range(1, LINES + 1):
        written.write(step, {"kd": 1 / step, "note": f"step {step}: \u00e9", "lr": 0.1})
    return path


@pytest.mark.row("C3", 300)
def test_one_flipped_bit(row, diary, capsys):
    whole, places = diary.read_bytes(), random.Random("diary")
    lines = whole.splitlines()
    for _ in row:
        place, bit = places.randrange(len(whole)), 1 << places.randrange(8)
        diary.write_bytes(whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :])
        resumed = RunLog(diary, LINES, resumed_at=LINES, quiet=True)
        kept = diary.read_bytes().splitlines()
        # Where the end of a line has flipped, two lines have become one.
        lost = [line for line in lines if line not in kept]
        assert len(lost) <= 1 + (whole[place : place + 1] == b"\n")
        assert resumed.seconds_before <= json.loads(lines[-1])["seconds"] + 10**9
        assert capsys.readouterr().err.count("\n") <= 1
        assert [line["step"] for line in read_lines(diary)] == [json.loads(line)["step"] for line in kept]


WRONG = [None, True, "3", [1], {"a": 1}, -1, 1.5, float("nan"), float("inf"), float("-inf"), 10**400]


@pytest.mark.row("C3", 20)
@pytest.mark.parametrize("key", ["step", "seconds"])
def test_values_of_another_kind(row, diary, capsys, key):
    whole = [json.loads(line) for line in diary.read_text().splitlines()]
    faults = [(value, at) for value in WRONG if (key, value) != ("seconds", 1.5) for at in (0, LINES // 2)]
    for index in row:
        value, at = faults[index]
        lines = [*whole[:at], {**whole[at], key: value}, *whole[at + 1 :]]
        diary.write_text("".join(json.dumps(line) + "\n" for line in lines))
        RunLog(diary, LINES, resumed_at=LINES, quiet=True)
        err = capsys.readouterr().err
        if value == 10**400 and key == "step":  # a number, if not of this run
            assert not err
        else:
            assert err == f"warning: {diary}: damaged line {at + 1}; left out\n"
        assert read_lines(diary) == whole[:at] + whole[at + 1 :]
