"""`segkd recipes`: the shipped recipes, and any recipe shown, checked and copied."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import click

from segkd.cli.options import METHOD_FILE, OVERRIDES, RECIPE, RECIPES, TEACHER_FILE, Named, with_debug
from segkd.foundation import terminal
from segkd.foundation.errors import RecipeError


@click.group()
@with_debug
def recipes() -> None:
    """List, show, check and copy recipes, and tell what they may say."""


@recipes.command("ls")
@with_debug
def list_recipes() -> None:
    """The shipped recipes, with the first line of each."""
    from segkd.recipe import find, shipped
    from segkd.recipe.sources import read_text

    names = shipped()
    for name in names:
        first = read_text(find(name)).partition("\n")[0]
        terminal.deliver(
            f"{name:<{max(map(len, names))}}  {first.removeprefix('#').strip() if first.startswith('#') else ''}"
        )


@recipes.command("show")
@RECIPE
@OVERRIDES
@METHOD_FILE
@TEACHER_FILE
@with_debug
def show_recipe(recipe: str, overrides: tuple[str, ...], method_file: Path | None, teacher_file: str | None) -> None:
    """The whole recipe as a run would use it, and where each value was written: a file, a preset, the command line."""
    from segkd.recipe.origins import annotated

    terminal.deliver(*annotated(recipe, overrides, method_file, teacher_file).splitlines())


@recipes.command("keys")
@click.argument("prefix", default="")
@with_debug
def list_keys(prefix: str) -> None:
    """All that a recipe may say: each key with its default, its type, and what it is.

    PREFIX is a block, the beginning of a key (student.optim), or the last part of one (lr).
    """
    from segkd.recipe.reference import keys

    found = [(f"{key.name}: {key.default if key.default != 'required' else ''}", key) for key in keys(prefix)]
    width = min(44, max(len(head) for head, _ in found))
    for head, key in found:
        need = "required; " if key.default == "required" else ""
        terminal.deliver(f"{head:<{width}}  # {need}{key.type}; {key.description}")


@recipes.command("validate")
@click.argument("recipes", metavar="RECIPE... [key=value]...", **RECIPES)
@METHOD_FILE
@TEACHER_FILE
@with_debug
def validate_recipes(recipes: tuple[str, ...], method_file: Path | None, teacher_file: str | None) -> None:
    """Check recipes as they would run (by default every shipped one), and the presets that they define.

    All mistakes are told at once; no torch is loaded.
    """
    from segkd.recipe import shipped

    overrides = [item for item in recipes if "=" in item and not os.path.exists(item)]
    names = [item for item in recipes if item not in overrides] or shipped()
    errors: dict[str, None] = {}  # in order, each once
    for name in names:
        try:
            terminal.deliver(f"{name}: valid ({checked(name, overrides, method_file, teacher_file)})")
        except RecipeError as error:
            errors.update(dict.fromkeys(error.errors))
    if errors:
        raise RecipeError(errors)


def checked(
    name: str, overrides: Sequence[str], method_file: Path | None = None, own_teacher: str | None = None
) -> str:
    """What a recipe is for, as it would run, and with which of its presets it was checked besides.

    Those are the ones that it defines itself, of a shipped one the inherited too; values on the command line are for one
    run, and nothing else is checked with them.

    Raises:
        RecipeError: with the mistakes of all of them.
    """
    from segkd.recipe import DistillRecipe, find, load, method_terms, presets, variant_of
    from segkd.recipe.hub import SCHEME
    from segkd.recipe.loading import read
    from segkd.recipe.sources import is_shipped

    errors: list[str] = []
    others: list[str] = []
    if own_teacher is not None and not os.path.isfile(file := re.sub(r"(?<=\.py):\w*$", "", own_teacher)):
        errors.append(f"{file}: no such file with a teacher")
    methods = method_terms(extra=() if method_file is None else [method_file])
    recipe = None
    try:
        if not overrides:
            own = presets(name, own=not is_shipped(find(name)))
            others = alternatives([one for one in own if one.partition(".")[0] in methods], presets(name))
        recipe = load(name, overrides, method_file=method_file, own_teacher=own_teacher, fetch=False)
    except RecipeError as error:
        errors += error.errors
    for preset in others if recipe is None or isinstance(recipe, DistillRecipe) else ():
        method, _, variant = preset.partition(".")
        try:
            read(name, [f"method={method}", f"variant={variant or 'null'}"], methods=methods, own_teacher=own_teacher)
        except RecipeError as error:
            errors += error.errors
    if errors or recipe is None:
        raise RecipeError(errors)
    if not isinstance(recipe, DistillRecipe):
        return "teach"
    variant = variant_of(recipe, methods[recipe.method].variants)
    runs = f"{recipe.method}.{variant}" if variant else recipe.method
    also = [preset for preset in others if preset != runs]
    said = [f"distill, {runs}", *([f"also with {', '.join(also)}"] if also else [])]
    teacher, weights = recipe.teacher, recipe.teacher.weights
    if weights is not None and not weights.startswith(("${", SCHEME)) and not os.path.exists(weights):
        hint = f"make it with segkd teach {teacher.recipe}" if teacher.recipe else weights
        said.append(f"teacher not there yet: {hint}")
    return "; ".join(said)


def alternatives(some: Sequence[str], known: Sequence[str]) -> list[str]:
    """The choices (`METHOD`, `METHOD.VARIANT`) that the presets `some` are part of: a method with variants has to have one."""
    found: dict[str, None] = {}
    for preset in some:
        variants = [name for name in known if name.startswith(f"{preset}.")]
        found |= dict.fromkeys(variants or [preset])
    return list(found)


@recipes.command("cp")
@RECIPE
@click.argument("target", type=Named())
@with_debug
def copy_recipe(recipe: str, target: Path) -> None:
    """Copy a recipe to TARGET (a file or a folder), to be changed there; it still finds the files that it names."""
    from segkd.foundation.files import atomic_write, check_target
    from segkd.recipe import find
    from segkd.recipe.copying import anchored

    source = find(recipe)
    file = target / source.name if os.path.isdir(target) else target
    if os.path.lexists(file):
        raise click.UsageError(f"{file}: is there already")
    check_target(file)
    atomic_write(file, anchored(source))
    terminal.tell(file)
