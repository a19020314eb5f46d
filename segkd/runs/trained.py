"""The trained network that a command line names: in a student folder, a run folder, a checkpoint or a recipe."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import nn

from segkd import builders
from segkd.data import catalogue
from segkd.data.class_map import ClassMap
from segkd.data.classes import Classes, disagreement
from segkd.delivery.folder import LoadedStudent, load_student
from segkd.foundation import terminal
from segkd.foundation.channels import FROM_PYTHON, READ, name_of
from segkd.foundation.errors import DataError, RecipeError, StorageError, TeacherError, UsageError
from segkd.foundation.resize import PROTOCOL_SIDE, Size, side_of
from segkd.foundation.rng import check_idle
from segkd.machine.device import device_of
from segkd.machine.precision import bf16_of
from segkd.models.adapters import Adapter
from segkd.models.own import OwnNetwork
from segkd.models.trial import try_passes
from segkd.models.weights import first_few, load_weights, read_state
from segkd.recipe import DistillRecipe, TeachRecipe, blocks, differences, load, named, recalled, with_values
from segkd.recipe.sources import Overrides, read_overrides
from segkd.recipe.strict_yaml import parse, plain
from segkd.runs.folder import TEACHER, about_run, kept_methods, teacher_hash
from segkd.runs.labelled import model_of
from segkd.training import checkpoint

Who = Literal["teacher", "student"]
Precision = Literal["auto", "fp32", "bf16"]
TAKEN = ("data.", "run.precision")
"""What may still be said of the recipe of a network that is made: on what it is measured, and how."""


@dataclass(frozen=True)
class Model:
    """A trained network, ready to be measured.

    Attributes:
        network: normalised images (N,K,H,W) to logits (N,C,H,W), any H and W.
        classes: what its C logits stand for.
        mean, std: normalisation of images in [0,1], a value for each channel.
        recipe: that which it comes from, where it comes with one: it says on what, and in which precision, it is measured.
        who: the side of the game that it played; a network that was taught from labels is a teacher.
        size: what it is shown, as it was made and measured, and where that stands.
        name: what it is called in words about it.
    """

    network: nn.Module
    classes: Classes
    mean: Sequence[float]
    std: Sequence[float]
    recipe: DistillRecipe | TeachRecipe | None = None
    who: Who = "student"
    size: tuple[Size, str] = ("protocol", "segkd's rule")
    name: str = "a loaded student"

    @property
    def mapping(self) -> ClassMap | None:
        """How its recipe makes its classes of a teacher's, where it comes with one."""
        return None if self.recipe is None else catalogue.class_map(*model_of(self.recipe).mapped_classes)

    @property
    def precision(self) -> Precision:
        return "auto" if self.recipe is None else self.recipe.run.precision


@dataclass(frozen=True)
class Bringing:
    """With what a recipe's teacher is made: whether pickle is trusted, and a user's own network."""

    trust_pickle: bool = False
    own: OwnNetwork | None = None


def seen_at(size: Size, source: str | None = None) -> str:
    """What a network is shown, in words for whoever reads a figure or looks at a mask; `source` is where that stands."""
    side = side_of(size)
    seen = "images as they are" if side is None else f"a shorter side of at most {side} pixels"
    other = (
        f"--size protocol: a shorter side of at most {PROTOCOL_SIDE}"
        if side is None
        else "--size original: images as they are"
    )
    return f"the network sees {seen}" if source is None else f"the network sees {seen} ({source}; {other})"


