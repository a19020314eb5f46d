"""Row Y3: every shipped recipe is valid with all its presets, and plays."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from segkd import builders, runs
from segkd.cli.main import main
from segkd.data import catalogue
from segkd.data.sets.scenes import SceneSet
from segkd.models.own import OwnNetwork
from segkd.recipe import DistillRecipe, TeachRecipe, load, presets, shipped
from tests.conftest import write_camvid, write_nyuv2

FOLDER = Path(__file__).parents[2] / "recipes"
FILES = {path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.rglob("*.yaml")}
COMPLETE = sorted(name for name in FILES if not name.startswith("base/"))
TOYS = {
    DistillRecipe: (
        "synth.size=[32,64]", "synth.width=4", "game.student_moves=1", "synth.refine=0", "data.watch=null", "data.final=null",
    ),
    TeachRecipe: ("train.crop=[32,64]", "model.weights=null", "output=null", "data.watch=null", "data.final=null"),
}  # fmt: skip
FEW = {"cmi": ["options.updates=2"]}
"""What else makes a method's toy small."""
SHORT = ("run.budget=null", "run.steps=2", "run.batch=2", "run.threads=1", "run.device=cpu", "run.sample_every=2")


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, own_threads: None):
    """Few scenes to learn from, a CamVid and a NYUv2 of a few images, and the threads as before."""
    monkeypatch.setitem(SceneSet.counts, "train", 4)
    write_camvid(tmp_path / "camvid256")
    write_nyuv2(tmp_path / "nyuv2_256")
    monkeypatch.setenv("SEGKD_DATA", str(tmp_path))


@pytest.mark.row("Y3", len(FILES))
def test_every_shipped_recipe_is_valid(row, capsys: pytest.CaptureFixture[str]):
    assert main(["recipes", "validate"]) == 0
    told = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    assert list(told) == COMPLETE == shipped() and len(FILES) >= 16
    for name in FILES:
        if name in told:
            kinds = presets(FOLDER / f"{name}.yaml") or ["teach"]
            assert told[name].startswith("valid (") and all(kind in told[name] for kind in kinds)
        else:  # what others extend is valid with what extends it
            assert any(f"extends: {name}.yaml" in (FOLDER / f"{other}.yaml").read_text() for other in COMPLETE), name
        row.count()


CHOICES = [
    pytest.param(name, choice, marks=pytest.mark.faults if choice or name.startswith("panel/") else ())
    for name in COMPLETE
    for choice in ("", *presets(FOLDER / f"{name}.yaml"))
    if (name, choice)
    != ("panel/camvid_unpooling", "zskd")  # its last convolution is a transposed one, which zskd cannot read
]


@pytest.mark.parametrize(("name", "choice"), CHOICES)
@pytest.mark.row("Y3", 1)
def test_it_plays_two_steps(row, tmp_path: Path, name: str, choice: str):
    """As it is in each commit's tests; with each of its presets, and the panel, in the long ones."""
    recipe = toy(name, choice, tmp_path)
    cpu = torch.device("cpu")
    if isinstance(recipe, TeachRecipe):
        game = builders.teaching_of(recipe, cpu, bf16=False)[0]
    else:
        game = builders.distiller_of(recipe, builders.teacher_of(recipe.teacher, own=own(name)), cpu, bf16=False)
        assert 0 <= game.monitor.agreement(game.monitor.measured("ema"), 1) <= 1
    values = [game.play(step) for step in range(2)]
    assert all(math.isfinite(value) for step in values for value in step.values()) and not game.notes
    row.count()


@pytest.mark.faults
@pytest.mark.parametrize("name", COMPLETE)
@pytest.mark.row("Y3", 1)
def test_it_runs(row, tmp_path: Path, name: str):
    """From the first checkpoint to the summary; nothing of what is shipped is touched."""
    before = {path: path.stat().st_mtime_ns for path in FOLDER.rglob("*")}
    recipe = toy(name, "", tmp_path)
    quiet = runs.Options(quiet=True, teacher=own(name))
    summary = runs.teach(recipe, quiet) if isinstance(recipe, TeachRecipe) else runs.distill(recipe, quiet)
    assert summary["steps"] == 2 and not summary.get("refused_moves")
    assert {path: path.stat().st_mtime_ns for path in FOLDER.rglob("*")} == before
    row.count()


OWN = {"panel/camvid_unpooling": "unpooling.py:build", "panel/camvid_heads": "heads.py:colour"}


def own(name: str) -> OwnNetwork | None:
    """The teacher of a shipped file, for a recipe that has one."""
    return OwnNetwork.in_file(f"{FOLDER / 'panel' / OWN[name]}") if name in OWN else None


def toy(name: str, choice: str, folder: Path) -> DistillRecipe | TeachRecipe:
    """The recipe, with one of its presets if asked, for two small steps."""
    method, _, variant = choice.partition(".")
    overrides = [f"method={method}", f"variant={variant or 'null'}"] if choice else []
    overrides += [*TOYS[type(load(name, overrides))], *FEW.get(method, []), *SHORT, f"run.dir={folder}/run"]
    recipe = load(name, overrides)
    if "updates" in getattr(recipe, "options", ()):
        overrides.append("options.updates=2")
        recipe = load(name, overrides)
    weights = recipe.teacher.weights if isinstance(recipe, DistillRecipe) else None
    if weights is not None and not Path(weights).is_file():  # it is still to be taught
        return load(name, [*overrides, f"teacher.weights={made(name, recipe, folder / 'teacher.safetensors')}"])
    return recipe


def made(name: str, recipe: DistillRecipe, path: Path) -> Path:
    """Weights of the recipe's teacher as if it had been taught."""
    torch.manual_seed(0)
    classes = len(catalogue.classes_of(recipe.teacher.classes))
    brought = own(name)
    network = builders.network_of(recipe.teacher, classes) if brought is None else brought.built()
    state = network.state_dict()
    trained = {key: value + 0.1 if key.endswith("running_mean") else value for key, value in state.items()}
    save_file({key: value.contiguous() for key, value in trained.items()}, path)
    return path
