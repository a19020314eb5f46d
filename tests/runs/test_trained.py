"""Networks of runs that another version of segkd has played, or that may not be read."""

import shutil
from pathlib import Path

import pytest
import torch

from segkd import runs
from segkd.cli.main import main
from segkd.foundation.errors import RecipeError, StorageError
from segkd.runs.trained import load_model
from segkd.training import checkpoint
from tests.faults.test_storage import plain_user


@pytest.fixture(scope="module")
def played(tiny, tmp_path_factory) -> Path:
    """A finished run of one step."""
    folder, threads = tmp_path_factory.mktemp("played") / "run", torch.get_num_threads()
    recipe = tiny.recipe("noise", "run.steps=1", "run.threads=1", "game.student_moves=1", f"run.dir={folder}")
    runs.distill(recipe, runs.Options("tiny", quiet=True))
    torch.set_num_threads(threads)
    return folder


@pytest.fixture
def run(played, tmp_path) -> Path:
    return Path(shutil.copytree(played, tmp_path / "run"))


def again(run: Path, change) -> Path:
    """The newest checkpoint, changed."""
    state = checkpoint.load(checkpoint.listed(run / "checkpoints")[0])
    change(state)
    return checkpoint.save(run / "checkpoints", state.get("step", 1), state, 9)


def test_a_checkpoint_of_a_newer_version_is_read_and_what_is_not_known_named(run, capsys):
    def newer(state):
        state["recipe"]["run"]["tiles"] = 3
        state["recipe"]["export"] = {"onnx": True}

    path = again(run, newer)
    model = load_model(path)
    assert capsys.readouterr().err == (
        f"warning: {path}: of another version of segkd: export, run.tiles: not known here, left out\n"
    )
    ours = load_model(checkpoint.listed(run / "checkpoints")[-1]).network.state_dict().keys()
    assert model.network.state_dict().keys() == ours


def test_one_of_an_older_version_has_the_defaults(run, capsys):
    def older(state):
        del state["recipe"]["run"]["headline"], state["recipe"]["run"]["sync_bn"], state["recipe"]["terms"]

    assert load_model(again(run, older)).who == "student" and not capsys.readouterr().err


def test_the_recipe_of_a_newer_version_in_a_run_folder_is_read_too(run, capsys):
    path = run / "recipe.yaml"
    path.write_text(path.read_text() + "export: {onnx: true}\n")
    assert load_model(run, overrides=["data.size=original"]).recipe.data.size == "original"
    assert "export: not known here, left out" in capsys.readouterr().err
    path.write_text(path.read_text() + "teacher: 3\n")
    with pytest.raises(RecipeError):
        load_model(run)


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state.pop("recipe"),
        lambda state: state.update(recipe=3),
        lambda state: state["recipe"]["run"].update(headline="median"),
        lambda state: state["recipe"].pop("teacher"),
        lambda state: state.pop("game"),
        lambda state: state.update(game=[]),
        lambda state: state["game"].pop("student"),
        lambda state: state["game"]["student"].pop("network"),
        lambda state: state["game"]["student"].update(average=7),
    ],
)
def test_what_is_no_checkpoint_of_a_run_is_one_line(run, change):
    with pytest.raises((StorageError, RecipeError)) as caught:
        load_model(again(run, change))
    assert "\n" not in str(caught.value) and ".ckpt: " in str(caught.value)


LOCKED = ["checkpoints", "checkpoints/*.ckpt", "metrics.jsonl", "recipe.yaml", "summary.json", "."]


@pytest.mark.parametrize("what", LOCKED)
def test_what_may_not_be_read_is_one_line(run, tiny, capsys, what):
    """And stays as it is."""
    if what != "summary.json":
        (run / "summary.json").unlink()
    recipe = run.parent / "recipe.yaml"
    recipe.write_text(
        tiny.recipe("noise", "run.steps=1", "run.threads=1", "game.student_moves=1", f"run.dir={run}").to_yaml()
    )
    held, before = sorted(run.glob(what)) if what != "." else [run], sorted(map(str, run.rglob("*")))
    modes = [(path, path.stat().st_mode) for path in held]
    for path in held:
        path.chmod(0o333 if path.is_dir() else 0)
    try:
        with plain_user():
            code = main(["distill", str(recipe), "--quiet"])
    finally:
        for path, mode in modes:
            path.chmod(mode)
    told = capsys.readouterr().err.splitlines()
    assert code == 5 and len(told) == 1 and str(run) in told[0] and "bug" not in told[0], told
    assert sorted(map(str, run.rglob("*"))) == before


@pytest.mark.parametrize(
    "what", ["checkpoints/*.ckpt", "recipe.yaml", "student/model.safetensors", "student/config.json", "student"]
)
def test_what_may_not_be_read_cannot_be_measured_and_is_one_line(run, capsys, what):
    held = sorted(run.glob(what))
    modes = [(path, path.stat().st_mode) for path in held]
    source = held[0] if what.endswith(".ckpt") else run
    for path in held:
        path.chmod(0)
    try:
        with plain_user():
            code = main(["eval", str(source), "--data", "scenes"])
    finally:
        for path, mode in modes:
            path.chmod(mode)
    told = capsys.readouterr().err.splitlines()
    assert code in (2, 3, 5) and len(told) == 1 and "bug" not in told[0], told
