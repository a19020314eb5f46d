"""A finished run that is called again: as it is, to go on, or to be measured on something else; nothing is passed over."""

import re
import shutil

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from segkd import runs
from segkd.foundation.errors import DataError, UsageError
from segkd.recipe import load
from segkd.training import checkpoint
from segkd.training.distiller import Distiller
from tests.conftest import write_camvid
from tests.faults.harness import TEACH

pytestmark = pytest.mark.usefixtures("own_threads")


@pytest.fixture
def distil(tiny, tmp_path):
    """Distils two steps into tmp_path/run."""

    def run(*overrides, accept=(), resume="auto", case="noise"):
        given = [
            "run.threads=1",
            "run.steps=2",
            "run.save_every=1",
            "game.student_moves=1",
            f"run.dir={tmp_path / 'run'}",
        ]
        options = runs.Options("tiny", resume, accept, quiet=True)
        return runs.distill(tiny.recipe(case, *given, *overrides), options)

    return run


def student(folder):
    return (folder / "student" / "model.safetensors").read_bytes()


def refused(said):
    assert "\n" not in str(said.value) and len(str(said.value)) < 500
    return str(said.value)


STEADY = ["student.schedule.name=constant", "student.ema=0"]


def test_more_steps_train_it_on_to_what_they_would_have_made_at_once(distil, tmp_path, capsys):
    distil(*STEADY)
    before = student(tmp_path / "run")
    with pytest.raises(UsageError, match="finished after 2 steps; to train it on .*--accept run.steps") as said:
        distil(*STEADY, "run.steps=4")
    assert refused(said) and student(tmp_path / "run") == before
    summary = distil(*STEADY, "run.steps=4", accept=("run.steps",))
    told = capsys.readouterr().err
    assert summary["steps"] == 4 and "run: finished after 2 steps, and trained on\n" in told
    assert re.search(r"4 steps instead of 2: .* stood at 100% of its way after 2 steps, and goes on from 50%", told)
    assert distil(*STEADY, "run.steps=4") == summary
    distil(*STEADY, "run.steps=4", f"run.dir={tmp_path / 'whole'}")
    assert student(tmp_path / "run") == student(tmp_path / "whole") != before


def test_a_longer_budget_trains_it_on(distil, tmp_path, monkeypatch):
    monkeypatch.setattr("segkd.runs.run.steps_for", lambda seconds, play: int(seconds))
    given = ["run.steps=null", "run.budget=2s"]
    assert distil(*given)["steps"] == 2 == distil(*given)["steps"]
    given[1] = "run.budget=3s"
    with pytest.raises(UsageError, match=r"--accept run\.budget") as said:
        distil(*given)
    assert refused(said)
    assert distil(*given, accept=("run.budget",))["steps"] == 3
    with pytest.raises(UsageError, match="has done 3 steps, more than run.steps 1"):
        distil("run.steps=null", "run.budget=1s", accept=("run.budget",))
    assert distil("run.steps=4", "run.budget=null", accept=("run.steps",))["steps"] == 4


def test_an_accepted_key_that_is_the_same_is_told(distil, tmp_path, capsys):
    summary = distil()
    assert distil(accept=("run.steps",)) == summary
    assert capsys.readouterr().err == f"{tmp_path / 'run'}: finished, with the same run.steps: nothing is left to do\n"


def test_never_wants_a_new_folder_and_a_checkpoint_is_played_from(distil, tmp_path, capsys):
    distil()
    before = student(tmp_path / "run")
    with pytest.raises(UsageError, match="holds a finished run; name another run.dir") as said:
        distil(resume="never")
    assert refused(said)
    first = checkpoint.listed(tmp_path / "run" / "checkpoints")[-1]
    played = distil(resume=str(first))
    assert f"finished, and played again from {first}" in capsys.readouterr().err
    assert student(tmp_path / "run") == before and played["steps"] == 2


def test_the_other_weights_may_be_the_result(distil, tmp_path, capsys):
    distil()
    distil("run.headline=last", accept=("run.headline",))
    assert "finished, and made again with another run.headline" in capsys.readouterr().err
    live = checkpoint.newest(tmp_path / "run" / "checkpoints")[0]["game"]["student"]["network"]
    saved = load_file(tmp_path / "run" / "student" / "model.safetensors")
    assert all(torch.equal(value, live[f"network.{key}"]) for key, value in saved.items())


def test_with_the_last_weights_as_the_result_it_is_they_that_agree(distil, tmp_path, monkeypatch):
    play, games = Distiller.play, []
    monkeypatch.setattr(Distiller, "play", lambda game, step: games.append(game) or play(game, step))
    told = {}
    for name in ("ema", "last"):
        told[name] = distil(f"run.headline={name}", f"run.dir={tmp_path / name}", "student.ema=0.5")["agreement"]
        assert told[name] == games[-1].monitor.agreement(games[-1].monitor.measured(name))
    assert told["ema"] != told["last"]


