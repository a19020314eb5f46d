"""What shipped recipes say of themselves; row Y3 of the fault matrix loads and plays them."""

from __future__ import annotations

import pytest

from segkd.recipe import find, load, shipped

NAMES = shipped()


@pytest.mark.parametrize("name", NAMES)
def test_it_loads_and_says_what_it_is(name: str) -> None:
    load(name)
    assert find(name).read_text().startswith("# ")


def test_the_labelled_student_is_the_distilled_one() -> None:
    labelled, distilled = load("teachers/camvid_student").model, load("camvid_cpu").student
    assert (labelled.arch, labelled.encoder, labelled.options) == (distilled.arch, distilled.encoder, distilled.options)
    assert labelled.weights is None and distilled.weights == "none", "both start from random weights"
