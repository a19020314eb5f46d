"""Every key that a recipe takes is in the reference, and what it says is so."""

from __future__ import annotations

from typing import Any

import pytest

from segkd.cli.main import main
from segkd.foundation.errors import UsageError
from segkd.recipe import load, method_terms, shipped
from segkd.recipe.reference import blocks, keys
from segkd.recipe.strict_yaml import parse, plain


def leaves(tree: dict[str, Any], above: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in tree.items():
        whole = isinstance(value, dict) and not key.endswith("options") and value
        found |= leaves(value, f"{above}{key}.") if whole else {above + key: value}
    return found


def test_every_key_of_the_shipped_recipes_is_told() -> None:
    known = {key.name for key in keys()}
    for name in shipped():
        assert {key for key in leaves(load(name).as_dict()) if key not in ("terms", "options")} <= known, name
    weights = {term for terms in method_terms().values() for term in terms.names}
    assert {name for name in known if name.startswith("weights.")} == {f"weights.{term}" for term in weights}


def test_all_of_them_are_described() -> None:
    for key in keys():
        assert key.description and key.type and key.default, key
    assert all(blocks().values())


def test_the_defaults_are_those_that_hold() -> None:
    """Of a recipe that says as little as it can."""
    recipe = leaves(load("teachers/scenes", ["data.watch=null", "train.schedule=null", "run.keep=null"]).as_dict())
    for key in keys("run.keep") + keys("train.schedule") + keys("model.mean"):
        value = recipe[key.name]
        assert (
            str(list(value) if isinstance(value, tuple) else value) == key.default
            or plain(parse(key.default, str)[0]) == value
        )


@pytest.mark.parametrize(
    ("prefix", "names"),
    [
        ("game.student_moves", ["game.student_moves"]),
        ("student.optim", [f"student.optimizer.{key}" for key in ("name", "lr", "momentum", "weight_decay", "betas", "clip")]),
        ("lr", ["options.lr", "student.optimizer.lr", "synth.optimizer.lr", "train.optimizer.lr"]),
        ("output", ["teacher.output", "output"]),
    ],
)  # fmt: skip
def test_a_prefix_chooses(prefix: str, names: list[str]) -> None:
    assert [key.name for key in keys(prefix)] == names


def test_an_unknown_prefix_is_told() -> None:
    with pytest.raises(UsageError, match="no key begins so; did you mean 'student'"):
        keys("studnet")
    with pytest.raises(UsageError, match="no key begins so; blocks: weights, options, terms, game, "):
        keys("zebra.stripes")


def test_the_command_prints_a_line_a_key(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "keys", "synth.si"]) == 0
    size, sizes = capsys.readouterr().out.splitlines()
    assert size.startswith("synth.size: ") and "# required; list of 2: whole number" in size
    assert sizes.startswith("synth.sizes: []")
    assert main(["recipes", "keys", "nothing"]) == 2
    assert capsys.readouterr().err.startswith('segkd: "nothing": no key begins so')


def test_types_are_told_in_words() -> None:
    said = {key.name: key.type for key in keys()}
    assert said["game.student_moves"] == "whole number from 1 to 1,000"
    assert said["student.optimizer.lr"] == "number > 0"
    assert said["student.ema"] == "number ≥ 0, < 1"
    assert said["run.save_every"] == "whole number, or time such as 3m"
    assert said["synth.kind"] == "dcgan, resize, unet, conditional, pictures, noise, images, folder"
    assert said["method"] == ", ".join(method_terms())