@pytest.fixture
def roots(tmp_path):
    """Two folders with other images in the same layout."""
    for name in ("one", "two"):
        write_camvid(tmp_path / name / "camvid")
    for path in (tmp_path / "two" / "camvid" / "testannot").glob("*.png"):
        cv2.imwrite(str(path), np.full((32, 64), 3, np.uint8))
    return tmp_path


@pytest.mark.parametrize("by_name", [True, False])
def test_another_root_is_measured_whatever_names_it(distil, roots, monkeypatch, capsys, by_name):
    def measured(name):
        monkeypatch.setenv("SEGKD_DATA", str(roots / name))
        root = roots / name / "camvid" if by_name else "${SEGKD_DATA}/camvid"
        return distil("data.name=camvid", f"data.root={root}")

    one, before = measured("one"), student(roots / "run")
    capsys.readouterr()  # what is said once a process of its recipe
    assert measured("one") == one and not capsys.readouterr().err
    two = measured("two")
    assert "run: finished, and measured again with another data.root\n" in capsys.readouterr().err
    assert two["per_class"] != one["per_class"] and student(roots / "run") == before
    monkeypatch.delenv("SEGKD_DATA")
    if not by_name:
        assert distil("data.name=camvid", "data.root=${SEGKD_DATA}/camvid") == two  # no other one is named
    shutil.rmtree(roots / "one")
    with pytest.raises(DataError, match="one"):
        measured("one")
    assert measured("two") == two
    shutil.rmtree(roots / "run" / "checkpoints")
    write_camvid(roots / "one" / "camvid")
    with pytest.raises(UsageError, match="its checkpoints are gone: .* segkd eval") as said:
        measured("one")
    assert refused(said) and measured("two") == two


def test_a_taught_network_is_measured_on_another_root_too(tiny, roots, own_threads):
    (roots / "teach.yaml").write_text(TEACH.replace("ROOT", '"${SEGKD_DATA}/camvid"'))

    def taught(name):
        given = [
            "run.steps=1",
            "run.threads=1",
            f"run.dir={roots / 'run'}",
            "output=null",
            f"data.root={roots / name / 'camvid'}",
        ]
        return runs.teach(load(roots / "teach.yaml", given, "teach"), runs.Options("t", quiet=True))

    one = taught("one")
    assert taught("one") == one and taught("two")["per_class"] != one["per_class"]


@pytest.fixture
def teacher(tiny, tmp_path):
    path = tmp_path / "teacher.safetensors"
    shutil.copy(tiny.folder / "teacher.safetensors", path)
    return path


def replaced(path):
    state = load_file(path)
    state["segmentation_head.0.bias"] += 1
    save_file(state, path)


def test_another_file_in_the_teachers_place_is_noticed(distil, tmp_path, teacher):
    given = [f"teacher.weights={teacher}"]
    summary = distil(*given)
    replaced(teacher)
    with pytest.raises(UsageError, match=r"a finished run of another recipe \(teacher.weights\)"):
        distil(*given)
    for path in (tmp_path / "run" / "summary.json", checkpoint.listed(tmp_path / "run" / "checkpoints")[0]):
        path.unlink()
    with pytest.raises(
        UsageError, match="teacher.weights: another file than the run has begun with .*--accept"
    ) as said:
        distil(*given)
    assert refused(said)
    assert distil(*given, accept=("teacher.weights",))["steps"] == summary["steps"]


def test_the_same_file_may_lie_elsewhere_or_be_gone(distil, tmp_path, teacher):
    summary = distil(f"teacher.weights={teacher}")
    moved = teacher.rename(tmp_path / "moved.safetensors")
    assert distil(f"teacher.weights={moved}") == summary == distil(f"teacher.weights={teacher}")
    for path in (tmp_path / "run" / "summary.json", checkpoint.listed(tmp_path / "run" / "checkpoints")[0]):
        path.unlink()
    assert distil(f"teacher.weights={moved}")["agreement"] == summary["agreement"]


def test_a_run_of_a_version_with_fewer_keys_goes_on(distil, tmp_path, tiny):
    distil()
    folder = tmp_path / "run" / "checkpoints"
    newest = checkpoint.listed(folder)[0]
    (tmp_path / "run" / "summary.json").unlink()
    newest.unlink()
    state = checkpoint.load(checkpoint.listed(folder)[0])
    del state["recipe"]["run"]["checkpointing"], state["recipe"]["synth"]["refine"]
    checkpoint.save(folder, 1, state, 2)
    assert distil()["steps"] == 2
