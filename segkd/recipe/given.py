"""Recipes that come from Python as dicts: the same tree that a file makes, as strict, with the same bounds."""

from __future__ import annotations

import os
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

from segkd.foundation.errors import RecipeError
from segkd.recipe.messages import key_name, shown
from segkd.recipe.strict_yaml import MAX_DEPTH, MAX_NODES, Node, Scalar

RECIPE = "recipe"
"""Where the values of a dict stand, in error lines."""


def tree_of(data: Mapping[Any, Any], where: str) -> tuple[Node, list[str]]:
    """The tree of a mapping, and one line for each key or value that a recipe cannot hold.

    Lists may be tuples, paths objects of `pathlib`, and numbers those of NumPy.

    Raises:
        RecipeError: more values, or nested deeper, than a recipe may be.
    """
    errors: list[str] = []
    nodes = 0

    def node(value: Any, path: tuple[str, ...]) -> Node:
        nonlocal nodes
        nodes += 1
        if nodes > MAX_NODES:
            raise RecipeError([*errors, f"{where}: more than {MAX_NODES} values"])
        if len(path) > MAX_DEPTH:
            raise RecipeError([*errors, f"{where}: nested deeper than {MAX_DEPTH} levels"])
        if isinstance(value, Mapping):
            entries = {}
            for key, inner in value.items():
                if isinstance(key, str):
                    entries[str(key)] = node(inner, (*path, str(key)))
                else:
                    errors.append(f"{_place(where, path)}: a key must be text, got {shown(key)}")
            return Node(entries, where)
        if isinstance(value, list | tuple):
            return Node([node(inner, (*path, f"[{index}]")) for index, inner in enumerate(value)], where)
        try:
            return Node(_scalar(value), where)
        except ValueError as error:
            errors.append(f"{_place(where, path)}: {error}")
            return Node(None, where)

    return node(data, ()), errors


def _place(where: str, path: tuple[str, ...]) -> str:
    return f"{where}: {key_name(path).replace('.[', '[')}" if path else where


def _scalar(value: Any) -> Scalar:
    """A value as YAML could have given it. Raises ValueError for what it could not."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value)
    text = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if not isinstance(text, str):
        raise ValueError(f"expected text, a number, a boolean, None, a list or a dict, got {type(value).__name__}")
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("text with a NUL or half a surrogate pair")
    return str(text)
