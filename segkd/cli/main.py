"""The command line. A verb imports what it needs when it runs, so that `segkd --help` and recipe checks stay quick."""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Sequence

import click
from click.exceptions import NoArgsIsHelpError

from segkd import __version__
from segkd.cli.bench import bench
from segkd.cli.compare import compare
from segkd.cli.compress import compress
from segkd.cli.data import data
from segkd.cli.doctor import doctor
from segkd.cli.exits import explained
from segkd.cli.export import export
from segkd.cli.inspect import inspect
from segkd.cli.ls import ls
from segkd.cli.measure import evaluate, visualize
from segkd.cli.options import Session, with_debug
from segkd.cli.recipes import recipes
from segkd.cli.record import record
from segkd.cli.report import report
from segkd.cli.run import distill, teach
from segkd.foundation import terminal


def main(arguments: Sequence[str] | None = None, command: click.Command | None = None, name: str = "segkd") -> int:
    """Run a command (by default `segkd`) and return its exit code; every error is a line on stderr."""
    session = Session()
    terminal.open_closed()
    shown, warnings.showwarning = warnings.showwarning, terminal.warn
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
        warnings.showwarning = shown


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="segkd", message="%(prog)s %(version)s")
@with_debug
def cli() -> None:
    """Distil a segmentation network without its training images.

    RECIPE is a file, or the name of a shipped recipe: see `segkd recipes ls`.
    """


for verb in (
    distill,
    teach,
    compress,
    compare,
    inspect,
    record,
    evaluate,
    visualize,
    export,
    report,
    ls,
    bench,
    data,
    recipes,
    doctor,
):
    cli.add_command(verb)
