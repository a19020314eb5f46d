"""The diary: what a resume keeps, what a kill leaves, and lines that any JSON reader takes."""

import json
import math
from pathlib import Path

import pytest

from segkd.training import log
from segkd.training.log import RunLog, memory_mb, read_lines


def written(path: Path, *steps: int) -> RunLog:
    diary = RunLog(path, 100, quiet=True)
    for step in steps:
        diary.write(step, {"loss": step / 3, "lr": 0.1})
    return diary


def test_one_line_of_json_a_step(tmp_path):
    path = tmp_path / "metrics.jsonl"
    diary = written(path, 10, 20)
    diary.write(20, {"val_miou": 0.123456789, "val_best": True, "notes": ["a"], "absent": None})
    lines = [json.loads(text) for text in path.read_text().splitlines()]
    assert [line["step"] for line in lines] == [10, 20, 20]
    assert lines[0]["loss"] == 3.33333
    assert lines[2] | {"seconds": 0} == {
        "step": 20, "seconds": 0, "val_miou": 0.123457, "val_best": True, "notes": ["a"], "absent": None,
    }  # fmt: skip


def test_what_is_not_finite_is_null_and_no_invalid_json(tmp_path):
    path = tmp_path / "metrics.jsonl"
    written(path).write(1, {"loss": math.nan, "worst": math.inf})

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    line = json.loads(path.read_text(), parse_constant=refuse)
    assert (line["loss"], line["worst"]) == (None, None)


def test_a_resume_drops_the_lines_after_its_step(tmp_path):
    path = tmp_path / "metrics.jsonl"
    written(path, 10, 20, 30, 40)
    diary = RunLog(path, 100, resumed_at=20, quiet=True)
    assert [line["step"] for line in read_lines(path)] == [10, 20]
    diary.write(30, {"loss": 7.0})
    assert [(line["step"], line["loss"]) for line in read_lines(path)][2:] == [(30, 7.0)]


def test_a_new_run_starts_a_new_diary(tmp_path):
    path = tmp_path / "metrics.jsonl"
    written(path, 10, 20)
    RunLog(path, 100, quiet=True)
    assert path.read_text() == ""


def test_a_last_line_cut_by_a_kill_does_no_harm(tmp_path):
    path = tmp_path / "metrics.jsonl"
    written(path, 10, 20)
    whole = path.read_text()
    path.write_text(whole + '{"step": 30, "seco')
    assert [line["step"] for line in read_lines(path)] == [10, 20]
    RunLog(path, 100, resumed_at=30, quiet=True).write(40, {"loss": 1.0})
    assert path.read_text().startswith(whole)
    assert [line["step"] for line in read_lines(path)] == [10, 20, 40]


SPOILT = [
    b"\0" * 300 + b"\n", b"\xff\xfe\n", b"7\n", b"\n", b'{"loss": 1}\n', b'{"step": "30", "seconds": 1}\n',
    b'{"step": 30, "seconds": null}\n', b'{"step": 30, "seconds": true}\n', b'{"step": 30.5, "seconds": 1}\n',
    b'{"step": 30, "seconds": Infinity}\n', b'{"step": 30, "seconds": NaN}\n', b'{"step": 30, "seconds": -1}\n',
    b'{"step": 30, "seconds": 1e999}\n', b'{"step": ' + b"9" * 5000 + b', "seconds": 1}\n', b"[" * 100_000 + b"\n",
]  # fmt: skip


@pytest.mark.parametrize("spoilt", SPOILT)
@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_damaged_line_is_left_out_and_named_and_the_others_stay(tmp_path, capsys, spoilt, at):
    path = tmp_path / "metrics.jsonl"
    written(path, 10, 20)
    whole = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*whole[:at], spoilt, *whole[at:]]))
    assert [line["step"] for line in read_lines(path)] == [10, 20]
    RunLog(path, 100, resumed_at=20, quiet=True)
    assert capsys.readouterr().err == f"warning: {path}: damaged line {at + 1}; left out\n"
    assert path.read_bytes().splitlines(keepends=True) == whole
    RunLog(path, 100, resumed_at=20, quiet=True)
    assert not capsys.readouterr().err


