"""Tests of segkd.data.classes."""

import pytest

from segkd.data.classes import CAMVID, IGNORE, ROOMS, SCENES, Classes, listed, named
from segkd.foundation.errors import DataError


def test_camvid_is_the_tutorials_table():
    assert len(CAMVID) == 11
    table = dict(zip(CAMVID.names, CAMVID.palette, strict=True))
    assert table["sky"] == (128, 128, 128)
    assert table["pavement"] == (60, 40, 222)
    assert CAMVID.names[3] == "road"
    assert CAMVID.names[10] == "bicyclist"


@pytest.mark.parametrize("classes", [CAMVID, ROOMS, SCENES, listed("mine", [f"c{i}" for i in range(40)])])
def test_colours_differ_and_none_is_that_of_void(classes: Classes):
    assert len(set(classes.palette)) == len(classes.names)
    assert (0, 0, 0) not in classes.palette
    assert all(0 <= value <= 255 for colour in classes.palette for value in colour)


def test_named():
    assert named("camvid") is CAMVID
    assert named("scenes") is SCENES
    assert named("rooms") is ROOMS
    with pytest.raises(DataError, match="camvid, .*rooms, scenes"):
        named("camvd")


def test_impossible_classes_are_refused():
    with pytest.raises(ValueError, match="2 names but 1 colours"):
        Classes("x", ("a", "b"), ((1, 1, 1),))
    with pytest.raises(ValueError, match="twice"):
        listed("x", ["a", "a"])
    with pytest.raises(ValueError, match="classes"):
        listed("x", [str(i) for i in range(IGNORE)])
