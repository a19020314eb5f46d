"""What a person reads at the end of a run: teacher and student side by side, where things lie, and what to do next."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from segkd.foundation.channels import FROM_PYTHON, READ
from segkd.foundation.terminal import spoken

if TYPE_CHECKING:
    from segkd.recipe import DistillRecipe, Recipe, TeachRecipe

Row = tuple[str, str, str, str]


def closing(recipe: Recipe, summary: dict[str, Any]) -> list[str]:
    """The lines for a run's summary; what was not measured is said to be so."""
    from segkd.recipe import DistillRecipe
    from segkd.runs.folder import PAGE

    folder, distilled = str(recipe.run.dir), isinstance(recipe, DistillRecipe)
    rows = side_by_side(recipe, summary) if distilled else taught(recipe, summary)
    made = f"{folder}/student" if distilled else f"{folder}/model"
    places = [("student" if distilled else "network", made)]
    if distilled:
        places.append(("samples", f"{folder}/samples: synthetic image | teacher | student | where they differ"))
    elif recipe.output is not None:
        places.append(("weights", recipe.output))
    places.append(("figures", f"{folder}/summary.json"))
    if os.path.isfile(page := f"{folder}/{PAGE}"):
        places.append(("report", page))
    places.append(("audit", audited(recipe, summary)))
    return [
        f"{folder}: {took(summary)}", "",
        *columns(rows), "",
        *(f"  {name}: {what}" for name, what in places),
        *unmeasured(recipe, summary), "",
        "next:", *(f"  {line}" for line in following(recipe, made, summary.get("student_miou") is not None)),
    ]  # fmt: skip


def took(summary: dict[str, Any]) -> str:
    """How long the run took, and with what."""
    refused = summary.get("refused_moves") or 0
    troubles = [f"{refused} updates refused"] if refused else []
    back = summary.get("rollbacks") or 0
    troubles += [f"{back} rollback{'s' if back > 1 else ''}"] if back else []
    precision, machine = summary.get("precision", ""), summary.get("machine", "")
    return ", ".join(
        [f"{summary['steps']:,} steps in {spoken(summary['seconds'])}", f"{summary['peak_memory_mb']:,} MB at most",
         *filter(None, (precision, machine)), *troubles]
    )  # fmt: skip


def side_by_side(recipe: DistillRecipe, summary: dict[str, Any]) -> list[Row]:
    """A row for each thing that is known of teacher and student, with what the two say together."""
    teacher, student = summary.get("teacher_miou"), summary.get("student_miou")
    recovery = summary.get("recovery")
    height, width = recipe.synth.size
    rows: list[Row] = [("", "teacher", "student", "")]
    measured = f"mIoU, {recipe.data.name} {recipe.data.final}" if student is not None else "mIoU"
    shares = "" if recovery is None else f"{100 * recovery:.1f} % of the teacher's (recovery)"
    rows.append((measured, score(teacher), score(student), shares))
    for label, key, unit, scale in (
        ("parameters", "parameters", "M", 1e6),
        (f"operations, {width}x{height}", "flops", "GFLOPs", 1e9),
    ):
        theirs, ours = summary.get(f"teacher_{key}"), summary.get(f"student_{key}")
        ratio = f"{theirs / ours:.1f} times fewer" if theirs and ours and theirs > ours else ""
        rows.append((label, amount(theirs, unit, scale), amount(ours, unit, scale), ratio))
    if summary.get("agreement") is not None:
        rows.append(
            ("agreement", "", score(summary["agreement"]), "share of pixels of synthetic images with one class")
        )
    return rows


def taught(recipe: TeachRecipe, summary: dict[str, Any]) -> list[Row]:
    """The rows of a network that was taught from labels."""
    best = summary.get("best_step")
    return [
        (f"mIoU, {recipe.data.name} {recipe.data.final or ''}".strip(), score(summary.get("student_miou")), "",
         "" if best is None else f"the weights of step {best:,}"),
        ("parameters", amount(summary.get("student_parameters"), "M", 1e6), "", ""),
        ("operations", amount(summary.get("student_flops"), "GFLOPs", 1e9), "", ""),
    ]  # fmt: skip


