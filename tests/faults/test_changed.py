"""A recipe that changes between the parts of a run: each key that matters is named, and `--accept` goes on with it."""

from __future__ import annotations

from typing import Any

import pytest

from segkd.foundation.errors import UsageError
from segkd.recipe import Recipe, differences, load
from segkd.runs.folder import free_keys
from segkd.training import checkpoint, resume
from tests.faults.harness import TEACH
from tests.methods.conftest import tiers

FREE = ("data.", "run.dir", "run.save_every", "run.eval_every", "run.tensorboard")
"""What the matrix lets change; a recipe whose images or labels train may hold on to more."""


class Still:
    """A game that takes any state."""

    precision = "fp32"

    def state(self) -> dict:
        return {}

    def restore(self, state: dict) -> None:
        pass


def leaves(recipe: dict, above: str = "") -> dict[str, Any]:
    """The dotted keys of a resolved recipe with their values; an empty block is a leaf."""
    found = {}
    for key, value in recipe.items():
        if isinstance(value, dict) and value:
            found |= leaves(value, f"{above}{key}.")
        else:
            found[f"{above}{key}"] = value
    return found


def other(value: object) -> object:
    """Another value of the same kind."""
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, (int, float)):
        return value + 1
    return f"{value}x" if isinstance(value, str) else [*value, 1] if isinstance(value, list) else {"new": 1}


def changed(recipe: dict, key: str) -> dict:
    """The recipe with another value of one key."""
    head, _, rest = key.partition(".")
    return recipe | {head: changed(recipe[head], rest) if rest else other(recipe[head])}


@pytest.mark.row("R9")
@pytest.mark.parametrize("kind", [*(case for case in tiers(variants=True) if "+" not in case.values[0]), "teach"])
def test_each_key_that_changes_is_named(row, tiny, tmp_path, kind):
    recipe = recipe_of(tiny, kind)
    before, held = recipe.as_dict(), free_keys(recipe)
    game = Still()
    state = {"step": 3, "looked": True, "recipe": before, "environment": resume.environment(game), "game": {}}
    (tmp_path / "checkpoints").mkdir()
    checkpoint.save(tmp_path / "checkpoints", 3, state, 1)

    def resumed(now: dict, *accept: str) -> int:
        told: list[str] = []
        step = resume.restore(game, tmp_path, now, differences, "auto", accept, told.append, held).step
        assert [line.partition(" instead of ")[0].rpartition(" ")[2] for line in told] == ["steps"] * (
            "run.steps" in accept
        )
        return step

    keys = leaves(before)
    assert len(keys) > 40
    for key in keys:
        now = changed(before, key)
        named = f"{key}.new" if keys[key] == {} else key
        if key.startswith(held):
            assert key.startswith(FREE) and resumed(now) == 3
        else:
            with pytest.raises(UsageError) as caught:
                resumed(now)
            assert f"changed since its checkpoint: {named};" in str(caught.value) and caught.value.exit_code == 2
            assert f"--accept {named}" in str(caught.value) and "\n" not in str(caught.value)
            assert resumed(now, named) == 3
        row.count()
    assert any(key.startswith(held) for key in keys)
    if kind != "teach" and recipe.synth.kind != "images":
        assert {key for key in keys if key.startswith(FREE)} == {key for key in keys if key.startswith(held)}


def recipe_of(tiny, kind: str) -> Recipe:
    if kind != "teach":
        return tiny.recipe(kind)
    (tiny.folder / "teach.yaml").write_text(TEACH.replace("ROOT", str(tiny.folder / "camvid")))
    return load(tiny.folder / "teach.yaml", ["run.steps=4"], "teach")


def test_where_images_train_the_set_they_come_from_is_held_on_to(tiny):
    held = free_keys(tiny.recipe("kd"))
    assert not "data.name".startswith(held) and all(
        f"data.{key}".startswith(held) for key in ("root", "watch", "final")
    )
    assert "data.name".startswith(free_keys(tiny.recipe("noise")))


ACCEPTED = {
    "run.batch": ("3", True),
    "synth.augment": ("[]", True),
    "student.ema": ("0.0", True),
    "synth.ema": ("0.9", False),
    "student.optimizer.name": ("sgd", False),
    "student.options.decoder_channels": ("24", False),
    "synth.kind": ("dcgan", False),
}


@pytest.mark.parametrize("key", ACCEPTED)
def test_an_accepted_key_goes_on_or_says_why_not(tiny, tmp_path, key):
    value, fits = ACCEPTED[key]
    game, recipe = tiny.game("ddad.segkd"), tiny.recipe("ddad.segkd").as_dict()
    game.play(0)
    state = {"step": 1, "looked": True, "recipe": recipe, "environment": resume.environment(game), "game": game.state()}
    (tmp_path / "checkpoints").mkdir()
    checkpoint.save(tmp_path / "checkpoints", 1, state, 1)
    now, again = tiny.recipe("ddad.segkd", f"{key}={value}").as_dict(), tiny.game("ddad.segkd", f"{key}={value}")
    assert differences(recipe, now) == [key]
    if fits:
        assert resume.restore(again, tmp_path, now, differences, "auto", (key,), pytest.fail).step == 1
        again.play(1)
        assert not again.notes
    else:
        with pytest.raises(UsageError, match="the checkpoint does not fit .*; name another run.dir") as caught:
            resume.restore(again, tmp_path, now, differences, "auto", (key,), pytest.fail)
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