def load_model(
    source: str | Path, who: Who | None = None, overrides: Overrides = (), trust_pickle: bool = False,
    own: OwnNetwork | None = None,
) -> Model:  # fmt: skip
    """The network that `source` stands for.

    Args:
        source: a student folder, a run folder, a checkpoint, or a recipe (a path, or the name of a shipped one).
        who: `teacher` is the teacher of the recipe, or of the recipe of the run; a recipe has nothing else to offer.
        overrides: `key.sub=value` on top of the recipe; a student folder has none.
        trust_pickle: also read a teacher that needs pickle, which runs the code that it holds.
        own: the network that a recipe's teacher is, where that is a user's own.

    Raises:
        UsageError: nothing of the kind, a recipe without who="teacher", or overrides without a recipe; RecipeError
            for a wrong recipe. Also where a run goes on in another thread.
        TeacherError: a folder without a network, or weights that are missing, damaged or do not fit.
        StorageError: a damaged checkpoint.
    """
    check_idle()
    found = _found(source, who, overrides, Bringing(trust_pickle, own))
    return replace(found, name=f"the teacher of {source}" if who == "teacher" else str(source))


def _found(source: str | Path, who: Who | None, overrides: Overrides, bringing: Bringing) -> Model:
    path = Path(source)
    if not path.exists() and not named(source):
        raise UsageError(f"{source}: no such student folder, run folder, checkpoint or recipe")
    if (path / "preprocess.json").is_file():
        if overrides or who == "teacher":
            lacks = "no teacher" if not overrides else f"no recipe to change ({next(iter(overrides))})"
            raise UsageError(f"{path}: a student folder has {lacks}; name its run folder")
        return of_student(load_student(path))
    if (path / "recipe.yaml").is_file():
        return _in_run(path, who, overrides, bringing)
    if path.is_dir():
        raise TeacherError(f"{path}: neither a student folder (preprocess.json) nor a run folder (recipe.yaml)")
    if path.suffix == ".ckpt":
        return _played(path, who, overrides, bringing)
    if path.is_file() and path.suffix not in (".yaml", ".yml"):
        raise UsageError(f"{path}: not a student folder, run folder, checkpoint (.ckpt) or recipe (.yaml)")
    recipe = load(source, overrides, own_teacher=bringing.own and bringing.own.name)
    if who != "teacher":
        raise UsageError(f"{source}: a recipe holds no trained student: name its run folder, or add --who teacher")
    return _teacher(recipe, bringing) if isinstance(recipe, DistillRecipe) else _taught(recipe, str(source))


def _in_run(folder: Path, who: Who | None, overrides: Overrides, bringing: Bringing) -> Model:
    """The network that a run has made, or the teacher that it had."""
    written = _of_run(folder / "recipe.yaml", ())
    recipe = _of_run(folder / "recipe.yaml", overrides) if overrides else written
    changed = differences(written.as_dict(), recipe.as_dict())
    teachers = isinstance(recipe, DistillRecipe) and who == "teacher"
    taken = (*TAKEN, "teacher.") if teachers else TAKEN
    if idle := [key for key in changed if not key.startswith(taken)]:
        known = ", ".join(f"{key}*" if key.endswith(".") else key for key in taken)
        raise UsageError(
            f"{first_few(idle)}: changes nothing about {'the teacher' if teachers else 'the network'} of {folder}: leave it out"
            f" (may be changed here: {known})"
        )
    if teachers:
        return _teacher(recipe, bringing, None if any(key.startswith("teacher.") for key in changed) else folder)
    model = of_student(load_student(folder), recipe)
    return replace(model, size=(recipe.data.size, "the command line's data.size")) if "data.size" in changed else model


def own_teacher(named: str | None, who: Who | None, guide: str | Path | None) -> OwnNetwork | None:
    """A user's own teacher (`FILE.py:FUNCTION`), that of a recipe or a run which is shown, or beside which one is.

    Raises:
        UsageError: neither is.
    """
    if named is None:
        return None
    if who != "teacher" and (guide is None or _is_student(guide)):
        raise UsageError(
            f"{named}: no teacher is asked for here: add --who teacher, or a recipe or run to compare with"
        )
    return OwnNetwork.in_file(named)


def _is_student(source: str | Path) -> bool:
    return (Path(source) / "preprocess.json").is_file()


