"""A whole recipe as YAML, with a comment on each value: where it was written, or that nobody wrote it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from segkd.recipe.loading import Loaded, read
from segkd.recipe.messages import key_name
from segkd.recipe.sources import find, shown_path, tell
from segkd.recipe.strict_yaml import dump

COLUMN = 44


def annotated(source: str | Path, overrides: Sequence[str] = ()) -> str:
    """The recipe as it would run, as YAML that `load` reads back as an equal recipe.

    Raises:
        RecipeError: as `load`.
    """
    found = read(source, overrides)
    for line in found.notes:
        tell(line)
    data = found.recipe.as_dict()
    lines = dump(data, width=float("inf")).splitlines()  # a line for each key: nothing is folded
    keys = list(_keys(data))
    assert len(lines) == len(keys)
    said = [
        f"{line:<{COLUMN}}  # {_origin(found, key, value)}" if not isinstance(value, dict) or not value else line
        for line, (key, value) in zip(lines, keys, strict=True)
    ]
    head = f"# {shown_path(find(source))}, as it would run, and where each value was written"
    return "\n".join([head, *said]) + "\n"


def _keys(tree: dict[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """All keys in their order, those of a block after it, with their values."""
    for key, value in tree.items():
        yield (*above, key), value
        if isinstance(value, dict):
            yield from _keys(value, (*above, key))


def _origin(found: Loaded, key: tuple[str, ...], value: Any) -> str:
    node = found.tree
    for part in key:
        if not isinstance(node.value, dict) or part not in node.value:
            of_method = key[0] == "weights" and len(key) == 2
            return f"default of {found.recipe.method}" if of_method else "default"  # type: ignore[union-attr]
        node = node.value[part]
    if node.value is None and value is not None:
        return f"default (null at {node.where})"
    return f"preset {key_name((node.preset,))}, {node.where}" if node.preset else node.where