def test_a_flipped_bit_in_the_first_line_costs_that_line_alone(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 10, "seconds": 5.0}\n{"step": 20, "seconds": 9.0}\n')
    data = path.read_bytes()
    for bit in range(8 * data.index(b"\n")):
        path.write_bytes(bytes(byte ^ (1 << bit % 8 if index == bit // 8 else 0) for index, byte in enumerate(data)))
        diary = RunLog(path, 100, resumed_at=20, quiet=True)
        assert diary.seconds_before == 9.0 and read_lines(path)[-1] == {"step": 20, "seconds": 9.0}


def test_many_damaged_lines_are_told_in_one(tmp_path, capsys):
    path = tmp_path / "metrics.jsonl"
    path.write_text("x\n" * 12)
    RunLog(path, 100, quiet=True)
    assert capsys.readouterr().err == f"warning: {path}: damaged lines 1, 2, 3, 4, 5 and 7 more; left out\n"


def test_a_file_of_which_nothing_is_left_is_told(tmp_path, capsys):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(bytes(300))
    RunLog(path, 100, quiet=True)
    assert capsys.readouterr().err == f"warning: {path}: damaged line 1; left out\n"


def test_no_file_is_no_lines(tmp_path):
    assert read_lines(tmp_path / "nothing") == []


def test_the_seconds_of_the_parts_add_up(tmp_path, monkeypatch):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 10, "seconds": 5.0}\n{"step": 20, "seconds": 9.0}\n')
    now = [100.0]
    monkeypatch.setattr(log.time, "perf_counter", lambda: now[0])
    diary = RunLog(path, 100, resumed_at=10, quiet=True)
    now[0] += 3
    assert diary.seconds == 8


def test_off_a_terminal_progress_is_a_plain_line_now_and_then_and_at_the_end(tmp_path, capsys):
    diary = RunLog(tmp_path / "metrics.jsonl", 50)
    for step in range(1, 51):
        diary.progress(step, {"kd": 1.5})
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("step 1/50  ")
    assert lines[-1].startswith("step 50/50  ")
    assert "ETA" in lines[-1]
    assert "it/s" in lines[-1]
    assert "kd 1.500" in lines[-1]
    assert len(lines) <= 3
    assert "\x1b" not in "".join(lines)


def test_quiet_says_warnings_only(tmp_path, capsys):
    diary = RunLog(tmp_path / "metrics.jsonl", 2, quiet=True)
    diary.progress(2, {"kd": 1.0})
    diary.say("chatter")
    diary.say("warning: x", always=True)
    assert capsys.readouterr().err == "warning: x\n"


def test_memory_is_that_of_this_process():
    assert 20 < memory_mb() < 200_000


def events(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder))
    found.Reload()
    return {tag: [(each.step, each.value) for each in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def test_tensorboard_shows_the_same_numbers_and_none_that_are_played_again(tmp_path):
    def diary(resumed_at: int = 0) -> RunLog:
        return RunLog(tmp_path / "metrics.jsonl", 100, resumed_at, quiet=True, board=tmp_path / "tensorboard")

    first = diary()
    for step in (10, 20, 30):
        first.write(step, {"kd": float(step), "bn_shown": [1.0], "note": "a", "val_best": True, "lost": math.nan})
    resumed = diary(resumed_at=20)
    resumed.write(30, {"kd": 31.0})
    resumed.rewind(20, "it went wrong")
    resumed.write(30, {"kd": 32.0})
    assert events(tmp_path / "tensorboard") == {"kd": [(10, 10.0), (20, 20.0), (30, 32.0)]}


def test_another_process_writes_no_events(tmp_path):
    RunLog(tmp_path / "metrics.jsonl", 100, mute=True, board=tmp_path / "tensorboard").write(1, {"kd": 1.0})
    assert not (tmp_path / "tensorboard").exists()
