"""Tests of segkd.data.classes."""

import pytest

from segkd.data.classes import IGNORE, Classes, disagreement, listed, numbered
from segkd.recipe.blocks import Model
from segkd.recipe.values import MOST_CLASSES


def test_impossible_classes_are_refused():
    with pytest.raises(ValueError, match="2 names but 1 colours"):
        Classes("x", ("a", "b"), ((1, 1, 1),))
    with pytest.raises(ValueError, match="twice"):
        listed("x", ["a", "a"])
    with pytest.raises(ValueError, match="classes"):
        listed("x", [str(i) for i in range(IGNORE)])


def test_a_recipe_may_name_as_many_classes_as_there_can_be():
    names = tuple(f"c{i}" for i in range(MOST_CLASSES))
    for value in (names, MOST_CLASSES):
        assert Model(arch="FPN", encoder="resnet18", classes=value).classes == value
    assert len(listed("mine", names)) == len(numbered(MOST_CLASSES)) == MOST_CLASSES
    with pytest.raises(ValueError, match=f"{MOST_CLASSES + 1} classes; between 1 and {MOST_CLASSES}"):
        listed("mine", [*names, "more"])


def test_classes_agree_in_number_and_where_both_have_names_in_these():
    roads = listed("mine", ["road", "Night-Stand"])
    for names in (["road", "Night-Stand"], ["Road", "night stand"], ["ROAD", "night_stand"], numbered(2).names):
        assert disagreement(names, roads, "model") is None
    assert disagreement(["road", "car"], numbered(2), "model") is None
    wrong = disagreement(["Night-Stand", "road"], roads, "teacher", "student")
    assert wrong == "classes disagree: class 0 is 'Night-Stand' to the teacher, and 'road' in mine"
    assert disagreement(["class 1", "class 0"], roads, "model")
    wrong = disagreement(["road"], roads, "teacher", "student")
    assert wrong == "classes disagree: teacher 1, student 1, data 2 (mine)"
    assert disagreement(numbered(3).names, roads, "model") == "classes disagree: model 3, data 2 (mine)"
