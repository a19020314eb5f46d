"""`segkd eval` and `segkd visualize`: what a trained network reaches, and what it draws."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from segkd.cli.options import (
    DATA_SETS,
    DEVICE,
    OVERRIDES,
    PRECISION,
    SIZE,
    SLIDE,
    TEACHER_FILE,
    TRUST,
    WHO,
    Named,
    with_debug,
)
from segkd.foundation import terminal


@click.command("eval")
@click.argument("model")
@OVERRIDES
@click.option("--data", type=DATA_SETS, help="Data set; default: as in the recipe.")
@click.option("--root", metavar="DIR", help="Its folder; scenes need none.")
@click.option(
    "--split", metavar="NAME", help="Default: the recipe's data.final, or test (val where test has no labels)."
)
@SIZE
@click.option(
    "--against", metavar="MODEL",
    help="Also the agreement with this network (a recipe's or run's teacher, or a student); needs no labels.",
)  # fmt: skip
@SLIDE
@click.option("--scales", metavar="S,S,...", help="Average over scales of the image, as 0.75,1,1.25.")
@click.option("--flip", is_flag=True, help="Average over the image and its mirror image.")
@WHO
@click.option("--json", "json_file", type=Named(), metavar="FILE", help="Write the scores as JSON.")
@click.option("--csv", "csv_file", type=Named(), metavar="FILE", help="Write the table as CSV.")
@click.option("--confusion", type=Named(), metavar="FILE.png", help="Draw the confusion matrix.")
@DEVICE
@PRECISION
@TRUST
@TEACHER_FILE
@with_debug
def evaluate(
    model: str, overrides: tuple[str, ...], data: str | None, root: str | None, split: str | None, size: Any,
    against: str | None, slide: str | None, scales: str | None, flip: bool, who: Any, json_file: Path | None, csv_file: Path | None,
    confusion: Path | None, device: str, precision: Any, trust_pickle: bool, teacher_file: str | None,
) -> None:  # fmt: skip
    """Measure the mIoU of MODEL on labelled images, or its agreement with another network on any images.

    MODEL is a student folder, a run folder, a checkpoint, or a recipe with --who teacher. With --against MODEL and
    --data folder --root DIR, where DIR holds no dataset.yaml, all images in DIR and below it are compared on.
    """
    from segkd.foundation.files import atomic_write, check_target

    files = [file for file in (json_file, csv_file, confusion) if file is not None]
    for file in files:
        check_target(file, ".png" if file is confusion else "")
    if len({file.absolute() for file in files}) < len(files):
        raise click.UsageError("--json, --csv and --confusion: name a file for each")
    with terminal.Live("loading torch and the network"):
        from segkd.evaluation.confusion import save_confusion
        from segkd.evaluation.inference import Inference
        from segkd.runs.evaluate import evaluate as measure
        from segkd.runs.trained import load_guide, load_model, own_teacher

        inference = Inference.parsed(slide, scales, flip)
        own = own_teacher(teacher_file, who, against)
        loaded = load_model(model, who, overrides, trust_pickle, own if who == "teacher" else None)
        guide = None if against is None else load_guide(against, trust_pickle, own)
    with terminal.Live("measuring", "images") as live:
        scores = measure(
            loaded, data=data, root=root, split=split, size=size, inference=inference, against=guide,
            confusion=confusion is not None, device=device, precision=precision, progress=live.update,
        )  # fmt: skip
    if json_file is not None:
        atomic_write(json_file, as_json(scores))
    if csv_file is not None:
        atomic_write(csv_file, comma_separated(scores))
    if confusion is not None:
        save_confusion(confusion, scores)
    terminal.deliver(*table(scores))  # last: the files are there, whoever reads this


TOTALS = {"miou": "mIoU", "pixel_accuracy": "pixel accuracy", "fw_iou": "frequency-weighted IoU"}
AGREED = {"agreement": "agreement: pixels", "agreement_miou": "agreement: mean IoU"}


def table(scores: dict[str, Any]) -> list[str]:
    """Scores as lines for a terminal: IoU of each class, then the totals; `-` where there was nothing to measure.

    Agreement with another network is a column, and totals, of its own. The last lines are the notes: what size the
    network was shown comes first.
    """
    columns = [scores[key] for key in ("per_class", "agreement_per_class") if key in scores]
    totals = [{key: scores[key] for key in keys if key in scores} for keys in (TOTALS, AGREED)]
    rows = [(name, [column[name] for column in columns]) for name in columns[0]]
    labels = {**TOTALS, **AGREED}
    ends = [(labels[key], [value]) for key, value in totals[0].items()]
    ends += [(labels[key], [None, value][-len(columns) :]) for key, value in totals[1].items()]
    width = max(len(name) for name, _ in (*rows, *ends))
    lines = [_row(name, values, width) for name, values in rows]
    if len(columns) > 1 or not totals[0]:
        heads = (["IoU"] if totals[0] else []) + (["agreed"] if totals[1] else [])
        lines.insert(0, "  ".join([" " * width, *(f"{head:>6}" for head in heads)]))
    lines += ["-" * (width + 8 * len(columns)), *(_row(name, values, width) for name, values in ends)]
    size = scores["size"]
    shown = f"{size[1]}x{size[0]} pixels" if isinstance(size, list) else "several sizes"
    names = scores["absent" if totals[0] else "agreement_absent"]
    absent = f"; absent: {', '.join(names)}" if names else ""
    return [*lines, f"{scores['images']} images of {shown}{absent}", *scores["notes"]]


def _row(name: str, values: Sequence[float | None], width: int) -> str:
    return "  ".join([f"{name:<{width}}", *(f"{'-' if value is None else f'{value:.4f}':>6}" for value in values)])


def as_json(scores: dict[str, Any]) -> str:
    """Scores as JSON, each list of numbers (a row of the confusion matrix) on a line."""
    import json
    import re

    text = json.dumps(scores, indent=2)
    return re.sub(r"\[\n([\d\s,.]+)\]", lambda numbers: f"[{' '.join(numbers[1].split())}]", text) + "\n"


def comma_separated(scores: dict[str, Any]) -> str:
    """Scores as CSV: a row for each class (empty where there was nothing to measure), then the totals."""
    import csv
    import io

    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    columns = {
        name: key for name, key in (("iou", "per_class"), ("agreement_iou", "agreement_per_class")) if key in scores
    }
    tables = [scores[key] for key in columns.values()]
    writer.writerow(["class", *columns])
    writer.writerows([name, *(table[name] for table in tables)] for name in tables[0])
    for keys, place in ((TOTALS, 0), (AGREED, len(tables) - 1)):
        for key, label in keys.items():
            if key in scores:
                writer.writerow([label, *([None] * place), scores[key], *([None] * (len(tables) - 1 - place))])
    return buffer.getvalue()


@click.command()
@click.argument("model")
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True)
@click.option(
    "--out", type=Named(), required=True, metavar="DIR", help="Folder for the drawings; made if it is missing."
)
@click.option("--teacher", metavar="MODEL", help="A second network, drawn beside the first.")
@click.option(
    "--masks",
    type=click.Path(exists=True, file_okay=False),
    metavar="DIR",
    help="Ground truth, of the images' names; of the ids or colours that a dataset.yaml there or above says.",
)
@click.option(
    "--kind", type=click.Choice(["panel", "mask", "overlay"]), default="panel", show_default=True,
    help="All side by side with a legend, a palette PNG of class ids, or the image tinted.",
)  # fmt: skip
@click.option(
    "--range", "value_range", metavar="LOW,HIGH", help="Values of 16-bit images that are black and white, as 0,4095."
)
@click.option("--megapixels", type=click.IntRange(1, 4000), help="The most that an image may have; default: 64.")
@SIZE
@SLIDE
@WHO
@DEVICE
@PRECISION
@TRUST
@TEACHER_FILE
@with_debug
def visualize(
    model: str, images: tuple[str, ...], out: Path, teacher: str | None, masks: str | None, kind: Any, size: Any, slide: str | None,
    who: Any, value_range: str | None, megapixels: int | None, device: str, precision: Any, trust_pickle: bool, teacher_file: str | None,
) -> None:  # fmt: skip
    """Draw the masks that MODEL gives to images, named one by one or by their folder, with all below it.

    MODEL is a student folder, a run folder, a checkpoint, or a recipe with --who teacher.
    """
    with terminal.Live("loading torch and the network"):
        from segkd.data.photos import Reading
        from segkd.evaluation.inference import Inference
        from segkd.runs.trained import load_guide, load_model, own_teacher
        from segkd.runs.visualize import Job, plan_drawings
        from segkd.runs.visualize import visualize as draw

        reading, inference = Reading.parsed(value_range, megapixels), Inference.parsed(slide, None, False)
        own = own_teacher(teacher_file, who, teacher)
        loaded = load_model(model, who, trust_pickle=trust_pickle, own=own if who == "teacher" else None)
        guide = None if teacher is None else load_guide(teacher, trust_pickle, own)
        terminal.doing("looking at the images")
        jobs = plan_drawings(
            images, out, kind, loaded.classes, masks, mapping=loaded.mapping, reading=reading, note=terminal.say
        )
    drawn: list[Job] = []
    with terminal.Live("drawing", "images") as live:

        def done(job: Job) -> None:
            drawn.append(job)
            terminal.tell(f"{job.image} -> {job.out}")
            live.update(len(drawn), len(jobs))

        notes = draw(
            loaded, jobs, kind, teacher=guide, size=size, inference=inference, device=device, precision=precision, done=done,
            failed=terminal.say,
        )  # fmt: skip
    for note in notes:
        terminal.tell(note)
