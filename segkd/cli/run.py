"""`segkd distill` and `segkd teach`: what comes is said before torch is loaded, and at the end what was reached."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from segkd.cli.closing import closing
from segkd.cli.options import METHOD_FILE, TEACHER_FILE, run_options
from segkd.foundation import terminal
from segkd.machine import memory

if TYPE_CHECKING:
    from segkd.recipe import DistillRecipe, Recipe


@click.command()
@click.option("--plan", is_flag=True, help="Only measure what the run would take: time and memory, the largest batch.")
@METHOD_FILE
@TEACHER_FILE
@run_options
def distill(
    recipe: str, overrides: tuple[str, ...], resume: str, accept: tuple[str, ...], quiet: bool, trust_pickle: bool,
    plan: bool, method_file: Path | None, teacher_file: str | None,
) -> None:  # fmt: skip
    """Distil the recipe's teacher into a student; the same command resumes."""
    from segkd import recipe as recipes

    # before torch: a slip is told at once
    loaded = recipes.load(recipe, overrides, "distill", method_file=method_file, own_teacher=teacher_file)

    def work(quiet: bool) -> dict[str, Any] | None:
        if plan:
            from segkd import runs
            from segkd.models.own import OwnNetwork

            own = None if teacher_file is None else OwnNetwork.in_file(teacher_file)
            options = runs.Options(trust_pickle=trust_pickle, method_file=method_file, teacher=own)
            return terminal.deliver(*runs.planned(loaded, options))
        from segkd import api

        return api.distill(
            recipe, overrides, resume=resume, accept=accept, quiet=quiet, trust_pickle=trust_pickle, method_file=method_file,
            teacher_file=teacher_file,
        )  # fmt: skip

    state = "--plan measures what it would take" if plan else folder_state(loaded, resume)
    carry_out(work, recipe, loaded, state, quiet)


@click.command()
@run_options
def teach(
    recipe: str, overrides: tuple[str, ...], resume: str, accept: tuple[str, ...], quiet: bool, trust_pickle: bool
) -> None:
    """Train a network on labelled images; the same command resumes."""
    from segkd import recipe as recipes

    loaded = recipes.load(recipe, overrides, "teach")

    def work(quiet: bool) -> dict[str, Any]:
        from segkd import api

        return api.teach(recipe, overrides, resume=resume, accept=accept, quiet=quiet, trust_pickle=trust_pickle)

    carry_out(work, recipe, loaded, folder_state(loaded, resume), quiet)


def carry_out(
    work: Callable[[bool], dict[str, Any] | None], name: str, recipe: Recipe, state: str, quiet: bool
) -> None:
    """Say what comes, do it, and say what it has reached, if there is a summary; one of several processes has a say."""
    speaks = terminal.speaks()
    quiet = quiet or not speaks
    if not quiet:
        terminal.say(opening(name, recipe, state))
    memory.hold(sparing=recipe.run.checkpointing)
    with terminal.Live("preparing: loading torch", quiet=quiet):
        summary = work(quiet)
    if speaks and summary is not None:
        terminal.tell(*closing(recipe, summary))


def opening(name: str, recipe: Recipe, state: str) -> str:
    """The first line of a run: what is trained from what, for how long, on which device, and where it is kept."""
    from segkd.recipe import DistillRecipe

    run = recipe.run
    length = f"{run.steps:,} steps" if run.budget is None else f"the steps that fit into {terminal.spoken(run.budget)}"
    what = distilled(recipe) if isinstance(recipe, DistillRecipe) else taught(recipe)
    return f"{name}: {what}, {length} of batch {run.batch}, device {run.device}; {run.dir}: {state}"


def distilled(recipe: DistillRecipe) -> str:
    from segkd.recipe import variant_of

    variant = variant_of(recipe)
    method = f"{recipe.method} ({variant})" if variant else recipe.method
    return f"distilling {network(recipe.teacher)} into {network(recipe.student)} by {method}"


def taught(recipe: Recipe) -> str:
    return f"teaching {network(recipe.model)} on {recipe.data.name}/{recipe.data.train}"


def network(block: object) -> str:
    """A network as a recipe names it."""
    unnamed = {"module": "a network of your own", "exported": "an exported program"}
    return unnamed.get(block.arch.lower()) or " ".join(filter(None, (block.arch, block.encoder)))


def folder_state(recipe: Recipe, resume: str) -> str:
    """What the run folder holds, as far as the names of its files tell."""
    from segkd.reporting.listing import saved_step

    folder = Path(recipe.run.dir)
    if resume not in ("auto", "never"):
        return f"goes on from {resume}"
    if (folder / "summary.json").is_file():
        return "was finished before"
    step = saved_step(folder)
    return f"goes on after step {step:,}" if step else "a new run"
