"""`segkd report`: a finished run as a page."""

from __future__ import annotations

from pathlib import Path

import click

from segkd.cli.options import Named, with_debug
from segkd.foundation import terminal


@click.command()
@click.argument("run", type=Named())
@click.option("--out", type=Named(), help="The page; default: report.html in the run's folder.")
@with_debug
def report(run: Path, out: Path | None) -> None:
    """Write what RUN, a finished run's folder, has reached, how it went and how it was made, as one self-contained page."""
    from segkd.foundation.files import atomic_write, check_target
    from segkd.reporting.report import page
    from segkd.runs.folder import PAGE

    out = run / PAGE if out is None else out
    text = page(run)
    check_target(out)
    atomic_write(out, text)
    terminal.deliver(out)
