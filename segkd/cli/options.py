"""The arguments and flags that several verbs share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from click.shell_completion import BashComplete, CompletionItem, add_completion_class

from segkd.foundation import rooms
from segkd.foundation.errors import UsageError

Function = TypeVar("Function", bound=Callable[..., Any])


class Named(click.Path):
    """A path. An empty text, which a variable that is unset leaves behind, is none: it would be the working directory."""

    def __init__(self, **options: Any) -> None:
        super().__init__(path_type=Path, **options)

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Any:
        if value == "":
            self.fail("an empty name", parameter, context)
        return super().convert(value, parameter, context)


@add_completion_class
class Bash(BashComplete):
    """click's own, but that no space comes behind a key, whose value is typed next."""

    source_template = BashComplete.source_template.replace(
        "COMPREPLY+=($value)", "COMPREPLY+=($value)\n            [[ $value == *= ]] && compopt -o nospace"
    )


def _recipes(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of shipped recipes that begin so, for the shell, and its files."""
    from segkd.recipe import shipped

    names = [CompletionItem(name) for name in shipped() if name.startswith(incomplete)]
    return [CompletionItem(incomplete, type="file"), *names]  # bash drops what came before a file


def _values(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Keys of recipes that begin so, for the shell."""
    from segkd.recipe.reference import keys

    return [CompletionItem(f"{key.name}=") for key in keys("") if key.name.startswith(incomplete)]


def _both(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return [*_recipes(context, parameter, incomplete), *(_values(context, parameter, incomplete) if incomplete else [])]


RECIPE = click.argument("recipe", shell_complete=_recipes)
RECIPES = {"nargs": -1, "shell_complete": _both}
"""Of an argument that takes recipes, and values behind them."""
DATA_SETS = click.Choice([*rooms.files(rooms.SETS)])
OVERRIDES = click.argument("overrides", metavar="[key=value]...", nargs=-1, shell_complete=_values)
TRUST = click.option(
    "--trust-pickle",
    is_flag=True,
    help="Read weights that need pickle, and exported programs: it runs the code they hold.",
)
METHOD_FILE = click.option(
    "--method-file", type=Named(), metavar="FILE",
    help="A method of your own, FILE.py for method=FILE: its code is run (docs/own_method.md).",
)  # fmt: skip
TEACHER_FILE = click.option(
    "--teacher-file", metavar="FILE:FUNCTION",
    help="A teacher of your own, as my.py:build: its code is run (docs/own_teacher.md).",
)  # fmt: skip
WHO = click.option("--who", type=click.Choice(["teacher", "student"]), help="Whose network; a recipe has its teacher.")
DEVICE = click.option(
    "--device", default="auto", show_default=True, metavar="NAME", help="auto, cpu, mps, cuda or cuda:N."
)
SIZE = click.option(
    "--size", type=click.Choice(["protocol", "original"]),
    help="Show the network a shorter side of at most 256, or images as they are; default: as it was made and measured.",
)  # fmt: skip
SLIDE = click.option(
    "--slide", metavar="HxW", help="Show windows of this size, two thirds apart; their logits are averaged."
)
PRECISION = click.option(
    "--precision", type=click.Choice(["auto", "fp32", "bf16"]), help="Of the networks; default: as in the recipe."
)


TEACHER = click.argument("arguments", metavar="TEACHER [key=value]...", **RECIPES)


def teacher_and_values(
    verb: str, arguments: tuple[str, ...], teacher_file: str | None
) -> tuple[str | None, tuple[str, ...]]:
    """What `TEACHER` says: a recipe, or weights (None: `--teacher-file` brings them), and the values behind it.

    Raises:
        UsageError: no teacher is named.
    """
    if arguments and arguments[0].endswith(".py") and os.path.isfile(arguments[0]):
        raise UsageError(f"{arguments[0]}: code, and no weights: --teacher-file {arguments[0]}:FUNCTION runs it")
    if arguments and ("=" not in arguments[0] or os.path.exists(arguments[0])):
        return arguments[0], arguments[1:]
    if teacher_file is None:
        raise UsageError(f"segkd {verb}: names no teacher: a recipe, or a file or folder of weights")
    return None, arguments


class Session:
    """What one command line says about itself; `debug` asks for tracebacks."""

    debug = False


def _set_debug(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        context.find_object(Session).debug = True


def with_debug(command: Function) -> Function:
    """`--debug`, before or after the verb."""
    return click.option(
        "--debug", is_flag=True, is_eager=True, expose_value=False, callback=_set_debug,
        help="Show the traceback of an error.",
    )(command)  # fmt: skip


def run_options(command: Function) -> Function:
    """The flags that `distill` and `teach` share."""
    resume = click.option(
        "--resume", default="auto", show_default=True, metavar="auto|never|PATH",
        help="Go on where the run folder stands, want a new folder, or start from a checkpoint.",
    )  # fmt: skip
    accept = click.option("--accept", multiple=True, metavar="KEY", help="A key that may differ from the checkpoint's.")
    quiet = click.option("--quiet", is_flag=True, help="No progress; the result and errors only.")
    return RECIPE(OVERRIDES(resume(accept(quiet(TRUST(with_debug(command)))))))
