"""A run takes a folder that is new, empty or its own; whatever else lies in one stays as it is."""

import json
import math
import shutil
from pathlib import Path

import pytest
from safetensors.torch import save_file

from segkd import runs
from segkd.foundation.errors import NumbersError, StorageError
from segkd.recipe import load
from segkd.runs.folder import MARK, RECIPE_HASH, check_folder
from segkd.runs.teach import check_made_by
from segkd.training.teaching import Objective
from tests.faults.harness import TEACH

CHECKPOINT = f"step-00000003-{'0' * 64}.ckpt"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


OURS = {
    "new": {},
    "empty": {"": None},
    "empty to its owner": {".gitkeep": "", ".DS_Store": "\0"},
    "killed when it had made a folder": {"checkpoints": None},
    "killed when it had made a lock": {"checkpoints": None, ".lock": ""},
    "killed by an older version": {"checkpoints": None, ".lock": "4711\n"},
    "killed in its first save": {"checkpoints/.tmp-step-00000000-.ckpt-4711": "x", ".lock": "4711\n"},
    "killed before its recipe": {".lock": f"4711 {MARK}\n", "metrics.jsonl": "", ".tmp-recipe.yaml-4711": "x"},
    "without its recipe": {f"checkpoints/{CHECKPOINT}": "x", "metrics.jsonl": ""},
    "of an older version": {"recipe.yaml": f"# segkd: 0.1\n{RECIPE_HASH}{'0' * 64}\n", ".lock": "7\n", "student/a": ""},
    "without its lock": {"recipe.yaml": f"{RECIPE_HASH}\n", "checkpoints": None, "summary.json": "{}"},
    "with notes": {".lock": f"4711 {MARK}\n", "notes.txt": "x"},
}
OTHERS = {
    "a project": {"recipe.yaml": "method: ddad\n", "student/model.py": "x", "metrics.jsonl": "{}\n"},
    "one file": {"notes.txt": "x"},
    "a hidden file": {".env": "x"},
    "unfinished downloads": {".tmp-mine": "x"},
    "a summary": {"summary.json": "{}"},
    "a lock of its own": {".lock": "held by me\n"},
    "a lock and more": {".lock": "4711\n", "data.csv": "x"},
    "a copied recipe": {"recipe.yaml": f"{RECIPE_HASH}\n", "student/model.py": "x"},
    "checkpoints of something else": {"checkpoints/last.ckpt": "x"},
    "a folder": {"student": None},
    "a data set that segkd has prepared": {".lock": "4711\n", "test/0.png": "x"},
}


def made(folder: Path, files: dict[str, str | None]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.mkdir(parents=True) if text is None else path.parent.mkdir(parents=True, exist_ok=True)
        if text is not None:
            path.write_text(text)
    return folder


@pytest.mark.parametrize("name", OURS)
def test_what_is_new_empty_or_a_runs_is_taken(tmp_path, name):
    check_folder(made(tmp_path / "run", OURS[name]))


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_somebodys_is_not(tmp_path, name):
    folder = made(tmp_path / "run", OTHERS[name])
    with pytest.raises(StorageError, match=r"run: is no run folder, and holds .*: run\.dir=DIR") as caught:
        check_folder(folder)
    assert "\n" not in str(caught.value)


def test_a_run_may_begin_where_one_stands_and_goes_on_in_a_copy(tiny, tmp_path, monkeypatch, own_threads):
    def distil(folder):
        return runs.distill(tiny.recipe("noise", "run.steps=1", "run.threads=1", f"run.dir={folder}"), runs.Options("tiny", quiet=True))  # fmt: skip

    monkeypatch.chdir(made(tmp_path / "empty", {"": None}))
    summary = distil(".")
    shutil.copytree(tmp_path / "empty", tmp_path / "copy", ignore=shutil.ignore_patterns(".*"))
    assert distil(".") == summary
    (tmp_path / "copy" / "summary.json").unlink()
    with pytest.raises(StorageError, match="no run folder"):
        shutil.copytree(tmp_path / "copy" / "student", tmp_path / "own" / "student")
        distil(tmp_path / "own")
    assert distil(tmp_path / "copy")["agreement"] == summary["agreement"]


@pytest.fixture
def taught(tiny, tmp_path, own_threads):
    """A teacher's file and its card."""
    (tmp_path / "one.yaml").write_text(TEACH.replace("ROOT", str(tiny.folder / "camvid")))
    given = [
        "run.steps=1",
        "run.threads=1",
        f"run.dir={tmp_path / 'run'}",
        f"output={tmp_path / 'made' / 't.safetensors'}",
    ]

    def teach(name="one", *more):
        return runs.teach(load(tmp_path / "one.yaml", [*given, *more], "teach"), runs.Options(name, quiet=True))

    teach()
    return teach


def test_a_network_of_which_no_update_was_accepted_is_none(tmp_path, taught, monkeypatch):
    monkeypatch.setattr(Objective, "__call__", lambda self, logits, target: logits.mean() * math.nan)
    with pytest.raises(
        NumbersError, match=r"bad: all 2 updates of the model were refused .* lower train\.optimizer\.lr"
    ):
        taught("one", f"run.dir={tmp_path / 'bad'}", f"output={tmp_path / 'bad.safetensors'}",
               "run.max_bad=99", "run.steps=2")  # fmt: skip
    assert not (tmp_path / "bad/summary.json").exists() and not (tmp_path / "bad.safetensors").exists()


def test_a_teachers_file_is_replaced_by_its_own_recipe_alone(tmp_path, taught):
    weights, run = tmp_path / "made" / "t.safetensors", f"run.dir={tmp_path / 'again'}"
    before = contents(tmp_path / "made")
    with pytest.raises(StorageError, match="a file of the recipe one is there; move it away, or name another output"):
        taught("two", run)
    assert contents(tmp_path / "made") == before
    taught("one", run)
    weights.unlink()
    weights.with_suffix(".md").write_text("# my notes\n")
    with pytest.raises(StorageError, match=r"t\.md: a file that segkd teach has not made is there"):
        taught("one", f"run.dir={tmp_path / 'third'}")
    assert weights.with_suffix(".md").read_text() == "# my notes\n"


@pytest.mark.parametrize("kind", ["text", "weights", "empty"])
def test_weights_of_ones_own_are_not_replaced(tiny, tmp_path, kind):
    path = tmp_path / "mine.safetensors"
    if kind == "weights":
        shutil.copy(tiny.folder / "teacher.safetensors", path)
    else:
        path.write_text("" if kind == "empty" else json.dumps({"a": 1}))
    with pytest.raises(StorageError, match="a file that segkd teach has not made is there") as caught:
        check_made_by(path, "one")
    assert "\n" not in str(caught.value)


def test_a_recipe_may_replace_what_it_made(tmp_path):
    import torch

    save_file({"a": torch.zeros(1)}, tmp_path / "t.safetensors", {"recipe": "one"})
    check_made_by(tmp_path / "t.safetensors", "one")
    check_made_by(tmp_path / "none.safetensors", "one")
