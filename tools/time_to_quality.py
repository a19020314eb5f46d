"""Measure how long a student takes to become a given share as good as its teacher: segkd beside the plain loop.

    python tools/time_to_quality.py [--pair RECIPE] [--who segkd|reference] [--json FILE] [key=value ...]

One student a call, on a machine that does nothing else: several seeds are several calls (run.seed=1).
"""

import json
import sys
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from segkd.cli.main import main
from segkd.cli.options import OVERRIDES
from segkd.foundation import terminal
from segkd.foundation.files import atomic_write, check_target
from segkd.machine import memory
from segkd.recipe import load


@click.command()
@OVERRIDES
@click.option(
    "--pair", default="camvid_deeplab", show_default=True, metavar="RECIPE", help="Whose networks and images."
)
@click.option(
    "--who", type=click.Choice(["segkd", "reference"]), default="segkd", show_default=True, help="Which loop."
)
@click.option("--share", type=click.FloatRange(0, 1), default=0.5, show_default=True, help="Of the teacher's mIoU.")
@click.option("--every", type=float, default=2.0, show_default=True, metavar="MINUTES", help="Between two looks.")
@click.option("--limit", type=float, default=100.0, show_default=True, metavar="MINUTES", help="When it is given up.")
@click.option("--json", "file", type=click.Path(path_type=Path), metavar="FILE", help="Write the figures as JSON.")
def quality(
    overrides: tuple[str, ...], pair: str, who: str, share: float, every: float, limit: float, file: Path | None
) -> None:
    """Time how long a student of RECIPE takes to have a share of its teacher's mIoU on data.watch."""
    recipe = load(pair, overrides, "distill")
    if file is not None:
        check_target(file)
    memory.hold()
    from segkd.benchmark.quality import time_to_quality
    from segkd.machine.device import machine

    found = time_to_quality(recipe, who, share=share, every=60 * every, limit=60 * limit, say=terminal.say)
    taken = "not reached" if found["seconds"] is None else f"{found['seconds'] / 60:.1f} minutes"
    terminal.tell(f"{share:g} of the teacher's mIoU: {taken}")
    if file is not None:
        values = {"pair": pair, "overrides": list(overrides), **found, "machine": machine()}
        atomic_write(file, json.dumps(values, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main(command=quality, name=Path(__file__).name))
