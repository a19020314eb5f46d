"""Networks of runs that another version of segkd has played, or that may not be read."""

import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from segkd import runs
from segkd.cli.main import main
from segkd.foundation.errors import RecipeError, StorageError, TeacherError, UsageError
from segkd.models.own import OwnNetwork
from segkd.recipe import load
from segkd.runs.trained import load_guide, load_model
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
    ("who", "value", "known"),
    [
        (None, "teacher.mean=[0, 0, 0]", "data.*, run.precision"),
        ("student", "student.ema=0.5", "data.*, run.precision"),
        ("teacher", "run.batch=3", "data.*, run.precision, teacher.*"),
        ("teacher", "student.ema=0.5", "data.*, run.precision, teacher.*"),
    ],
)
def test_what_changes_nothing_of_a_trained_network_is_refused(run, who, value, known):
    about = "teacher" if who == "teacher" else "network"
    with pytest.raises(UsageError) as caught:
        load_model(run, who, [value, "data.size=original"])
    assert str(caught.value) == (
        f"{value.partition('=')[0]}: changes nothing about the {about} of {run}: leave it out (may be changed here: {known})"
    )
    assert load_model(checkpoint.listed(run / "checkpoints")[0], who, [value]).who == (who or "student")


def test_what_says_on_what_it_is_measured_may_be_said_and_what_is_so_already(run):
    model = load_model(
        run, overrides=["data.size=original", "run.precision=fp32", "student.ema=0.9", "data.final=test"]
    )
    assert model.size == ("original", "the command line's data.size") and model.precision == "fp32"
    assert load_model(run, overrides=["run.precision=bf16"]).precision == "bf16"
    assert load_model(run, "teacher", ["teacher.mean=[0, 0, 0]", "run.precision=bf16"]).mean == (0.0,) * 3


def test_a_students_folder_as_a_teacher_says_how_its_images_were_normalised(run, tiny):
    tree = {
        "extends": str(tiny.path),
        "method": "noise",
        "teacher": {"weights": str(run / "student"), "mean": None, "std": None},
    }
    found = load(tree).teacher
    assert (found.mean, found.std) == ((0.5, 0.45, 0.4), (0.25, 0.25, 0.2))


def one(tiny, folder, own=None, **teacher):
    """A run of one step with a teacher of its own."""
    values = [f"{key.replace('_', '.')}={value}" for key, value in teacher.items()]
    values += ["method=noise", "run.steps=1", "run.threads=1", "game.student_moves=1", f"run.dir={folder}"]
    recipe = load(tiny.path, values, "distill", own_teacher=own and own.name)
    runs.distill(recipe, runs.Options("tiny", quiet=True, teacher=own))
    return folder


def refused_as_another(run, name, own=None):
    """Both hashes stand in the line; returns them."""
    lines = []
    for look in (lambda: load_model(run, "teacher", own=own), lambda: load_guide(run, own=own)):
        with pytest.raises(TeacherError) as caught:
            look()
        lines.append(str(caught.value))
    assert lines[0] == lines[1]
    wanted = (
        rf"{re.escape(name)}: another network \(sha256 ([0-9a-f]{{12}})\) than the teacher of {re.escape(str(run))}"
        r" \(([0-9a-f]{12})\); bring back what it was, or name the recipe itself instead of the run"
    )
    return re.fullmatch(wanted, lines[0]).groups()


def test_another_file_than_the_runs_teacher_is_not_taken_for_it(tiny, tmp_path, own_threads):
    file = Path(shutil.copy(tiny.folder / "teacher.safetensors", tmp_path))
    run, state = one(tiny, tmp_path / "run", teacher_weights=file), load_file(file)
    assert load_guide(run).who == "teacher"
    state["segmentation_head.0.bias"] += 1
    save_file(state, file)
    found, known = refused_as_another(run, str(file))
    recipe = (run / "recipe.yaml").read_text()
    assert f"# teacher sha256: {known}" in recipe and found != known
    assert load_model(run).who == "student"
    assert load_model(run, "teacher", [f"teacher.weights={tiny.folder / 'teacher.safetensors'}"]).who == "teacher"
    assert load_model(run, "teacher", ["teacher.std=[1, 1, 1]"]).who == "teacher"
    save_file({"another": state["segmentation_head.0.bias"]}, file)
    refused_as_another(run, str(file))
    shutil.copy(tiny.folder / "teacher.safetensors", file)
    assert load_guide(run).who == "teacher"
    state["segmentation_head.0.bias"] += 1
    save_file(state, file)
    (run / "recipe.yaml").write_text(re.sub("# teacher sha256: .*\n", "", recipe))
    assert load_guide(run).who == "teacher"
    file.unlink()
    with pytest.raises(TeacherError, match="no such weights file"):
        load_guide(run)


CODE = """\
import torch
def build():
    network = torch.nn.Conv2d(3, 11, 1)
    torch.nn.init.constant_(network.bias, 0.5)
    return network
"""


def test_another_network_of_ones_own_than_the_runs_teacher_is_not_taken_for_it(tiny, tmp_path, own_threads):
    (tmp_path / "my.py").write_text(CODE)
    own = OwnNetwork.in_file(f"{tmp_path / 'my.py'}:build")
    run = one(tiny, tmp_path / "run", own, teacher_weights="null")
    (tmp_path / "my.py").write_text("# the same network\n" + CODE)
    assert load_guide(run, own=OwnNetwork.in_file(own.name)).who == "teacher"
    (tmp_path / "my.py").write_text(CODE.replace("0.5", "0.25"))
    found, known = refused_as_another(run, own.name, OwnNetwork.in_file(own.name))
    assert f"# teacher sha256: {known}" in (run / "recipe.yaml").read_text() and found != known


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
