"""teacher.student_classes: what may stand there, and in which order it holds."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from segkd.foundation.errors import RecipeError
from segkd.recipe import Terms, differences, load, with_values

Write = Callable[..., Path]
MADE = {"vehicle": ["car", "bicyclist"], "sky": "sky"}
FOUND = ({"vehicle": ("car", "bicyclist")}, {"sky": ("sky",)})


def test_one_class_or_several_in_the_order_of_the_keys(
    write: Write, distill: dict[str, Any], methods: dict[str, Terms]
) -> None:
    assert load(write(distill), methods=methods).teacher.student_classes is None
    distill["teacher"]["student_classes"] = MADE
    recipe = load(write(distill), methods=methods)
    assert recipe.teacher.student_classes == FOUND
    assert (
        load(write(recipe.to_yaml()), methods=methods)
        == recipe
        == load(distill, {"run.dir": "runs/recipe-s1"}, methods=methods)
    )
    other = with_values(recipe, {"teacher.student_classes": dict(reversed(MADE.items()))})
    assert differences(recipe.as_dict(), other.as_dict()) == ["teacher.student_classes"]


def test_a_nearer_one_holds_as_a_whole(write: Write, distill: dict[str, Any], methods: dict[str, Terms]) -> None:
    distill["teacher"]["student_classes"] = MADE
    write(distill, "below.yaml")
    nearer = "{road: [road, pavement], tree: tree}"
    found = ({"road": ("road", "pavement")}, {"tree": ("tree",)})
    child = write(f"extends: below.yaml\nteacher: {{student_classes: {nearer}}}")
    assert load(child, methods=methods).teacher.student_classes == found
    given = f"teacher.student_classes={nearer}"
    assert load("below.yaml", [given], methods=methods).teacher.student_classes == found
    twice = ["teacher.student_classes={a: car, b: sky}", given]
    assert load("below.yaml", twice, methods=methods).teacher.student_classes == found
    assert load("below.yaml", ["teacher.student_classes=null"], methods=methods).teacher.student_classes is None


@pytest.mark.parametrize(
    ("made", "words"),
    [
        ("{sky: sky, road: [road, pavment]}", "unknown class of the teacher \"pavment\", did you mean 'pavement'?"),
        ("{sky: sky, road: asphalt}", 'unknown class of the teacher "asphalt" (known: sky, building, pole, road, '),
        ("{sky: sky, road: [road, sky]}", '"sky" of the teacher goes into sky and into road'),
        ("{road: [road, road], sky: sky}", '"road" of the teacher goes into road and into road'),
        ("{sky: sky}", "a student tells two classes apart, or more"),
        ("{sky: sky, road: pavement}", '"road" is a class of the teacher\'s, and would be made of others'),
        ("{sky: sky, road: []}", '"road": expected a class of the teacher, or a list of them'),
        ("{sky: sky, road: null}", '"road": expected a class of the teacher, or a list of them'),
        ("{sky: sky, road: [3]}", '"road": expected a class of the teacher, or a list of them'),
        ("[{sky: sky}, {sky: road}]", '"sky": each class of the student needs a name of its own'),
        ("[sky, road]", "expected a mapping from each class of the student to one or a list of the teacher's"),
        ("11", "expected a mapping from each class of the student to one or a list of the teacher's"),
    ],
)
def test_what_cannot_be_is_one_line_at_its_place(write: Write, errors_of: Any, distill: dict[str, Any], made: str, words: str) -> None:  # fmt: skip
    (line,) = errors_of(distill, f"teacher.student_classes={made}")
    assert line.startswith(f"command line: teacher.student_classes: {words}")


def test_names_of_ones_own_are_known_too(errors_of: Any, distill: dict[str, Any]) -> None:
    distill["teacher"] |= {"classes": ["street", "car", "tree"], "student_classes": {"road": "stret", "car": "car"}}
    (line,) = errors_of(distill)
    assert "unknown class of the teacher \"stret\", did you mean 'street'?" in line and line.startswith("recipe.yaml:")


def test_many_names_are_not_all_told(distill: dict[str, Any], methods: dict[str, Terms]) -> None:
    distill["teacher"] |= {"classes": "ade20k", "student_classes": {"a": "wall", "b": "asphalt"}}
    with pytest.raises(RecipeError, match=r"known: wall, building, .*, \.\.\.\)") as error:
        load(distill, methods=methods)
    assert len(str(error.value)) < 500
