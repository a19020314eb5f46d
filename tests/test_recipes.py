"""What shipped recipes say of themselves; row Y3 of the fault matrix loads and plays them."""

from __future__ import annotations

import pytest

from segkd.recipe import find, load, shipped

NAMES = shipped()


@pytest.mark.parametrize("name", NAMES)
def test_it_loads_and_says_what_it_is(name: str) -> None:
    load(name)
    assert find(name).read_text().startswith("# ")


@pytest.mark.parametrize(
    ("taught", "recipe"),
    [("camvid_student", "camvid_cpu"), ("camvid_segnet", "camvid_segnet"), ("nyuv2_student", "nyuv2_cpu")],
)
def test_the_labelled_student_is_the_distilled_one(taught: str, recipe: str) -> None:
    labelled, distilled = load(f"teachers/{taught}").model, load(recipe).student
    assert (labelled.arch, labelled.encoder, labelled.options) == (distilled.arch, distilled.encoder, distilled.options)
    assert labelled.weights is None and distilled.weights == "none", "both start from random weights"
