"""Recipes as another version of segkd has written them into its runs: that version knew fewer keys, or more."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from pydantic import ValidationError

from segkd.foundation.errors import RecipeError
from segkd.recipe.blocks import DistillRecipe, TeachRecipe
from segkd.recipe.messages import explain, key_name


def recalled(written: object, where: str) -> tuple[DistillRecipe | TeachRecipe, list[str]]:
    """The recipe that a run has written as a dict, and the keys in it that this version does not know.

    Keys that it lacks have their defaults.

    Raises:
        RecipeError: it is no recipe, or a value means nothing here; a line for each, which begins with `where`.
    """
    if not isinstance(written, dict):
        raise RecipeError(f"{where}: holds no recipe of segkd")
    kind = TeachRecipe if "model" in written else DistillRecipe
    data, unknown = deepcopy(written), []
    for error in _errors(kind, data):
        if error["type"] == "extra_forbidden":
            *above, key = error["loc"]
            block = data
            for part in above:
                block = block[part]
            del block[key]
            unknown.append(key_name(error["loc"]))
    if errors := _errors(kind, data):
        told = (explain(error, kind) for error in errors)
        raise RecipeError(f"{where}: of another version of segkd: {key_name(path)}: {words}" for path, words in told)
    return kind.model_validate(data), sorted(unknown)


def filled(written: dict[str, Any]) -> dict[str, Any]:
    """A recipe as a run has written it, with the defaults of what did not exist then; as it is where it cannot be read."""
    try:
        recipe, _ = recalled(written, "")
    except RecipeError:
        return written
    return _below(recipe.as_dict(), written)


def _below(defaults: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """What is given, over defaults."""
    both = {key: _below(defaults[key], value) if isinstance(value, dict) and isinstance(defaults.get(key), dict) else value
            for key, value in given.items()}  # fmt: skip
    return {**defaults, **both}


def _errors(kind: type[DistillRecipe] | type[TeachRecipe], data: dict[str, Any]) -> list[Any]:
    try:
        kind.model_validate(data)
    except ValidationError as error:
        return error.errors()
    return []