def load_guide(source: str | Path, trust_pickle: bool = False, own: OwnNetwork | None = None) -> Model:
    """What a model is to be compared with: the network of a student folder, or else the teacher; see `load_model`."""
    alone = _is_student(source)
    return load_model(source, None if alone else "teacher", trust_pickle=trust_pickle, own=None if alone else own)


def check_reads(*models: Model | None) -> None:
    """Raises DataError where a model takes images that segkd does not read from files."""
    for model in models:
        if model is not None and len(model.mean) not in READ:
            raise DataError(f"{model.name}: takes images of {name_of(len(model.mean))}, and {FROM_PYTHON}")


def check_same_classes(teacher: Model, model: Model) -> None:
    """Raises DataError where two models that are to be compared have other classes: their numbers, or the first name."""
    ours, theirs = model.classes, teacher.classes
    if len(ours) != len(theirs):
        raise DataError(f"classes disagree: teacher {len(theirs)}, {model.who} {len(ours)}")
    if wrong := disagreement(theirs.names, ours, "teacher"):
        raise DataError(f"{wrong}, whose classes the {model.who} has")


def _of_run(path: Path, overrides: Overrides) -> DistillRecipe | TeachRecipe:
    """The recipe that a run has written; keys of another version of segkd are told and left out."""
    try:
        return load(path, overrides, methods=kept_methods(path.parent))
    except RecipeError:
        tree, errors = parse(path.read_text("utf-8", errors="replace"), str)
        if errors:
            raise
        recipe, unknown = recalled(plain(tree), str(path))
        if not unknown:
            raise
        _tell_unknown(path, unknown)
        return _changed(recipe, overrides)


def _tell_unknown(path: Path, keys: Sequence[str]) -> None:
    more = " ..." if len(keys) > 5 else ""
    terminal.say(f"warning: {path}: of another version of segkd: {', '.join(keys[:5])}{more}: not known here, left out")


def of_student(student: LoadedStudent, recipe: DistillRecipe | TeachRecipe | None = None) -> Model:
    """A loaded student (or a network that a teach recipe made) with what its recipe says about measuring."""
    classes = catalogue.known_as(student.names) or Classes("custom", student.names, student.palette)
    known = "its preprocess.json" if student.size_known else "segkd's rule: its preprocess.json names no size"
    model = Model(student, classes, student.mean, student.std, size=(student.shorter_side or "original", known))
    if recipe is None:
        return model
    who: Who = "teacher" if isinstance(recipe, TeachRecipe) else "student"
    return replace(model, recipe=recipe, who=who, size=model.size if student.size_known else _size_in(recipe))


def _of(network: nn.Module, recipe: DistillRecipe | TeachRecipe, who: Who) -> Model:
    """A network of a recipe, with what that says of it."""
    block = model_of(recipe)
    classes = catalogue.class_map(*block.mapped_classes).student
    return Model(network.eval(), classes, block.mean, block.std, recipe, who, _size_in(recipe))


def _size_in(recipe: DistillRecipe | TeachRecipe) -> tuple[Size, str]:
    return recipe.data.size, "its recipe's data.size"


def _teacher(recipe: DistillRecipe, bringing: Bringing, run: Path | None = None) -> Model:
    """The teacher of a recipe; `run`: that which the run in a folder had, and no other."""
    own, arch, weights = bringing.own, recipe.teacher.arch, recipe.teacher.weights
    if own is not None and arch.lower() != blocks.OWN:  # of a run
        raise UsageError(f"teacher.arch: the run's teacher is a {arch}, and not {own.name}; leave --teacher-file out")
    if run is not None and weights is not None:  # before its network is built, which may not even fit
        _check_same(run, weights, teacher_hash(weights))
    teacher = builders.teacher_of(recipe.teacher, bringing.trust_pickle, own)
    if run is not None and weights is None:
        _check_same(run, str(own and own.name), teacher_hash(None, lambda: teacher.network))
    with nullcontext() if own is None else own.blamed():
        try_passes(
            teacher,
            "teacher",
            builders.described(recipe.teacher),
            recipe.synth.size,
            1,
            torch.device("cpu"),
            False,
            follows=False,
        )
    return _of(teacher, recipe, "teacher")


