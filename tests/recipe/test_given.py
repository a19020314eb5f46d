"""Recipes and values from Python: what a file would have made, told by the same lines."""

from copy import deepcopy
from pathlib import Path, PurePosixPath

import numpy as np
import pytest

from segkd.foundation.errors import RecipeError
from segkd.recipe import load
from segkd.recipe.strict_yaml import dump

TEACH = {
    "model": {"arch": "Unet", "encoder": "resnet18", "classes": 11},
    "train": {"crop": [128, 128], "scale": (0.5, 2.0), "optimizer": {"name": "adamw", "lr": 1e-4}},
    "data": {"name": "scenes"},
    "run": {"steps": 3, "batch": 8},
}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def changed(**blocks: object) -> dict:
    recipe = deepcopy(TEACH)
    for name, values in blocks.items():
        recipe[name] = {**recipe.get(name, {}), **values} if isinstance(values, dict) else values
    return recipe


def lines(recipe: object, overrides: object = ()) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        load(recipe, overrides)
    assert all("\n" not in line for line in caught.value.errors)
    return caught.value.errors


def test_a_dict_is_what_its_file_would_be(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(dump(changed(train={"scale": [0.5, 2.0]})))
    before = deepcopy(TEACH)
    assert load(TEACH) == load("recipe.yaml") and TEACH == before
    assert load(load(TEACH).as_dict()) == load(TEACH)
    assert load(TEACH).run.dir == "runs/recipe-s0"


def test_a_dict_extends_shipped_recipes_and_files_of_the_working_directory(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("extends: quickstart\nrun: {batch: 4}\nteacher: {weights: t.safetensors}\n")
    for parent in ("mine.yaml", Path("mine.yaml")):
        recipe = load({"extends": parent, "run": {"steps": 7}})
        assert (recipe.run.steps, recipe.run.batch, recipe.method) == (7, 4, "ddad")
        assert recipe.teacher.weights == str(tmp_path / "t.safetensors")
    recipe = load({"extends": "quickstart", "teacher": {"weights": Path("w/x.safetensors")}, "run": {"dir": "r"}})
    assert recipe.teacher.weights == str(tmp_path / "w/x.safetensors") and recipe.run.dir == "r"
    assert lines({"extends": "nowhere.yaml"})[0].startswith("recipe: extends: no such file")


def test_numbers_of_numpy_and_paths_are_what_they_stand_for() -> None:
    recipe = changed(run={"steps": np.int64(5), "batch": np.uint8(2), "dir": PurePosixPath("a/b")})
    recipe["train"]["optimizer"]["lr"] = np.float32(0.5)
    found = load(recipe)
    assert (found.run.steps, found.run.batch, found.run.dir, found.train.optimizer.lr) == (5, 2, "a/b", 0.5)


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        (changed(model={"clases": 3}), "recipe: model.clases: unknown key, did you mean 'classes'?"),
        (changed(run={"steps": "10"}), 'recipe: run.steps: expected a whole number, got "10"'),
        (changed(run={"steps": 2.5}), "recipe: run.steps: expected a whole number, got 2.5"),
        (changed(run={"steps": True}), "recipe: run.steps: expected a whole number, got true"),
        (changed(run={"batch": float("nan")}), "recipe: run.batch: "),
        (changed(train={"crop": np.array([1, 2])}), "recipe: train.crop: expected text, a number, a boolean, None, a list"),
        (changed(train={"crop": [128, object()]}), "recipe: train.crop[1]: expected text"),
        (changed(run={3: 4}), "recipe: run: a key must be text, got 3"),
        ({**TEACH, "run.steps": 4}, 'recipe: "run.steps": a key with a dot is one of overrides'),
        ({**TEACH, 3: 4}, "recipe: a key must be text, got 3"),
        (changed(output=b"x"), "recipe: output: expected text"),
        (changed(output="a\0b"), "recipe: output: text with a NUL"),
        (changed(run=None), "recipe: run: missing"),
        ({}, "recipe: "),
        (changed(method="ddad"), "a recipe has method (to distil) or model (to teach), not both"),
    ],
)  # fmt: skip
def test_mistakes_are_the_lines_that_a_file_has(recipe: dict, words: str) -> None:
    assert any(words in line for line in lines(recipe)), lines(recipe)


def test_all_mistakes_are_told_at_once() -> None:
    assert len(lines(changed(run={"steps": "10", "bach": 3}, train={"flip": "no"}))) == 3


def test_endless_and_huge_dicts_are_refused() -> None:
    endless = changed()
    endless["model"]["options"] = {"again": endless}
    assert lines(endless) == ["recipe: nested deeper than 20 levels"]
    assert lines(changed(model={"options": {str(i): i for i in range(10_001)}})) == ["recipe: more than 10000 values"]


def test_overrides_as_a_dict_a_list_and_one_text() -> None:
    for overrides in (
        {"run.steps": 9, "run.batch": 2},
        {"run": {"steps": 9, "batch": 2}},
        ["run.steps=9", "run.batch=2"],
    ):
        found = load(TEACH, overrides)
        assert (found.run.steps, found.run.batch) == (9, 2)
    assert load(TEACH, "run.steps=9").run.steps == 9
    assert lines(TEACH, {"run.stps": 9})[0].startswith("overrides: run.stps: unknown key, did you mean 'steps'?")
    assert lines(TEACH, {"extends": "x"}) == ['overrides: "extends": belongs in the recipe, not among its overrides']
    assert lines(TEACH, {"run.": 1}) == ['overrides: "run.": expected a key such as run.steps']
    assert lines(TEACH, [3]) == ["command line: 3: expected the text key=value or key.sub=value"]
