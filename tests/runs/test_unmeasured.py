"""Labelled images only measure: where nobody has said where they are, all else is done, and how to measure is said."""

import json
import os
import shutil

import pytest

from segkd import runs
from segkd.cli.main import main
from segkd.foundation.errors import DataError, UsageError
from segkd.recipe import load, shipped
from tests.faults.harness import TEACH

pytestmark = pytest.mark.usefixtures("own_threads")
DATA = ["data.name=camvid", "data.root=${SEGKD_DATA}/camvid", "data.watch=val"]
SHORT = ["run.threads=1", "run.steps=1", "run.eval_every=1", "game.student_moves=1"]
TOLD = [
    "not measured: mIoU on camvid: its folder is ${SEGKD_DATA}/camvid, and SEGKD_DATA is not set; all else is done. Measure it with",
    "  segkd data prepare camvid --root data/camvid",
    "  segkd eval RUN --data camvid --root data/camvid --split test",
]  # fmt: skip

LAST = (
    "  not measured: mIoU, since SEGKD_DATA is not set; this measures it: segkd data prepare camvid --root DIR && segkd eval run"
    " --data camvid --root DIR\n"
)


@pytest.fixture
def distil(tiny, tmp_path, monkeypatch):
    """`segkd distill` of a recipe whose labelled images lie in SEGKD_DATA, by its command; nothing says where that is."""
    monkeypatch.delenv("SEGKD_DATA", raising=False)
    monkeypatch.chdir(tmp_path)

    def run(*overrides, case="noise"):
        (tmp_path / "own.yaml").write_text(tiny.recipe(case, *DATA, *SHORT, "run.dir=run", *overrides).to_yaml())
        return main(["distill", "own.yaml"])

    return run


def test_a_run_without_them_says_first_and_last_what_would_measure(distil, tmp_path, capsys):
    assert distil() == 0
    out, err = capsys.readouterr()
    lines = [line.replace("RUN", "run") for line in TOLD]
    assert [line for line in err.splitlines() if line in lines] == lines and LAST in out
    assert err.index(lines[0]) < err.index("step 1")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert [summary[key] for key in ("student_miou", "teacher_miou", "recovery", "per_class")] == [None] * 4
    assert summary["agreement"] is not None and summary["real_images_for_evaluation"] == 0
    assert distil() == 0
    assert LAST in capsys.readouterr().out


def test_once_they_are_there_the_same_command_measures(distil, tiny, tmp_path, monkeypatch, capsys):
    assert distil() == 0
    student = (tmp_path / "run" / "student" / "model.safetensors").read_bytes()
    monkeypatch.setenv("SEGKD_DATA", str(tiny.folder))
    capsys.readouterr()
    assert distil() == 0
    out, err = capsys.readouterr()
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert "measured again with another data.root" in err and "not measured" not in out + err
    assert summary["student_miou"] is not None and summary["real_images_for_evaluation"] == 4
    assert (tmp_path / "run" / "student" / "model.safetensors").read_bytes() == student


@pytest.mark.parametrize("named", ["SEGKD_DATA", "data.root"])
def test_a_folder_that_is_named_and_missing_is_an_error(distil, monkeypatch, capsys, named):
    overrides = []
    if named == "SEGKD_DATA":
        monkeypatch.setenv("SEGKD_DATA", "nowhere")
    else:
        overrides = ["data.root=nowhere/camvid"]
    assert distil(*overrides) == 3
    _, told = capsys.readouterr().err.splitlines()  # the first says what comes
    assert "nowhere" in told and not os.path.lexists("run/recipe.yaml")


def test_images_that_train_are_an_error(distil, tiny, tmp_path, monkeypatch):
    assert distil(case="kd") == 2
    (tmp_path / "teach.yaml").write_text(TEACH.replace("ROOT", '"${SEGKD_DATA}/camvid"'))
    with pytest.raises((UsageError, DataError), match="SEGKD_DATA"):
        runs.teach(load("teach.yaml", ["run.steps=1"], "teach"))


@pytest.mark.parametrize(
    ("overrides", "lines"),
    [
        (["data.name=null"], 0),
        (["data.watch=null", "data.final=null"], 0),
        (["data.name=scenes"], 0),
        (["data.root=data/camvid"], 0),
        (["data.name=folder"], 2),
        (["data.final=null"], 3),
    ],
)
def test_only_what_would_have_been_measured_is_told(tiny, monkeypatch, overrides, lines):
    monkeypatch.delenv("SEGKD_DATA", raising=False)
    told = runs.unmeasured(tiny.recipe("noise", *DATA, *overrides))
    assert len(told) == lines and all("\n" not in line for line in told)
    monkeypatch.setenv("SEGKD_DATA", "x")
    assert not runs.unmeasured(tiny.recipe("noise", *DATA, *overrides))


def test_no_shipped_recipe_needs_them_to_be_shown_checked_or_planned(monkeypatch, capsys, tiny, tmp_path):
    monkeypatch.delenv("SEGKD_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    assert main(["recipes", "validate"]) == 0
    measured = [
        name for name in shipped() if not name.startswith("teachers/") and load(name).data.name in ("camvid", "nyuv2")
    ]
    assert len(measured) >= 4
    for name in measured:
        assert main(["recipes", "show", name]) == 0 and len(runs.unmeasured(load(name))) == 3
    (tmp_path / "own.yaml").write_text(tiny.recipe("noise", *DATA, *SHORT, "run.dir=run").to_yaml())
    assert main(["distill", "own.yaml", "--plan"]) == 0


def test_the_main_command_needs_no_data(monkeypatch, capsys, tmp_path):
    """As it is shipped, but little of everything."""
    monkeypatch.delenv("SEGKD_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    little = ["synth.size=[32, 48]", "synth.refine=0", "synth.replay=2", "run.batch=2", *SHORT]
    assert main(["distill", "nyuv2_deeplab", *little, "run.dir=run"]) == 0
    out, err = capsys.readouterr()
    assert "segkd data prepare nyuv2 --root DIR && segkd eval run --data nyuv2 --root DIR\n" in out
    assert "  segkd eval run --data nyuv2 --root data/nyuv2_256 --split test\n" in err
    shutil.rmtree(tmp_path / "run")
