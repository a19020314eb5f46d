"""The runs that a comparison of methods is made of, each an ordinary run with a folder of its own. Nothing is run here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from segkd.foundation.errors import RecipeError, UsageError
from segkd.recipe.blocks import DistillRecipe, TeachRecipe
from segkd.recipe.loading import read, unset_root, with_values
from segkd.recipe.sources import recipe_name
from segkd.recipe.terms import Terms, method_terms, variant_of

TAKEN = ("method", "variant", "run.seed", "run.dir", "run.steps", "run.budget")
"""What the flags of a comparison say of each of its runs."""
NOISE, PICTURES, ORIGINALS, LABELS = "noise", "kd (procedural pictures)", "kd (original images)", "labels"
BASELINES = (NOISE, PICTURES, ORIGINALS, LABELS)
DRAWN = ("synth.kind=pictures", "synth.pictures=[leaves, streets, rooms]")


@dataclass(frozen=True)
class Cell:
    """One run: a row of the table for one seed.

    Attributes:
        recipe: the name of the recipe that is compared.
        row: what is compared there, in words: the method with its variant, or a baseline.
        method: of `distill`, by its name; None for a student that is taught with labels.
        source, values: what the command of the run takes.
        resolved: its recipe, complete.
    """

    recipe: str
    row: str
    method: str | None
    source: str
    values: tuple[str, ...]
    resolved: DistillRecipe | TeachRecipe

    @property
    def verb(self) -> Literal["distill", "teach"]:
        """The command that runs it."""
        return "teach" if self.method is None else "distill"

    @property
    def seed(self) -> int:
        """All its randomness follows from it."""
        return self.resolved.run.seed

    @property
    def folder(self) -> Path:
        """The run's own."""
        return Path(str(self.resolved.run.dir))


@dataclass(frozen=True)
class Asked:
    """What a comparison is asked for: `methods` as `NAME` or `NAME.VARIANT`, none for the recipes' own."""

    methods: tuple[str, ...] = ()
    seeds: int = 1
    steps: int | None = None
    budget: str | None = None
    values: tuple[str, ...] = ()
    method_file: Path | None = None
    teacher: str | None = None


def cells(sources: Sequence[str], asked: Asked, out: Path) -> tuple[list[Cell], list[str]]:
    """All runs of a comparison, those of a seed together, and lines on what is left out.

    Besides the methods each recipe has the floor (`noise`) and `kd` on procedural pictures; where it has labelled images, too, `kd`
    on the teacher's own training images, and the student that is taught with their labels, as many updates on as many images.

    Raises:
        RecipeError: a line for each mistake in any of them.
        UsageError: a value that a flag says, a recipe or method twice, or an unknown method.
    """
    for value in asked.values:
        key = value.partition("=")[0].strip()
        if key in TAKEN:
            flag = {"method": "--methods", "variant": "--methods", "run.seed": "--seeds", "run.dir": "--out"}
            raise UsageError(f"{key}: segkd compare sets it itself: use {flag.get(key, '--steps or --budget')}")
    _check_methods(asked)
    names = [recipe_name(source) for source in sources]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UsageError(f"{twice}: two recipes of this name; a comparison keeps its runs by their names")
    found: list[Cell] = []
    lines: list[str] = []
    errors: list[str] = []
    for source, name in zip(sources, names, strict=True):
        rows, wrong, notes = _rows(source, name, asked, out / name)
        found += rows
        errors += wrong
        lines += notes
    if errors:
        raise RecipeError(dict.fromkeys(errors))
    return [_seeded(cell, seed) for seed in range(asked.seeds) for cell in found], list(dict.fromkeys(lines))


def _known(asked: Asked) -> Mapping[str, Terms]:
    """The methods that may be named."""
    return method_terms(extra=() if asked.method_file is None else [asked.method_file])


def _check_methods(asked: Asked) -> None:
    known = _known(asked)
    for method in asked.methods:
        if method.partition(".")[0] not in known:
            raise UsageError(
                f"--methods {method}: unknown method; expected one of {', '.join(known)}, or METHOD.VARIANT"
            )
        if asked.methods.count(method) > 1:
            raise UsageError(f"--methods {method}: named twice")
    if asked.method_file is not None and asked.method_file.stem not in {m.partition(".")[0] for m in asked.methods}:
        raise UsageError(f"{asked.method_file}: none of --methods is {asked.method_file.stem}: name it there")


