"""`segkd doctor`: this machine and this environment."""

from __future__ import annotations

from pathlib import Path

import click

from segkd.cli.options import Named, with_debug
from segkd.foundation import terminal


@click.command()
@click.argument("folder", type=Named(), default=Path("runs"))
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@with_debug
def doctor(folder: Path, as_json: bool) -> int:
    """Look at what makes runs slower or go wrong here; FOLDER (runs) is where they would be written.

    Exit code 3 where something has to be mended.
    """
    import json
    from dataclasses import asdict

    with terminal.Live("loading torch"):
        from segkd.runs.doctor import findings

        found = findings(folder)
    if as_json:
        terminal.deliver(*json.dumps([asdict(each) for each in found], indent=2).splitlines())
    else:
        width = max(len(each.name) for each in found)
        terminal.deliver(*(f"{each.state:<5}  {each.name:<{width}}  {each.words}" for each in found))
    return 3 if any(each.state == "wrong" for each in found) else 0
