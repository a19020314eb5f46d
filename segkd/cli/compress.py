"""`segkd compress`: from a teacher to a file of its student, in one command and one folder."""

from __future__ import annotations

from pathlib import Path

import click

from segkd.cli.closing import closing
from segkd.cli.export import told
from segkd.cli.options import TEACHER, TEACHER_FILE, TRUST, Named, teacher_and_values, with_debug
from segkd.foundation import terminal
from segkd.machine import memory


@click.command()
@TEACHER
@click.option(
    "--student", metavar="ARCH:ENCODER", help="As deeplabv3plus:mobilenet_v2, or segnet; default: the recipe's."
)
@click.option("--budget", metavar="TIME", help="Of its training: 2h; default: as long as the recipe says.")
@click.option(
    "--out",
    type=Named(),
    required=True,
    help="A new folder, or that of the same compression, which goes on.",
)
@click.option(
    "--format", "kind", type=click.Choice(["onnx", "pt2"]), default="onnx", show_default=True, help="Of the file."
)
@click.option("--int8", is_flag=True, help="Beside it a file with 8-bit weights and activations (ONNX).")
@click.option(
    "--images",
    type=Named(),
    metavar="FOLDER",
    help="Photos without labels: student and file are tried on them, too.",
)
@click.option("--quiet", is_flag=True, help="No progress; the result and errors only.")
@TEACHER_FILE
@TRUST
@with_debug
def compress(
    arguments: tuple[str, ...], student: str | None, budget: str | None, out: Path, kind: str, int8: bool, images: Path | None,
    quiet: bool, teacher_file: str | None, trust_pickle: bool,
) -> None:  # fmt: skip
    """Make a small network of a teacher, and a file of it: inspect, distil, compare, export, report.

    TEACHER is a recipe, or weights (a file, a folder, hf://OWNER/NAME) that teacher.arch=, teacher.classes= and others describe.
    OUT holds the recipe that was written, the run, the export and report.html. The same command goes on where it was stopped.
    """
    from segkd.recipe import load
    from segkd.recipe.compression import Asked

    teacher, values = teacher_and_values("compress", arguments, teacher_file)
    asked = Asked(teacher, student, budget, values, teacher_file)
    # before torch: a slip is told at once
    draft = load(asked.tree(out, asked.first), (), "distill", own_teacher=teacher_file)
    memory.hold(sparing=draft.run.checkpointing)
    with terminal.Live("preparing: loading torch", quiet=quiet):
        from segkd import api
        from segkd.reporting.report import PAGE
        from segkd.runs.compress import EXPORTED, recipe_in

        found = api.compress(
            teacher, values, out=out, student=student, budget=budget, format=kind, int8=int8, images=images, quiet=quiet,
            trust_pickle=trust_pickle, teacher_file=teacher_file,
        )  # fmt: skip
    recipe, agreed = recipe_in(out, teacher_file), found.get("agreement")
    photos = (
        []
        if agreed is None
        else ["", f"{agreed['images']} photos: agreement with the teacher {agreed['agreement']:.4f}"]
    )
    terminal.tell(*closing(recipe, found["summary"]), *photos, "")
    terminal.deliver(*told(out / EXPORTED, found["export"]), f"{out / PAGE} shows it all")
