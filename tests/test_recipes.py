"""What shipped recipes say of themselves; row Y3 of the fault matrix loads and plays them."""

from __future__ import annotations

import os
import re
from fnmatch import fnmatch
from pathlib import Path

import pytest
import torch
from torch import nn

from segkd.models.own import OwnNetwork
from segkd.recipe import find, load, shipped

NAMES = shipped()
ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", NAMES)
def test_it_loads_and_says_what_it_is(name: str) -> None:
    load(name)
    assert find(name).read_text().startswith("# ")


def test_the_heads_of_the_panel_are_what_they_say() -> None:
    def built(name: str) -> nn.Module:
        return OwnNetwork.in_file(f"{find('panel/camvid_heads').parent / 'heads.py'}:{name}").built().eval()

    x = torch.randn(1, 1, 32, 48, generator=torch.Generator().manual_seed(0))
    shown = x.expand(-1, 3, -1, -1)
    with torch.no_grad():
        colour = built("colour")(shown)
        assert torch.allclose(built("grey")(x), colour, atol=1e-4)
        assert torch.allclose(built("four_channels")(torch.cat([x] * 4, 1)), colour, atol=1e-4)
        assert torch.allclose(built("Softmax")(shown), colour.softmax(1), atol=1e-5)
        ground = built("OneLogit")(shown).sigmoid()
        assert torch.allclose(ground, colour.softmax(1)[:, [3, 4]].sum(1, keepdim=True), atol=1e-5)


@pytest.mark.parametrize(
    ("taught", "recipe"),
    [("camvid_student", "camvid_deeplab"), ("camvid_segnet", "camvid_segnet"), ("nyuv2_student", "nyuv2_deeplab")],
)
def test_the_labelled_student_is_the_distilled_one(taught: str, recipe: str) -> None:
    labelled, distilled = load(f"teachers/{taught}").model, load(recipe).student
    assert (labelled.arch, labelled.encoder, labelled.options) == (distilled.arch, distilled.encoder, distilled.options)
    assert labelled.weights is None and distilled.weights == "none", "both start from random weights"


def test_the_names_that_the_readme_gives_run_anywhere() -> None:
    """On teachers that are shipped; the published protocols name the recipes that make theirs."""
    for name in ("quickstart", "camvid_deeplab", "nyuv2_deeplab", "camvid_segnet", "nyuv2_segnet"):
        assert os.path.isfile(load(name, kind="distill").teacher.weights)
    for name in ("published/camvid_dfad", "published/nyuv2_dfad"):
        recipe = load(name, kind="distill")
        assert load(recipe.teacher.recipe, kind="teach").output == recipe.teacher.weights


def test_all_of_them_travel_in_the_wheel() -> None:
    patterns = re.findall(r'"([^"]+\.yaml)"', (ROOT / "setup.py").read_text("utf-8"))
    for path in (ROOT / "recipes").rglob("*.yaml"):
        name = path.relative_to(ROOT / "recipes")
        assert any(
            fnmatch(name.name, Path(pattern).name) and name.parent == Path(pattern).parent for pattern in patterns
        )
