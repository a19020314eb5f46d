"""Comparisons as they are run: with real processes, of which some fail, and some belong to others."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from segkd.cli.main import main
from segkd.foundation.files import RunLock
from segkd.recipe.comparison import Asked, cells
from segkd.runs import compare
from segkd.runs.folder import MARK
from tests.waiting import PATIENCE, until

TINY = [
    "run.batch=2", "run.device=cpu", "run.precision=fp32", "run.threads=1", "game.student_moves=1", "game.overlap=false",
    "synth.size=[64, 64]", "synth.replay=2", "synth.refine=0",
]  # fmt: skip
BLIND = [*TINY, "data.name=null"]
FLAGS = compare.Flags(quiet=True)


def played(tmp_path, *methods, steps=1):
    """The results of a comparison without labelled images, and how often these were told."""
    told = []
    found, _ = cells(["quickstart"], Asked(methods, steps=steps, values=tuple(BLIND)), tmp_path)
    return compare.play(found, FLAGS, lambda known: told.append(len(known))), told


def test_what_others_run_is_left_to_them_and_what_is_done_is_kept(tmp_path, monkeypatch):
    begun = []
    run = compare.run_cell
    monkeypatch.setattr(compare, "run_cell", lambda cell, *rest: begun.append(cell.row) or run(cell, *rest))
    (tmp_path / "quickstart/noise-s0").mkdir(parents=True)
    with RunLock(tmp_path / "quickstart/noise-s0", mark=MARK):
        (own, noise, pictures), told = played(tmp_path, "dfad")
    assert begun == ["dfad", "kd (procedural pictures)"] and told == [3, 3, 3, 3]
    assert own.summary["method"] == "dfad" and own.summary["variant"] is None and pictures.summary["steps"] == 1
    assert noise.summary is None and noise.why == "another process runs it" and not noise.exit_code
    assert [look["step"] for look in own.looks] == [1]
    again, _ = played(tmp_path, "dfad")
    assert begun[2:] == ["noise"] and all(result.summary for result in again) and again[0].summary == own.summary
    with pytest.raises(
        compare.UsageError, match=r"1 steps; asked for with another run.steps; name another folder: --out DIR$"
    ):
        compare.results(cells(["quickstart"], Asked(("dfad",), steps=2, values=tuple(BLIND)), tmp_path)[0], FLAGS)
    with pytest.raises(compare.UsageError, match=r"another recipe .run.batch.; name another folder: --out DIR"):
        compare.results(
            [
                each
                for each in cells(["quickstart"], Asked(("dfad",), steps=1, values=(*BLIND, "run.batch=3")), tmp_path)[
                    0
                ]
            ],
            FLAGS,
        )


def test_each_table_tells_what_others_have_finished_meanwhile(tmp_path, monkeypatch):
    found, _ = cells(["quickstart"], Asked(("dfad",), steps=1, values=tuple(BLIND)), tmp_path)
    run, told = compare.run_cell, []

    def beside(cell, *rest):
        code = run(cell, *rest)
        if cell.row == "dfad":
            run(found[-1], *rest)  # as another process would, which began at the end
        return code

    monkeypatch.setattr(compare, "run_cell", beside)
    compare.play(found, FLAGS, lambda known: told.append([result.why for result in known]))
    assert told == [["", "not run yet", ""], ["", "", ""], ["", "", ""]]


def test_a_run_that_fails_leaves_its_reason_and_the_others_go_on(tmp_path, monkeypatch):
    ended = iter([3, -9, 0])
    monkeypatch.setattr(compare, "run_cell", lambda *given: next(ended))
    results, _ = played(tmp_path, "dfad")
    assert [(result.why, result.exit_code) for result in results[:2]] == [
        ("failed: exit code 3", 3), ("failed: ended by signal 9", 137),
    ]  # fmt: skip


def test_torchrun_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(compare.UsageError, match="without torchrun"):
        played(tmp_path, "dfad")


def test_a_missing_set_leaves_out_what_trains_on_it(tmp_path):
    values = (*TINY, "data.name=camvid", f"data.root={tmp_path / 'none'}", "teacher.classes=camvid")
    found, _ = cells(["quickstart"], Asked(("dfad",), steps=1, values=values), tmp_path)
    kept, lines = compare.with_labelled_images(found)
    assert [cell.row for cell in kept] == ["dfad", "noise", "kd (procedural pictures)"]
    assert len(lines) == 2 and all("left out: " in line for line in lines)


def test_flags_that_go_together(tmp_path, capsys):
    assert main(["compare", "quickstart", "--steps", "1", "--budget", "5m"]) == 2
    assert main(["compare", "run.steps=3"]) == 2
    assert main(["compare", "quickstart", "--out", f"{__file__}/below"]) == 5
    told = capsys.readouterr().err.splitlines()
    assert (
        len(told) == 3 and "give one of them" in told[0] and "names no recipe" in told[1] and "is no folder" in told[2]
    )


@pytest.mark.slow
def test_a_signal_ends_the_run_that_it_meets_and_the_same_command_goes_on(tmp_path):
    command = [
        sys.executable,
        "-m",
        "segkd",
        "compare",
        "quickstart",
        "--methods",
        "dfad",
        "--steps",
        "40",
        "--out",
        str(tmp_path),
        *BLIND,
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as run:
        log = tmp_path / "quickstart/dfad-s0/metrics.jsonl"
        until(lambda: log.exists() and log.read_text(), lambda: run.poll() is None)
        run.send_signal(signal.SIGTERM)
        told = run.communicate(timeout=4 * PATIENCE)[1]
    assert run.returncode == 143 and told.splitlines()[-1].endswith("the same command goes on")
    assert not (tmp_path / "quickstart/noise-s0").exists()
    done = subprocess.run(command, capture_output=True, text=True, timeout=4 * PATIENCE)
    assert done.returncode == 0 and "goes on after step" in done.stderr and "| dfad | none | 40 |" in done.stdout


@pytest.mark.slow
def test_a_method_with_a_source_of_its_own_is_compared_without_touching_another_file(tmp_path):
    file = tmp_path / "restarted.py"
    page = (Path(__file__).parents[2] / "docs/own_method.md").read_text("utf-8")
    file.write_text(
        next(block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "class Restarted" in block)
    )
    out = ["--steps", "2", "--out", str(tmp_path / "out"), "run.eval_every=1", "synth.kind=dcgan", "synth.width=8"]
    command = ["compare", "quickstart", "--methods", "restarted", "--method-file", str(file), *out]
    done = subprocess.run(
        [sys.executable, "-m", "segkd", *command, *TINY], capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr
    assert "| restarted | none | 2 |" in done.stdout and "| labels |" in done.stdout
    assert (tmp_path / "out/leaderboard.html").is_file() and (tmp_path / "out/curves.svg").is_file()
