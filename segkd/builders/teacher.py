"""The teacher of a recipe, and whether it, the student and the data know the same classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from segkd.builders.networks import classes_at_start, network_of
from segkd.data import catalogue
from segkd.data import classes as class_lists
from segkd.data.samples import Dataset
from segkd.foundation.errors import TeacherError, one_line
from segkd.machine import ranks
from segkd.models.building import fitting_mb, is_whole
from segkd.models.family import Described, Sizes, families, family_of
from segkd.models.own import OwnNetwork
from segkd.models.recorded import RecordedStatistics, read_recorded
from segkd.models.teacher import Teacher
from segkd.models.weights import first_few, has_one_logit, load_weights, read_state, weights_file
from segkd.recipe import blocks, expand_root
from segkd.recipe.described import config_in
from segkd.recipe.options import can_be_said
from segkd.recipe.strict_yaml import in_flow


def teacher_of(block: blocks.Teacher, trust_pickle: bool = False, own: OwnNetwork | None = None) -> Teacher:
    """The frozen teacher of a recipe, or a user's own with what the recipe says of it.

    Raises:
        TeacherError: its weights are missing, damaged, or do not fit; or `own` gives no network.
    """
    return teacher_around(trained_network(block, trust_pickle, own), block)


def trained_network(block: blocks.Teacher, trust_pickle: bool = False, own: OwnNetwork | None = None) -> nn.Module:
    """The network of a teacher with its weights, as `teacher_of` takes it."""
    classes = catalogue.class_map(*block.mapped_classes).teacher
    state, path = None, None
    if block.weights is not None:
        path = Path(expand_root(block.weights))
        if own is None and is_whole(block.arch):
            _check_program(block, trust_pickle)
        else:
            state = read_state(path, block.recipe, trust_pickle, block.weights_key)
            if own is None:
                _check_description(block, weights_file(path).parent / "config.json")
    room = None if state is None else fitting_mb(state)
    network = own.built() if own is not None else network_of(block, len(classes), block.channels, room, path)
    if state is not None:
        if own is None and len(classes) == 2 and has_one_logit(network, state):
            network = network_of(block, 1, block.channels, fitting_mb(state), path)
            ranks.say(f"teacher: one logit, of a sigmoid: above 0 it is {classes.names[1]}, below {classes.names[0]}")
        try:
            load_weights(network, state, block.weights)
        except TeacherError as error:
            if own is None:
                raise
            raise TeacherError(f"{error}; teacher.weights=null takes the network as {own.name} gives it") from error
    return network


def teacher_around(network: nn.Module, block: blocks.Teacher) -> Teacher:
    """A trained network with what the recipe says of it: classes, normalisation, sizes, output."""
    mapping = catalogue.class_map(*block.mapped_classes)
    _compare_labels(family_of(network).labels(network), mapping.teacher)
    sizes = Sizes(block.multiple or 1, block.size) if block.multiple or block.size else None
    taught = dict(zip(mapping.student.names, mapping.members, strict=True)) if mapping.maps else None
    return Teacher(
        network, mapping.teacher.names, block.mean, block.std, sizes, block.features, block.output == "probabilities", taught
    )  # fmt: skip


def recorded_of(block: blocks.Teacher, teacher: Teacher) -> RecordedStatistics | None:
    """The statistics that take the place of those that the teacher's BatchNorm layers remember; None: nothing does.

    Raises:
        TeacherError: their file is missing or damaged, or does not fit the teacher.
    """
    return None if block.statistics is None else read_recorded(Path(expand_root(block.statistics)), teacher)


def _check_program(block: blocks.Teacher, trusted: bool) -> None:
    """Raises TeacherError where a program was not asked to be run, is not there, or is asked for an entry of its file."""
    if not Path(expand_root(block.weights)).is_file():
        raise TeacherError(f"{block.weights}: no such file; teacher.arch: {block.arch} is a program in one")
    if block.weights_key is not None:
        raise TeacherError(f"teacher.weights_key: {block.weights} is a program, of which no entry can be taken")
    if not trusted:
        raise TeacherError(
            f"{block.weights}: a program, which may do anything: pass --trust-pickle if you trust its source"
        )


def _check_description(block: blocks.Teacher, file: Path) -> None:
    """Raises TeacherError where a `config.json` beside the weights describes another network than the recipe makes."""
    found = _described_in(file)
    if found is None:
        return
    given = {key: value for key, value in block.options.items() if value is not None and key != "in_channels"}
    ours = {**found.defaults, **given}
    other = {key: (value, ours.get(key)) for key, value in found.options.items() if value != ours.get(key)}
    other |= {key: (None, given[key]) for key in given if key not in found.options and key not in found.defaults}
    names = {"arch": (found.arch, block.arch), "encoder": (found.encoder, block.encoder)}
    names = {key: pair for key, pair in names.items() if str(pair[0]).lower() != str(pair[1]).lower()}
    told: list[str] = []
    for key, (there, here) in {**names, **other}.items():
        of = "" if told else "the recipe's is "
        told.append(f"{key} {in_flow(there)} ({of}{in_flow(here)})")
    if told:
        advice = _what_to_set(found, list(names), {key: there for key, (there, _) in other.items()})
        line = f"the network was made with {', '.join(told)}; {advice}"
        raise TeacherError(f"{file}: {one_line(line, 4000)}")


def _described_in(file: Path) -> Described | None:
    """The network that a `config.json` describes; None: it is not there, damaged, or of a library whose files say enough."""
    config = config_in(file)
    found = () if config is None else (family.described(config) for family in families())
    return next((each for each in found if each is not None), None)


def _what_to_set(found: Described, names: Sequence[str], options: Mapping[str, Any]) -> str:
    """What makes a recipe's network the one that is described; a recipe may have no words for some options."""
    # null leaves an option out
    unsaid = [key for key, value in options.items()
              if not can_be_said(value) or (value is None and found.defaults.get(key) is not None)]  # fmt: skip
    if unsaid:
        how = "bring the network with its code (--teacher-file, docs/own_teacher.md)"
        return f"a recipe cannot say that of {first_few(unsaid)}: {how}"
    said = [f"teacher.{key}={in_flow(getattr(found, key))}" for key in names]
    if options:
        said.append(f"teacher.options='{in_flow(options)}'")
    return f"set {' '.join(said)}"


