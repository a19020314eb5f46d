"""The data sets by name: each is one file in `data/sets/`, found by the file's name, and imported when it is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence

from segkd.data.class_map import ClassMap, MappedSet
from segkd.data.classes import Classes, listed, numbered
from segkd.data.definition import LabelledSet, Relabelling
from segkd.data.samples import Dataset
from segkd.foundation import rooms
from segkd.foundation.errors import DataError, RecipeError
from segkd.recipe import expand_root
from segkd.recipe.values import wrong_classes


def reader(name: str) -> type[LabelledSet]:
    """The class that reads a data set: the last one in its file.

    Raises:
        DataError: there is no such set, or its file has no class for it.
    """
    files = rooms.files(rooms.SETS)
    if name not in files:
        raise DataError(f"data.name: no data set {name!r}; there are {', '.join(files)}")
    module = importlib.import_module(f"segkd.data.sets.{name}")
    classes = [value for value in vars(module).values() if getattr(value, "__module__", "") == module.__name__]
    own = [value for value in classes if isinstance(value, type) and issubclass(value, LabelledSet)]
    if not own:
        raise DataError(f"{files[name]}: holds no class of the kind segkd.data.definition.LabelledSet")
    return own[-1]


def dataset(name: str, root: str | None, split: str, classes: Classes) -> Dataset:
    """A labelled set by its recipe name; of a set with several labellings the one that has as many classes as `classes`.

    Raises:
        DataError: unknown, without the root that it needs, not found there, or not labelled with so many classes.
    """
    kind = reader(name)
    if root is None and kind.obtained is not None:
        told = "give --root DIR to segkd eval, or data.root=DIR to a recipe"
        raise DataError(f"data: {name} is read from a folder; {told} (its layout is in docs/data.md)")
    return kind.at(expand_root(root or "."), split, classes)


def measuring(name: str, root: str | None, split: str, mapping: ClassMap) -> Dataset:
    """A labelled set for a student: labels of its teacher's classes are mapped, and those of its own taken as they are.

    Raises:
        DataError: as for `dataset`.
    """
    counts = {len(classes) for classes in reader(name).labellings}
    of_student = len(mapping.student) in counts and len(mapping.teacher) not in counts
    data = dataset(name, root, split, mapping.student if of_student else mapping.teacher)
    return MappedSet(data, mapping, split) if mapping.covers(data.classes) else data


def class_map(names: str | Sequence[str], made: Sequence[Mapping[str, Sequence[str]]] | None = None) -> ClassMap:
    """The classes of a network, as `classes_of` knows them, and those that a student makes of them (`student_classes`).

    Raises:
        RecipeError: a student's class is made of one that the teacher has not.
    """
    teacher = classes_of(names)
    if made is not None and (wrong := wrong_classes(made, teacher.names)):
        raise RecipeError([f"teacher.student_classes: {wrong}"])
    return ClassMap.of(teacher, made)


def _labellings() -> dict[Classes, Relabelling | None]:
    """The class lists of all sets, with what the ids in their label files mean."""
    return {classes: ids for name in rooms.files(rooms.SETS) for classes, ids in reader(name).labellings.items()}


def classes_of(value: str | Sequence[str] | int) -> Classes:
    """The class list that a recipe's `classes` means: a named one, a list of names, or a number of unnamed ones.

    Raises:
        DataError: no list has this name.
    """
    if not isinstance(value, str):
        return numbered(value) if isinstance(value, int) else listed("custom", value)
    lists = {classes.name: classes for classes in _labellings()}
    if value not in lists:
        raise DataError(f"no classes called '{value}'; known: {', '.join(sorted(lists))}")
    return lists[value]


def known_as(names: Sequence[str]) -> Classes | None:
    """The named list with exactly these names, if there is one."""
    return next((classes for classes in _labellings() if classes.names == tuple(names)), None)


def label_ids(classes: Classes) -> Relabelling | None:
    """What the ids in the label files of these classes' data set mean; None where there are none."""
    return _labellings().get(classes)
