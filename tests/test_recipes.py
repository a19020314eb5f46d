"""Every shipped recipe, found by walking the folder: valid, with a header, and with its presets in working order."""

from __future__ import annotations

from pathlib import Path

import pytest

from segkd.recipe import find, load, presets, shipped

NAMES = shipped()


def test_the_shipped_recipes_are_these() -> None:
    data = {f"{name}_{kind}" for name in ("camvid", "nyuv2") for kind in ("cpu", "deeplab", "segnet")}
    assert {"quickstart", "teachers/scenes", "teachers/camvid", "teachers/nyuv2", *data} <= set(NAMES)
    folder = Path(__file__).parents[1] / "recipes"
    files = {path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml")}
    assert {name for name in files if not name.startswith("base/")} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_it_loads_and_says_what_it_is(name: str) -> None:
    load(name)
    assert find(name).read_text().startswith("# ")


@pytest.mark.parametrize("name", NAMES)
def test_its_presets_load(name: str) -> None:
    for preset in presets(name):
        method, _, variant = preset.partition(".")
        load(name, [f"method={method}", *([f"variant={variant}"] if variant else [])])


@pytest.mark.parametrize(
    ("taught", "recipe"),
    [("camvid_student", "camvid_cpu"), ("camvid_segnet", "camvid_segnet"), ("nyuv2_student", "nyuv2_cpu")],
)
def test_the_labelled_student_is_the_distilled_one(taught: str, recipe: str) -> None:
    labelled, distilled = load(f"teachers/{taught}").model, load(recipe).student
    assert (labelled.arch, labelled.encoder, labelled.options) == (distilled.arch, distilled.encoder, distilled.options)
    assert labelled.weights is None and distilled.weights == "none", "both start from random weights"
