"""`segkd inspect`: what a recipe's teacher is like, before anything is trained."""

from __future__ import annotations

from pathlib import Path

import click

from segkd.cli.options import METHOD_FILE, TEACHER, TEACHER_FILE, TRUST, Named, teacher_and_values, with_debug
from segkd.foundation import terminal


@click.command()
@TEACHER
@METHOD_FILE
@TEACHER_FILE
@TRUST
@click.option("--quick", is_flag=True, help="Leave out the time and memory of the recipe's updates.")
@click.option("--json", "json_file", type=Named(dir_okay=False), help="Write the report to a file.")
@with_debug
def inspect(
    arguments: tuple[str, ...], method_file: Path | None, teacher_file: str | None, trust_pickle: bool,
    quick: bool, json_file: Path | None,
) -> int:  # fmt: skip
    """Look at a teacher: can it be distilled, and how?

    TEACHER is a recipe, or weights (a file, a folder, hf://OWNER/NAME) that teacher.arch=, teacher.classes= and others describe.
    Green: nothing speaks against it; amber: something makes it harder; red: it cannot be, as it is (exit code 3).
    No data are needed.
    """
    from segkd import recipe as recipes
    from segkd.foundation.files import atomic_write, check_target
    from segkd.recipe.compression import source_of

    if json_file is not None:
        check_target(json_file)
    teacher, overrides = teacher_and_values("inspect", arguments, teacher_file)
    loaded = recipes.load(source_of(teacher), overrides, "distill", method_file=method_file, own_teacher=teacher_file)
    with terminal.Live("preparing: loading torch"):
        from segkd import runs
        from segkd.models.own import OwnNetwork
        from segkd.runs.inspect import inspect as look

        own = None if teacher_file is None else OwnNetwork.in_file(teacher_file)
        report = look(
            loaded, runs.Options(trust_pickle=trust_pickle, method_file=method_file, teacher=own), quick=quick
        )
    if json_file is not None:
        import json

        atomic_write(json_file, json.dumps(report.as_dict(), indent=2) + "\n")
    terminal.deliver(*report.lines())
    return 3 if report.verdict == "red" else 0
