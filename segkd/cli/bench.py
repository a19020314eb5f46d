"""`segkd bench`: how fast a recipe distils, beside the plain loop of the literature."""

from __future__ import annotations

from pathlib import Path

import click

from segkd.cli.options import Named, with_debug


@click.command()
@click.argument("overrides", metavar="[key=value]...", nargs=-1)
@click.option(
    "--pair", default="camvid_deeplab", show_default=True, metavar="RECIPE", help="Whose networks and images."
)
@click.option("--turns", type=click.IntRange(1), default=5, show_default=True, help="Steps of each loop, in turn.")
@click.option("--json", "file", type=Named(), metavar="FILE", help="Write the figures as JSON.")
@with_debug
def bench(overrides: tuple[str, ...], pair: str, turns: int, file: Path | None) -> None:
    """Compare a recipe's steps with DFAD's plain loop on the same networks: speed, memory, and where time goes.

    A teacher whose weights are missing is given random ones. `method=dfad` compares the same computation.
    """
    import json

    from segkd.foundation import terminal
    from segkd.foundation.files import atomic_write, check_target
    from segkd.machine import memory
    from segkd.recipe import load

    recipe = load(pair, overrides, "distill")  # before torch: a slip is told at once
    if file is not None:
        check_target(file)
    memory.hold(sparing=recipe.run.checkpointing)
    from segkd.benchmark import benchmark, described

    found = {
        "pair": pair,
        "overrides": list(overrides),
        **benchmark(recipe, turns, terminal.say),
    }
    if file is not None:
        atomic_write(file, json.dumps(found, indent=1) + "\n")
    terminal.deliver(*described(found).splitlines())
