"""The time to a given quality: looks when they are due, an end when it is reached, or when it is not."""

import json
import runpy
import shutil
from pathlib import Path

import cv2
import pytest

from segkd.benchmark import quality
from segkd.cli.main import main
from segkd.foundation.errors import TeacherError, UsageError

TOOL = Path(__file__).parents[2] / "tools" / "time_to_quality.py"


@pytest.fixture
def clock(monkeypatch):
    """`reach` with steps of 10 seconds and a student that is as good as its steps are many, in hundredths."""
    now, played = [0.0], []
    monkeypatch.setattr(quality.time, "perf_counter", lambda: now[0])

    def play(step):
        played.append(step)
        now[0] += 10

    def measure():
        now[0] += 1000  # a look takes time, which does not count
        return len(played) / 100

    def run(target, **options):
        return quality.reach(play, measure, target, say=lambda line: None, **options)

    return run


def looks(found):
    return [(look["seconds"], look["steps"], look["miou"]) for look in found["looks"]]


def test_looks_come_when_due_and_end_with_what_is_reached(clock):
    found = clock(0.06, every=25, limit=1000)
    assert looks(found) == [(30, 3, 0.03), (50, 5, 0.05), (80, 8, 0.08)] and found["seconds"] == 80


@pytest.mark.parametrize(("options", "last"), [({"limit": 60}, 60), ({"limit": 1000, "steps": 6}, 60)])
def test_what_is_not_reached_is_given_up_after_a_last_look(clock, options, last):
    found = clock(0.5, every=25, **options)
    assert found["seconds"] is None and looks(found)[-1] == (last, 6, 0.06)


@pytest.mark.parametrize("who", ["segkd", "reference"])
def test_both_loops_are_timed_from_the_command_line(tiny, tmp_path, capsys, own_threads, who):
    recipe, file = tmp_path / "small.yaml", tmp_path / "quality.json"
    shutil.copytree(tiny.folder / "camvid", tmp_path / "camvid")
    for picture in tmp_path.glob("camvid/val*/*.png"):  # of no network's stride
        cv2.imwrite(str(picture), cv2.imread(str(picture), cv2.IMREAD_UNCHANGED)[:31, :53])
    data = [
        "data.name=camvid",
        f"data.root={tmp_path}/camvid",
        "data.watch=val",
        "run.precision=fp32",
        "run.threads=1",
    ]
    recipe.write_text(tiny.recipe("ddad.segkd", *data).to_yaml())
    given = [
        "--pair",
        str(recipe),
        "--who",
        who,
        "--share",
        "1",
        "--every",
        "0.0001",
        "--limit",
        "0.02",
        "--json",
        str(file),
    ]
    assert main(given, runpy.run_path(str(TOOL))["quality"]) == 0
    found = json.loads(file.read_text())
    assert found["who"] == who and found["precision"] == "fp32" and found["looks"] and 0 < found["teacher_miou"] <= 1
    assert [look["steps"] for look in found["looks"]] == sorted({look["steps"] for look in found["looks"]})
    assert "of the teacher's mIoU: " in capsys.readouterr().out.splitlines()[-1]


def test_what_cannot_be_timed_is_told(tiny, tmp_path):
    options = {"share": 0.5, "every": 1, "limit": 1}
    with pytest.raises(UsageError, match=r"data\.watch: null"):
        quality.time_to_quality(tiny.recipe("ddad.segkd"), "segkd", **options)
    data = ["data.name=camvid", f"data.root={tiny.folder}/camvid", "data.watch=val"]
    with pytest.raises(TeacherError, match="a random teacher has no quality"):
        quality.time_to_quality(
            tiny.recipe("ddad.segkd", *data, f"teacher.weights={tmp_path}/none.pt"), "segkd", **options
        )
    with pytest.raises(UsageError, match=r"run\.budget: name run\.steps"):
        quality.time_to_quality(tiny.recipe("ddad.segkd", *data, "run.budget=1m"), "segkd", **options)