def columns(rows: Iterable[Row]) -> list[str]:
    """Rows as lines: the first column to the left, figures to the right, words after them."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    aligned = [
        [
            f"{cell:{'<' if at in (0, 3) else '>'}{width}}"
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
            if width
        ]
        for row in rows
    ]
    return ["  " + "  ".join(cells).rstrip() for cells in aligned]


def unmeasured(recipe: Recipe, summary: dict[str, Any]) -> list[str]:
    """What was not measured, why, and the commands that would."""
    from segkd.data import catalogue

    if summary.get("student_miou") is not None:
        return []
    if not _reads(recipe):
        return [f"  not measured: mIoU, since {FROM_PYTHON}"]
    data, folder = recipe.data, shlex.quote(str(recipe.run.dir))
    if data.name is None or data.final is None:
        why = "the recipe names no labelled images"
    elif "${SEGKD_DATA}" in str(data.root) and not os.environ.get("SEGKD_DATA"):
        why = "SEGKD_DATA is not set"
    else:
        why = "there were no labelled images"
    name = data.name or "NAME"
    fetched = data.name is not None and catalogue.reader(data.name).public
    prepare = [f"segkd data prepare {name} --root DIR"] if fetched else []
    commands = " && ".join([*prepare, f"segkd eval {folder} --data {name} --root DIR"])
    return [f"  not measured: mIoU, since {why}; this measures it: {commands}"]


def audited(recipe: Recipe, summary: dict[str, Any]) -> str:
    """What the run opened: the files of images and data sets are counted; procedural pictures that measured are no files."""
    from segkd.data import catalogue

    trained, measured = summary["real_images_for_training"], f"{summary['real_images_for_evaluation']} to measure"
    data = recipe.data
    if summary.get("student_miou") is not None and catalogue.reader(data.name).obtained is None:
        counts = catalogue.reader(data.name).counts
        measured = f"{sum(counts.get(split, 0) for split in {data.watch, data.final}):,} procedural pictures to measure"
    free = (
        f"not data-free: {trained} real images trained" if trained else "data-free: no real image was opened to train"
    )
    recorded = summary.get("statistics_recorded_from")
    return f"{free}; {measured}" + (f"; statistics recorded from {recorded} images" if recorded else "")


def following(recipe: Recipe, made: str, measured: bool) -> list[str]:
    """The commands that somebody who has read so far may want."""
    from segkd.recipe import DistillRecipe
    from segkd.recipe.blocks import OWN

    folder = shlex.quote(str(recipe.run.dir))
    own = isinstance(recipe, DistillRecipe) and recipe.teacher.arch.lower() == OWN
    against = f"{folder} --teacher-file FILE:FUNCTION" if own else folder
    unlabelled = f"segkd eval {folder} --data folder --root PHOTOS --against {against}  # agreement with the teacher"
    on_files = [
        *([f"segkd eval {folder}"] if measured else [unlabelled] if isinstance(recipe, DistillRecipe) else []),
        f"segkd visualize {folder} IMAGE_OR_FOLDER --out drawings",
    ]
    lines = [
        *(on_files if _reads(recipe) else []),
        f"from segkd import load_student; masks = load_student({made!r}).predict(images)  # Python",
    ]
    if not isinstance(recipe, DistillRecipe) and recipe.output is not None:
        lines.append(f"segkd distill RECIPE teacher.weights={shlex.quote(str(recipe.output))}")
    return lines


def _reads(recipe: Recipe) -> bool:
    """Whether segkd reads the images that the networks of a run take."""
    from segkd.recipe import DistillRecipe

    return (recipe.teacher if isinstance(recipe, DistillRecipe) else recipe.model).channels in READ


def score(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def amount(value: float | None, unit: str, scale: float) -> str:
    return "-" if value is None else f"{value / scale:.2f} {unit}"