def _check_same(run: Path, name: str, found: str | None) -> None:
    """Raises TeacherError where a teacher is another one than a run's, which knows the hash of its own."""
    known = about_run(run).get(TEACHER)
    if found is not None and known is not None and found != known:
        raise TeacherError(
            f"{name}: another network (sha256 {found[:12]}) than the teacher of {run} ({known[:12]}); bring back what it was,"
            " or name the recipe itself instead of the run"
        )


def _taught(recipe: TeachRecipe, source: str) -> Model:
    """The network in a teach recipe's output file."""
    if recipe.output is None:
        raise UsageError(f"{source}: the recipe names no output file; name the folder of its run")
    adapter = _built(recipe, recipe.model)
    load_weights(adapter.network, read_state(Path(recipe.output), made_by=source), recipe.output)
    return _of(adapter, recipe, "teacher")


def _played(path: Path, who: Who | None, overrides: Overrides, bringing: Bringing) -> Model:
    """The network in a checkpoint: the one that the headline names, averaged where there is an average."""
    state = checkpoint.load(path)
    recipe, unknown = recalled(state.get("recipe"), str(path))
    if unknown:
        _tell_unknown(path, unknown)
    recipe = _changed(recipe, overrides)
    if isinstance(recipe, DistillRecipe) and who == "teacher":
        return _teacher(recipe, bringing)
    distilled = isinstance(recipe, DistillRecipe)
    name, block = ("student", recipe.student) if distilled else ("player", recipe.model)
    adapter = _built(recipe, block)
    try:
        player = state["game"][name]
        weights, average = dict(player["network"]), dict(player["average"])
    except (KeyError, TypeError, ValueError) as error:
        raise StorageError(f"{path}: no checkpoint of a run of segkd (no weights of its {name} are in it)") from error
    best = state["game"].get("best") if recipe.run.headline == "agreement" else None
    if best:
        weights = best["network"]
    elif recipe.run.headline != "last" and average:
        inner = "module."  # of the AveragedModel, which also holds a counter
        weights = {key.removeprefix(inner): value for key, value in average.items() if key.startswith(inner)}
        weights |= player.get("statistics", {})
    load_weights(adapter, weights, str(path))
    return _of(adapter, recipe, "student" if distilled else "teacher")


def _built(recipe: DistillRecipe | TeachRecipe, block: blocks.Model | blocks.Student) -> Adapter:
    """A network of the recipe, its weights still to be loaded."""
    model = model_of(recipe)
    classes = len(catalogue.class_map(*model.mapped_classes).student)
    return Adapter(builders.network_of(block, classes, model.channels), classes, channels=model.channels)


def _changed(recipe: DistillRecipe | TeachRecipe, overrides: Overrides) -> DistillRecipe | TeachRecipe:
    """The recipe of a checkpoint with command-line values on top."""
    tree, errors = read_overrides(overrides)
    if errors:
        raise RecipeError(errors)
    return with_values(recipe, dict(_leaves(plain(tree), "")))


def _leaves(tree: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def device_and_bf16(device: str, precision: Precision) -> tuple[torch.device, bool]:
    """Device and whether networks run in bf16, resolved."""
    if not re.fullmatch(r"auto|cpu|mps|cuda(:[0-9]{1,3})?", device):
        raise UsageError(f"device {device}: expected auto, cpu, mps, cuda or cuda:N")
    if precision not in get_args(Precision):
        raise UsageError(f"precision {precision}: expected {', '.join(get_args(Precision))}")
    place = device_of(device, "--device")
    return place, bf16_of(precision, place, "--precision")
