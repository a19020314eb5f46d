"""`segkd ls`: the runs of a folder."""

from __future__ import annotations

from pathlib import Path

import click

from segkd.cli.options import Named, with_debug
from segkd.foundation import terminal


@click.command()
@click.argument("folder", type=Named(), default=Path("runs"))
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@with_debug
def ls(folder: Path, as_json: bool) -> None:
    """List the runs in FOLDER (runs): how far each is, and what it has reached."""
    from segkd.reporting import listing

    found = listing.runs(folder)
    if as_json:
        terminal.deliver(*listing.as_json(found).splitlines())
    elif found:
        terminal.deliver(*listing.table(found))
    else:
        terminal.say(f"{folder}: holds no run")
