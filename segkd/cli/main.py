"""The command line. A verb imports what it needs when it runs, so that `segkd --help` and recipe checks stay quick."""

from __future__ import annotations

import os
import traceback
from collections.abc import Sequence
from typing import Any

import click
from click.exceptions import NoArgsIsHelpError

from segkd import __version__
from segkd.cli.bench import bench
from segkd.cli.data import data
from segkd.cli.exits import Session, explained, with_debug
from segkd.cli.measure import evaluate, visualize
from segkd.cli.options import run_options
from segkd.cli.recipes import recipes
from segkd.foundation import memory, terminal


def main(arguments: Sequence[str] | None = None, command: click.Command | None = None, name: str = "segkd") -> int:
    """Run a command (by default `segkd`) and return its exit code; every error is a line on stderr."""
    session = Session()
    terminal.open_closed()
    try:
        code = (command or cli).main(arguments, prog_name=name, standalone_mode=False, obj=session)
        return code if isinstance(code, int) else 0
    except NoArgsIsHelpError as error:
        terminal.say(*error.format_message().splitlines())
        return error.exit_code
    except BaseException as error:
        code, lines = explained(error)
        terminal.settle()  # the live line first
        terminal.say(*(traceback.format_exc().splitlines() if session.debug else []), *lines)
        return code
    finally:
        terminal.settle()


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="segkd", message="%(prog)s %(version)s")
@with_debug
def cli() -> None:
    """Distil a segmentation network without its training images.

    RECIPE is a file, or the name of a shipped recipe: see `segkd recipes ls`.
    """


@cli.command()
@click.option("--plan", is_flag=True, help="Only measure what the run would take: time and memory, the largest batch.")
@run_options
def distill(
    recipe: str, overrides: tuple[str, ...], resume: str, accept: tuple[str, ...], quiet: bool, trust_pickle: bool,
    plan: bool,
) -> None:  # fmt: skip
    """Distil the recipe's teacher into a student; the same command resumes."""
    from segkd import recipe as recipes

    loaded = recipes.load(recipe, overrides, "distill")  # before torch: a slip is told at once
    folder = loaded.run.dir
    memory.hold(sparing=loaded.run.checkpointing)
    if plan:
        from segkd import runs

        terminal.deliver(*runs.planned(loaded, trust_pickle))
        return
    from segkd import api

    summary = api.distill(recipe, overrides, resume=resume, accept=accept, quiet=quiet, trust_pickle=trust_pickle)
    if os.environ.get("RANK", "0") == "0":  # of torchrun's processes one speaks
        show_summary(folder, summary)


@cli.command()
@run_options
def teach(
    recipe: str, overrides: tuple[str, ...], resume: str, accept: tuple[str, ...], quiet: bool, trust_pickle: bool
) -> None:
    """Train a network on labelled images; the same command resumes."""
    from segkd import recipe as recipes

    folder = recipes.load(recipe, overrides, "teach").run.dir
    memory.hold()
    from segkd import api

    summary = api.teach(recipe, overrides, resume=resume, accept=accept, quiet=quiet, trust_pickle=trust_pickle)
    show_summary(folder, summary)


def show_summary(folder: str | None, summary: dict[str, Any]) -> None:
    """The plain values of a run's summary, a line each, and its audit; what was not measured is left out."""
    terminal.tell(f"{folder}:")
    for key, value in summary.items():
        if value is not None and not isinstance(value, (dict, list)):
            terminal.tell(f"  {key:<28}{f'{value:.4g}' if isinstance(value, float) else value}")
    terminal.tell(f"  {audited(summary)}")


def audited(summary: dict[str, Any]) -> str:
    """What the run opened: the files of images and data sets are counted, and procedural scenes that it trained on."""
    trained, measured = summary["real_images_for_training"], summary["real_images_for_evaluation"]
    free = (
        f"not data-free: {trained} real images trained" if trained else "data-free: no real image was opened to train"
    )
    return f"audit: {free}; {measured} to measure"


for verb in (evaluate, visualize, bench, data, recipes):
    cli.add_command(verb)
