"""The names of data sets and of class lists, read from the files in `segkd/data/sets/`: a recipe is checked without NumPy."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from segkd.foundation import rooms

_MAKERS = ("Classes", "listed", "coloured")
"""What makes a class list, in `segkd.data.classes`; its name is the first argument."""


def data_sets() -> list[str]:
    """What a recipe's `data.name` may be: the names of the sets' files."""
    return [*rooms.files(rooms.SETS)]


@cache
def class_lists() -> tuple[str, ...]:
    """What a recipe's `classes` may name: the lists that stand at the top of the sets' files, `NAME = listed("name", ...)`."""
    return tuple(_made())


@cache
def class_names(classes: str) -> tuple[str, ...]:
    """The names in such a list, where they stand there as they are; else none."""
    try:
        return tuple(ast.literal_eval(_made()[classes][1]))
    except (KeyError, IndexError, ValueError, TypeError):
        return ()


@cache
def _made() -> dict[str, list[ast.expr]]:
    """What each list is made of, by its name."""
    trees = (ast.parse(path.read_text("utf-8")) for path in rooms.files(rooms.SETS).values())
    made = (node.value for tree in trees for node in tree.body if isinstance(node, ast.Assign))
    calls = (call for call in made if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.args)
    named = ((call.args[0], call.args) for call in calls if call.func.id in _MAKERS)  # type: ignore[attr-defined]
    return {name.value: args for name, args in named if isinstance(name, ast.Constant) and isinstance(name.value, str)}


@cache
def final_split(name: str | None) -> str:
    """The split of a set that is measured in the end: `final = "val"` in its class says so; else, or of no set, test."""
    path = rooms.files(rooms.SETS).get(name or "")
    kinds = [node for node in ast.parse(path.read_text("utf-8")).body if isinstance(node, ast.ClassDef)] if path else []
    said = [node for node in kinds[-1].body if isinstance(node, ast.Assign)] if kinds else []
    return next((ast.literal_eval(node.value) for node in said if ast.unparse(node.targets[0]) == "final"), "test")


@dataclass(frozen=True)
class Schema:
    """The JSON schema of a value, made when somebody asks for it."""

    make: Callable[[], dict[str, Any]]

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:
        return self.make()