def _compare_labels(labels: Sequence[str], classes: class_lists.Classes) -> None:
    """Tell where a teacher itself calls its classes otherwise than the recipe; the label of one logit is no class's name."""
    if len(labels) != len(classes):
        return
    there, here = (["".join(filter(str.isalnum, name.lower())) for name in names] for names in (labels, classes.names))
    if other := [f"{k} {labels[k]} ({classes.names[k]})" for k in range(len(labels)) if there[k] != here[k]]:
        ranks.say(
            f"teacher: {len(other)} of {len(labels)} classes have other names than in teacher.classes: {first_few(other)}"
        )


def check_classes(teacher: Teacher, student: blocks.Student, data: Dataset | None) -> None:
    """Teacher, student and data must know the same classes before step 1.

    Raises:
        TeacherError: they do not; the line holds the three numbers, or the first class that is called differently.
    """
    known = "none" if data is None else f"{len(data.classes)} ({data.classes.name})"
    taught = len(teacher.names)
    count = classes_at_start(student, taught, teacher.channels)
    if count != taught:
        raise TeacherError(
            f"classes disagree: teacher {taught}, student {count} ({student.weights}), data {known};"
            " set student.weights=none, or bring another teacher"
        )
    wrong = None if data is None else class_lists.disagreement(teacher.names, data.classes, "teacher", "student")
    if wrong:
        raise TeacherError(f"{wrong}; set teacher.classes or data.name")
