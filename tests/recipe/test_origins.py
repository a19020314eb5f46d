"""A recipe shown with where each of its values was written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segkd.recipe import load, presets, shipped
from segkd.recipe.origins import annotated
from segkd.recipe.strict_yaml import dump
from tests.recipe.conftest import DISTILL
from tests.recipe.test_precedence import OWN

Write = Callable[..., Path]


def said(text: str) -> dict[str, str]:
    """What is said of each line, by its text without the value."""
    lines = [line.partition("  # ") for line in text.splitlines()[1:]]
    return {head.strip(): origin for head, _, origin in lines}


def test_it_says_where_each_value_was_written(write: Write) -> None:
    write(OWN + "presets: {ddad: {synth: {width: 8}}}\n")
    text = annotated("recipe.yaml", ["run.seed=3", "game.logits=null"])
    assert text.startswith("# recipe.yaml, as it would run")
    found = said(text)
    assert found["student_moves: 3"] == "recipe.yaml:6"
    assert found["adv: 2.0"] == "recipe.yaml:4"
    assert found["width: 8"] == "preset ddad, recipe.yaml:10"
    assert found["seed: 3"] == "command line"
    assert found["logits: full"] == "default (null at command line)"
    assert found["tv: 0.0"] == "default of ddad"
    assert found["keep: 2"] == "default"
    assert found["name: cosine"].startswith("preset ddad.segkd, ") and "base/ddad.yaml:" in found["name: cosine"]
    assert found["lr: 0.0001"] == "recipe.yaml:3"


def test_an_alias_belongs_to_the_preset_that_uses_it(write: Write) -> None:
    found = said(annotated("quickstart", ["method=noise"]))
    assert found["lr: 0.0045"].startswith("preset noise, ")


PANEL = [pytest.param(name, marks=pytest.mark.slow) if name.startswith("panel/") else name for name in shipped()]


@pytest.mark.parametrize("name", PANEL)
def test_what_is_shown_loads_as_the_same(write: Write, name: str) -> None:
    for preset in ["", *presets(name)]:
        method, _, variant = preset.partition(".")
        chosen = [f"method={method}", f"variant={variant or 'null'}"] if preset else []
        assert load(write(annotated(name, chosen), "shown.yaml")) == load(name, chosen)


TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), min_size=1, max_size=30)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(options=st.dictionaries(TEXT, TEXT | st.integers() | st.lists(TEXT, min_size=1, max_size=3), max_size=3),
       names=st.lists(TEXT, min_size=2, max_size=40, unique=True), folder=TEXT)  # fmt: skip
def test_it_loads_whatever_the_values_are(write: Write, options: dict[str, Any], names: list[str], folder: str) -> None:
    told = {
        **DISTILL,
        "teacher": {**DISTILL["teacher"], "encoder": "tu-resnet18", "options": options, "classes": names},
    }
    path = write(dump(told | {"data": {"name": None, "root": folder}}))
    recipe = load(path)
    assert load(write(annotated(path), "shown.yaml")) == recipe