def _rows(source: str, name: str, asked: Asked, out: Path) -> tuple[list[Cell], list[str], list[str]]:
    """The cells of a recipe for seed 0, the mistakes in them, and lines on those that cannot be."""
    found: list[Cell] = []
    errors: list[str] = []
    lines: list[str] = []
    for row, chosen in _asked_rows(source, asked):
        values = (*asked.values, *chosen, *_length(asked), f"run.dir={out / row.translate(_PLAIN)}", "run.seed=0")
        method = chosen[0].removeprefix("method=")
        own = asked.method_file if asked.method_file is not None and method == asked.method_file.stem else None
        try:
            loaded = read(source, values, "distill", method_file=own, own_teacher=asked.teacher)
        except RecipeError as error:
            errors += error.errors
            continue
        recipe = loaded.recipe
        assert isinstance(recipe, DistillRecipe)
        if row == ORIGINALS and (why := _without_labels(recipe)):
            lines.append(f"{name}: {ORIGINALS} and {LABELS} left out: {why}")
            continue
        variant = variant_of(recipe, _known(asked)[recipe.method].variants)
        label = f"{recipe.method} ({variant})" if variant and row not in BASELINES else row.partition(".")[0]
        if label in (cell.row for cell in found):
            errors.append(f"--methods {row}: is {label}, which is named otherwise, too")
        found.append(Cell(name, label, recipe.method, source, values, recipe))
        lines += loaded.notes
        if row == ORIGINALS and recipe.teacher.student_classes:
            lines.append(f"{name}: {LABELS} left out: the student's classes are not those of {recipe.data.name}")
        elif row == ORIGINALS:
            found.append(Cell(name, LABELS, None, "", (), _taught(recipe, out / LABELS)))
    return found, errors, lines


def _seeded(cell: Cell, seed: int) -> Cell:
    """The cell with another seed, in the folder for it."""
    folder = f"{cell.folder}-s{seed}"
    recipe = with_values(cell.resolved, {"run.seed": seed, "run.dir": folder})
    if cell.method is None:
        return replace(cell, source=f"{folder}.yaml", resolved=recipe)
    values = tuple(value for value in cell.values if not value.startswith(("run.seed=", "run.dir=")))
    return replace(cell, values=(*values, f"run.seed={seed}", f"run.dir={folder}"), resolved=recipe)


_PLAIN = str.maketrans({" ": "_", "(": None, ")": None})


def _asked_rows(source: str, asked: Asked) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The names of the rows and the values that choose them; a method that is a baseline is not run twice."""
    for method in asked.methods or (_own_method(source, asked),):
        kind, _, variant = method.partition(".")
        if method not in ("noise", "kd"):
            yield method, (f"method={kind}", *((f"variant={variant}",) if variant else ()))
    yield NOISE, ("method=noise", "synth.kind=noise")
    yield PICTURES, ("method=kd", *DRAWN)
    yield ORIGINALS, ("method=kd", "synth.kind=images")


def _own_method(source: str, asked: Asked) -> str:
    recipe = read(source, asked.values, "distill", own_teacher=asked.teacher).recipe
    assert isinstance(recipe, DistillRecipe)
    return recipe.method + (f".{recipe.variant}" if recipe.variant else "")


def _length(asked: Asked) -> tuple[str, ...]:
    if asked.steps is not None:
        return (f"run.steps={asked.steps}", "run.budget=null")
    return () if asked.budget is None else (f"run.budget={asked.budget}",)


def _without_labels(recipe: DistillRecipe) -> str | None:
    """Why a recipe has no labelled images to train on; None: it has some."""
    data = recipe.data
    if data.name is None:
        return "data.name is null, and they take labelled images"
    if data.root is not None and unset_root(data.root):
        return f"{data.name} is in {data.root}, and SEGKD_DATA is not set"
    return None


def _taught(recipe: DistillRecipe, folder: Path) -> TeachRecipe:
    """The recipe's student from labels, with as many updates of as many images of the size, optimiser and schedule that it has."""
    student, run = recipe.student, recipe.run.model_dump()
    start = None if student.weights in ("none", "teacher") else student.weights
    model: dict[str, Any] = {
        "arch": student.arch,
        "encoder": student.encoder,
        "options": student.options,
        "weights": start,
    }
    model |= {"classes": recipe.teacher.classes, "mean": recipe.teacher.mean, "std": recipe.teacher.std}
    train = {
        "crop": recipe.synth.size,
        "optimizer": student.optimizer,
        "schedule": student.schedule,
        "ema": student.ema,
    }
    steps = None if run["steps"] is None else run["steps"] * recipe.game.student_moves
    rhythm = {
        key: _as_often(run[key], recipe.game.student_moves) for key in ("save_every", "eval_every", "sample_every")
    }
    data = recipe.data.model_dump() | {"train": recipe.synth.split}
    given = {"model": model, "train": train, "data": data, "run": run | rhythm | {"steps": steps, "dir": str(folder)}}
    return TeachRecipe.model_validate(given)


def _as_often(every: int | str, moves: int) -> int | str:
    """A rhythm of steps of many updates, for steps of one."""
    return every * moves if isinstance(every, int) else every
