"""`segkd export`: a student as one file for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from segkd.cli.options import DATA_SETS, Named, with_debug
from segkd.foundation import terminal
from segkd.foundation.errors import UsageError
from segkd.foundation.terminal import aligned, without_empty_columns


@click.command()
@click.argument("model", type=Named())
@click.option("--out", type=Named(), required=True, help="A new folder, or that of an earlier export.")
@click.option(
    "--format",
    "kind",
    type=click.Choice(["onnx", "pt2"]),
    default="onnx",
    show_default=True,
    help="ONNX, or a program of torch.export.",
)
@click.option("--int8", is_flag=True, help="Beside it a file with 8-bit weights and activations (ONNX).")
@click.option(
    "--calibration",
    metavar="KIND",
    help="Images for --int8: generator (of the run; the default), pictures, noise, or a folder.",
)
@click.option("--with-normalisation", is_flag=True, help="The file takes numbers from 0 to 255, and normalises them.")
@click.option("--with-argmax", is_flag=True, help="The file gives class ids, not logits.")
@click.option("--images", type=Named(), metavar="FOLDER", help="Photos on which the file is tried, too.")
@click.option("--data", type=DATA_SETS, help="A labelled set on which file and student are measured.")
@click.option("--root", metavar="DIR", help="Its folder.")
@click.option("--split", help="And its split; default: test.")
@with_debug
def export(
    model: Path, out: Path, kind: str, int8: bool, calibration: str | None, with_normalisation: bool, with_argmax: bool,
    images: Path | None, data: str | None, root: str | None, split: str | None,
) -> None:  # fmt: skip
    """Write the student of MODEL (a run or student folder) for other programs, and try it against the student.

    A file that gives another class to more than a thousandth of the pixels fails, with exit code 4.
    """
    if data is None and (flag := "--root" if root is not None else split and "--split"):
        raise UsageError(f"segkd export: {flag}: name the set with --data, too")
    with terminal.Live("preparing: loading torch"):
        from segkd.runs.export import Choices, export

        measured = None if data is None else (data, root, split or "test")
        choices = Choices(kind, int8, calibration, with_normalisation, with_argmax, images, measured)
        report = export(model, out, choices)
    terminal.deliver(*told(out, report))


def told(out: Path, report: dict[str, Any]) -> list[str]:
    """The report as lines: a row for each file, and for the student and its teacher."""

    def row(name: str, found: dict[str, Any]) -> tuple[str, ...]:
        forms = {"megabytes": ".1f", "milliseconds": ".1f", "agreement": ".4f", "miou": ".4f"}
        return name, *(format(found[key], form) if key in found else "" for key, form in forms.items())

    rows = [("", "MB", "ms an image", "agreement", "mIoU")]
    rows += [row(f"{who}, PyTorch", report[who]) for who in ("teacher", "student") if who in report]
    rows += [row(name, found | {"megabytes": found["bytes"] / 1e6}) for name, found in report["files"].items()]
    beside = [f"{name}: {what}" for name, what in report["examples"].items()]
    if "teacher_left_out" in report:
        beside.insert(0, f"teacher left out: {report['teacher_left_out']}")
    where = f"{report['machine']}, {report['threads']} threads"
    return [
        *aligned(without_empty_columns(rows), texts=1),
        "",
        where,
        *beside,
        f"{out / 'export.json'} holds the figures",
    ]
