"""The classes of a student, made of its teacher's: names, colours, and what becomes of labels."""

import numpy as np
import pytest

from segkd.data.class_map import ClassMap, MappedSet
from segkd.data.classes import IGNORE, UNKNOWN, listed, numbered
from segkd.data.samples import Sample, check_labels
from segkd.data.sets.camvid import CAMVID
from segkd.foundation.errors import DataError

MAP = ClassMap.of(CAMVID, [{"vehicle": ("bicyclist", "car")}, {"road": ("pavement", "road")}, {"sky": ("sky",)}])


def colour(name: str) -> tuple[int, int, int]:
    return CAMVID.palette[CAMVID.names.index(name)]


def test_a_name_keeps_its_colour_and_a_new_one_has_that_of_its_first_class():
    assert MAP.student.names == ("vehicle", "road", "sky") and MAP.members == ((10, 8), (4, 3), (0,))
    assert MAP.student.palette == (colour("bicyclist"), colour("road"), colour("sky"))
    assert MAP.dropped == ["building", "pole", "tree", "signsymbol", "fence", "pedestrian"]
    same = ClassMap.of(CAMVID)
    assert same.student is CAMVID and not same.maps and not same.covers(CAMVID) and not same.dropped


def test_labels_follow_and_what_is_dropped_is_ignored():
    mask = np.uint8([[8, 10, 3], [4, 0, 5], [IGNORE, 1, 9]])
    assert MAP.labels(mask).tolist() == [[0, 0, 1], [1, 2, IGNORE], [IGNORE, IGNORE, IGNORE]]
    assert MAP.labels(np.uint8([[11, 200]])).tolist() == [[UNKNOWN, UNKNOWN]]
    with pytest.raises(DataError, match="expected 0 to 2"):
        check_labels("a.png", MAP.labels(np.uint8([[11]])), 3)


class Set(list):
    classes, notes = CAMVID, ("one file is left out",)


def test_a_set_with_the_students_classes_says_what_it_ignores():
    image = np.zeros((1, 2, 3), np.uint8)
    data = MappedSet(Set([Sample("a", image, np.uint8([[8, 1]])), Sample("b", image, None)]), MAP, "val")
    assert data.classes is MAP.student and [sample.name for sample in data] == ["a", "b"]
    assert data[0].mask.tolist() == [[0, IGNORE]] and data[1].mask is None and data[0].image is image
    assert data.notes[0] == "one file is left out"
    told = "labels of camvid val: 11 classes become 3 (teacher.student_classes); ignored: building, pole, "
    assert data.notes[1].startswith(told) and data.notes[1].endswith("fence, pedestrian")
    few = ClassMap.of(CAMVID, [{"sky": ("sky",)}, {"tree": ("tree",)}])
    assert MappedSet(Set(), few, "val").notes[1].endswith("car, pedestrian and 1 more")
    assert MappedSet(Set(), ClassMap.of(CAMVID), "val").notes[1].endswith("student_classes)")


def test_labels_are_mapped_where_they_are_the_teachers_and_not_the_students():
    assert MAP.covers(CAMVID) and MAP.covers(numbered(11))
    assert not any(map(MAP.covers, (MAP.student, numbered(3), listed("mine", "abc"), listed("mine", "abcdefghijk"))))
    ordered = ClassMap.of(numbered(2), [{"car": ("class 1",)}, {"road": ("class 0",)}])
    assert ordered.covers(listed("mine", ["street", "car"])) and not ordered.covers(listed("mine", ["car", "road"]))
