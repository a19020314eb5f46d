"""`segkd data`: public data sets brought into their layout, and any data set checked file by file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from segkd.cli.options import DATA_SETS, Named, with_debug
from segkd.foundation import terminal
from segkd.foundation.errors import DataError

QUIET = click.option("--quiet", is_flag=True, help="No progress; the result and errors only.")


@click.group()
@with_debug
def data() -> None:
    """Bring public data sets into their layout, and check every file of one."""


@data.command()
@click.argument("name", type=DATA_SETS)
@click.option("--root", required=True, type=Named(file_okay=False), metavar="DIR", help="Its folder.")
@click.option(
    "--from", "source", metavar="FILE|DIR|URL",
    help="Instead of the public address: a folder, zip or tar of the public files, or NYUv2's large .mat file.",
)  # fmt: skip
@QUIET
@with_debug
def prepare(name: Any, root: Path, source: str | None, quiet: bool) -> None:
    """Download a public data set, or take it from a file, and lay it out under DIR.

    The same command goes on where it was interrupted. Of a set that needs an account, a line says
    where it is to be had. CamVid: CC BY-NC 4.0; NYUv2: for research; see their sites.
    """
    from segkd.data.prepare import prepare as bring

    with Bars(quiet) as bars:
        new = bring(name, root, source, say=bars.say, progress=bars)
    if new:
        terminal.tell(f"{root}: prepared; downloads/ may be deleted")
    else:
        terminal.tell(f"{root}: prepared already; segkd data verify {name} --root {root} checks it")


@data.command()
@click.argument("name", type=DATA_SETS)
@click.option("--root", required=True, type=Named(), metavar="DIR", help="Its folder.")
@click.option("--split", "splits", multiple=True, metavar="NAME", help="Only this split; may be repeated.")
@QUIET
@with_debug
def verify(name: Any, root: Path, splits: tuple[str, ...], quiet: bool) -> None:
    """Read every image and mask under DIR: counts, sizes, ids, pairs. Exit code 3, and a line for each bad file."""
    from segkd.data.verify import verify as check

    with Bars(quiet) as bars:
        found = check(name, root, splits, progress=lambda done, total: bars("images", done, total))
    terminal.deliver(*found.splits, *found.problems)
    if found.problems:
        raise DataError(f"{root}: {len(found.problems)} problem{'s' if len(found.problems) > 1 else ''}, named above")


class Bars:
    """Progress on a terminal, one live line after the other, and lines between them."""

    def __init__(self, quiet: bool) -> None:
        self.quiet, self._live = quiet, terminal.Live(quiet=True)

    def __enter__(self) -> Bars:
        return self

    def __exit__(self, *error: object) -> None:
        self._live.end()

    def __call__(self, what: str, done: int, total: int | None) -> None:
        if self._live.what != what:
            self._live.end()
            self._live = terminal.Live(what, "B" if "." in what else "files", quiet=self.quiet).begin()
        self._live.update(done, total)

    def say(self, line: str) -> None:
        self._live.end()
        self._live = terminal.Live(quiet=True)
        if not self.quiet:
            terminal.tell(line)
