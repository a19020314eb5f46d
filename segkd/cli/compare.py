"""`segkd compare`: methods side by side, each run in a folder of its own."""

from __future__ import annotations

from pathlib import Path

import click

from segkd.cli.options import METHOD_FILE, RECIPES, TEACHER_FILE, TRUST, Named, with_debug
from segkd.foundation import terminal
from segkd.foundation.errors import StorageError, UsageError


@click.command()
@click.argument("arguments", metavar="RECIPE... [key=value]...", required=True, **RECIPES)
@click.option("--methods", default="", metavar="A,B,...", help="METHOD or METHOD.VARIANT; default: the recipe's own.")
@click.option(
    "--seeds", type=click.IntRange(1, 1000), default=1, show_default=True, help="Runs of each: seeds 0, 1, ..."
)
@click.option("--steps", type=click.IntRange(1), help="Of each run; default: the recipe's.")
@click.option("--budget", metavar="TIME", help="Of each run, in place of steps: 15m.")
@click.option(
    "--out",
    type=Named(),
    default=Path("runs/compare"),
    show_default=True,
    help="Folder of the runs and the table.",
)
@click.option("--quiet", is_flag=True, help="No progress; the table and errors only.")
@METHOD_FILE
@TEACHER_FILE
@TRUST
@with_debug
def compare(
    arguments: tuple[str, ...], methods: str, seeds: int, steps: int | None, budget: str | None, out: Path, quiet: bool,
    method_file: Path | None, teacher_file: str | None, trust_pickle: bool,
) -> int:  # fmt: skip
    """Run methods on recipes at one budget, and rank them in one table.

    Beside the methods run: noise, kd on procedural pictures, and where there are labelled images kd on the teacher's own
    and the student trained with labels. Finished runs are not run again; processes with the same --out share the work.
    """
    from segkd.recipe.comparison import Asked, cells

    recipes = [argument for argument in arguments if Path(argument).is_file() or "=" not in argument]
    values = tuple(argument for argument in arguments if argument not in recipes)
    if not recipes:
        raise UsageError("segkd compare: names no recipe")
    if steps is not None and budget is not None:
        raise UsageError("segkd compare: --steps and --budget: give one of them")
    if not next((above for above in (out, *out.parents) if above.exists()), out).is_dir():
        raise StorageError(f"{out}: is no folder, and lies in none; name another: --out DIR")
    chosen = tuple(name.strip() for name in methods.split(",") if name.strip())
    asked = Asked(chosen, seeds, steps, budget, values, method_file, teacher_file)
    planned, lines = cells(recipes, asked, out)  # before torch: a slip is told at once

    from segkd.reporting import leaderboard
    from segkd.runs import compare as runs

    found, missing = runs.with_labelled_images(planned)
    if not quiet:
        terminal.say(*lines, *missing, f"{len(found)} runs in {out}")
    flags = runs.Flags(trust_pickle, method_file, teacher_file, quiet)
    paths: list[Path] = []  # as the last results were written

    def write(known: list[runs.Result]) -> None:
        paths[:] = leaderboard.write(known, out)

    results = runs.play(found, flags, write)
    terminal.deliver(*leaderboard.markdown(results).splitlines(), "", *paths)
    return next((result.exit_code for result in results if result.exit_code), 0)
