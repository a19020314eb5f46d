"""The shipped quickstart as it is: its claims about sizes, and a run that was stopped ends in the same bytes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from segkd import builders, runs
from segkd.models.adapters import Adapter, flops_of, parameters_of
from segkd.recipe import DistillRecipe, load
from segkd.training import checkpoint

STEPS = 3


def quickstart(folder: Path, *overrides: str) -> DistillRecipe:
    """The shipped recipe, a few steps long, without the final measurement of 500 scenes."""
    short = ["data.final=null", f"run.steps={STEPS}", "run.save_every=1", "run.keep=20", "run.threads=2"]
    rare = ["run.eval_every=1000", "run.sample_every=1000", f"run.dir={folder}"]
    recipe = load("quickstart", [*short, *rare, *overrides], "distill")
    assert isinstance(recipe, DistillRecipe)
    return recipe


def weights(folder: Path) -> bytes:
    return (folder / "student" / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run, with its checkpoint of every step."""
    folder = tmp_path_factory.mktemp("whole")
    runs.distill(quickstart(folder), runs.Options(quiet=True))
    return folder


def test_stopped_after_a_step_it_ends_in_the_same_bytes(whole: Path, tmp_path: Path) -> None:
    """After the first; after each of ten: tests/faults/test_resume.py."""
    (tmp_path / "checkpoints").mkdir()
    saved = checkpoint.listed(whole / "checkpoints")[::-1][1]
    shutil.copy(saved, tmp_path / "checkpoints")
    torch.manual_seed(1)  # whatever ran in between must not matter
    runs.distill(quickstart(tmp_path), runs.Options(quiet=True))
    assert weights(tmp_path) == weights(whole)
    last, expected = (checkpoint.listed(folder / "checkpoints")[0] for folder in (tmp_path, whole))
    a, b = checkpoint.load(last)["game"], checkpoint.load(expected)["game"]
    assert equal(a, b)


def equal(a: object, b: object) -> bool:
    """Bitwise equality of nested states."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(equal, a, b))
    return a == b


@pytest.mark.parametrize(("name", "most"), [("quickstart", 4_000_000), ("camvid_deeplab", 5_000_000)])
def test_the_student_is_at_most_half_of_the_teacher(name: str, most: int) -> None:
    recipe = load(name, kind="distill")
    teacher = builders.teacher_of(recipe.teacher)
    student = Adapter(builders.network_of(recipe.student, teacher.classes), teacher.classes)
    assert parameters_of(teacher) <= most
    assert parameters_of(student) <= parameters_of(teacher) / 2
    assert flops_of(student, *recipe.synth.size) <= flops_of(teacher, *recipe.synth.size) / 2


def test_no_scene_is_rendered_and_no_image_opened(whole: Path) -> None:
    recipe = quickstart(whole)
    summary = runs.distill(recipe)  # finished: only its summary comes back
    assert summary["real_images_for_training"] == 0
