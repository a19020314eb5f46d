"""Recipes that another version of segkd has written into its runs."""

from typing import Any

import pytest

from segkd.foundation.errors import RecipeError
from segkd.recipe import differences, filled, load, recalled


@pytest.fixture(params=["distill", "teach"])
def written(request, write, distill, teach, methods) -> dict[str, Any]:
    """A resolved recipe, as a checkpoint holds it."""
    told = {"distill": distill, "teach": teach}[request.param]
    return load(write(told), methods=methods).as_dict()


def test_ones_own_is_read_back(written):
    recipe, unknown = recalled(written, "x")
    assert recipe.as_dict() == written == filled(written) and not unknown


def test_what_did_not_exist_then_has_its_default(written):
    older = {**written, "run": {key: value for key, value in written["run"].items() if key not in ("keep", "sync_bn")}}
    del older["data"]["size"]
    assert recalled(older, "x")[0].as_dict() == {**written, "data": {**written["data"], "size": "protocol"}}
    assert not differences(filled(older), filled(written))


def test_what_exists_no_more_is_named_and_left_out_but_differs(written):
    newer = {**written, "export": {"onnx": True}, "run": {**written["run"], "colour": "blue", "tiles": [1]}}
    recipe, unknown = recalled(newer, "x")
    assert recipe.as_dict() == written and sorted(unknown) == ["export", "run.colour", "run.tiles"]
    assert differences(filled(newer), written) == ["export", "run.colour", "run.tiles"]
    assert "colour" in newer["run"], "what was given stays as it is"


@pytest.mark.parametrize("nothing", [None, 3, "recipe", [], {}, {"model": 3}, {"method": "ddad"}])
def test_what_is_no_recipe_is_said_in_lines(nothing):
    with pytest.raises(RecipeError) as caught:
        recalled(nothing, "step.ckpt")
    assert all(line.startswith("step.ckpt: ") and "\n" not in line for line in caught.value.errors)
    assert nothing is None or not isinstance(nothing, dict) or filled(nothing) == nothing


def test_a_value_that_means_nothing_here_is_named(written):
    newer = {**written, "run": {**written["run"], "headline": "median"}}
    with pytest.raises(RecipeError, match="x: of another version of segkd: run.headline: unknown value"):
        recalled(newer, "x")
    assert filled(newer) == newer
