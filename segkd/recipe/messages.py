"""Error lines of recipes: `recipe.yaml:6: teacher.clases: unknown key, did you mean 'classes'?`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from difflib import SequenceMatcher
from typing import Any, get_args

from pydantic import BaseModel

from segkd.recipe.strict_yaml import Node

Path = tuple[str | int, ...]

_EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "finite_number": "a finite number",
}
_BOUNDS = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that `name` is most likely a slip of; None if none is near.

    Near: at most one slip (a letter left out, added, changed, or two swapped) in short names, two from 4 letters on,
    three from 9 on. Case and `-` for `_` do not count.
    """
    wanted = _folded(name)
    allowed = 1 + (len(wanted) >= 4) + (len(wanted) >= 9)
    ranked = sorted(
        (slips(wanted, _folded(candidate)), -SequenceMatcher(None, wanted, _folded(candidate)).ratio(), candidate)
        for candidate in known
    )
    return ranked[0][2] if ranked and ranked[0][0] <= allowed else None


def _folded(name: str) -> str:
    return name[:80].lower().replace("-", "_")


def slips(a: str, b: str) -> int:
    """Letters left out, added or changed, and neighbours swapped, between two words (optimal string alignment)."""
    before: list[int] = []
    row = list(range(len(b) + 1))
    for i, letter in enumerate(a, 1):
        two_before, before, row = before, row, [i]
        for j, other in enumerate(b, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != other))
            if i > 1 and j > 1 and letter == b[j - 2] and a[i - 2] == other:
                cost = min(cost, two_before[j - 2] + 1)
            row.append(cost)
    return row[-1]


def suggestion(name: str, known: Iterable[str]) -> str:
    """`, did you mean 'x'?` and the known names, or as much of it as there is to say."""
    names = list(known)
    near = nearest(name, names)
    hint = f", did you mean {near!r}?" if near else ""
    return f"{hint} (known: {', '.join(names)})" if names else hint


def shown(value: Any) -> str:
    """A value on one line, at most 60 characters, as YAML would write it."""
    if isinstance(value, dict):
        return "a mapping"
    value = _beginning(value)
    text = json.dumps(value, ensure_ascii=not str(value).isprintable(), default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def _beginning(value: Any) -> Any:
    """As much of a value as can be shown: of long texts and lists the first parts, which are more than fit."""
    if isinstance(value, str):
        return value[:80]
    return [_beginning(item) for item in value[:30]] if isinstance(value, list | tuple) else value


def key_name(path: Sequence[str | int]) -> str:
    """A dotted key; list positions in brackets, counted from 0."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{_printable(part)}"
    return text.removeprefix(".")


def _printable(key: str) -> str:
    key = key[:80]
    text = key if key.isprintable() and key.strip() == key and key else json.dumps(key)
    return text if len(text) <= 60 else text[:57] + "..."


def error_line(tree: Node, path: Sequence[str | int], message: str) -> str:
    """One line at the place of the deepest part of `path` that was written."""
    return f"{place(tree, path)}: {key_name(path)}: {message}"


def place(tree: Node, path: Sequence[str | int]) -> str:
    """Where the key `path`, or the nearest block around it, was written."""
    node = tree
    for part in path:
        if isinstance(node.value, dict) and part in node.value:
            node = node.value[str(part)]
        elif isinstance(node.value, list) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
        else:
            break
    return node.where


def explain(error: Any, model: type[BaseModel]) -> tuple[Path, str]:
    """The key and the message of one of pydantic's errors on `model`."""
    path: Path = error["loc"]
    kind: str = error["type"]
    context: dict[str, Any] = error.get("ctx", {})
    if kind == "extra_forbidden":
        return path, _unknown_key(path, model)
    if kind == "missing" and path and isinstance(path[-1], int):
        # A tuple that is too short is reported at its first absent item.
        return path[:-1], f"too few values in {shown(error['input'])}"
    if kind == "missing":
        return path, "missing"
    if kind == "too_long":
        return path, f"expected {context['max_length']} values, got {context['actual_length']}"
    if kind == "value_error":
        message = str(context["error"])
        return path, message if message.startswith(
            ("missing", "unknown", "on the scale")
        ) else f"{message}; got {shown(error['input'])}"
    if kind == "literal_error":
        return path, _unknown_value(error["input"], context["expected"])
    if kind in _EXPECTED:
        return path, f"expected {_EXPECTED[kind]}, got {shown(error['input'])}"
    if kind in _BOUNDS:
        bound, words = _BOUNDS[kind]
        return path, f"must be {words} {context[bound]}, got {shown(error['input'])}"
    return path, f"{error['msg'][:1].lower()}{error['msg'][1:]}, got {shown(error['input'])}"


def _unknown_key(path: Path, model: type[BaseModel]) -> str:
    key = str(path[-1])
    block = _block(model, path[:-1])
    near = nearest(key, block.model_fields) if block else None
    if near:
        return f"unknown key, did you mean {near!r}?"
    names = dict.fromkeys(("_".join(map(str, path[-2:])), key))  # student.classes is teacher.student_classes
    elsewhere = [dotted for name in names for dotted in _dotted_fields(model) if dotted.rpartition(".")[2] == name]
    if elsewhere:
        return f"unknown key here; it belongs to {' or '.join(elsewhere)}"
    return f"unknown key (known: {', '.join(block.model_fields)})" if block else "unknown key"


def _unknown_value(value: Any, expected: str) -> str:
    known = [name.strip("'") for name in expected.replace(" or ", ", ").split(", ")]
    if not isinstance(value, str):
        return f"expected one of {', '.join(known)}, got {shown(value)}"
    return f"unknown value {shown(value)}{suggestion(value, known)}"


def _block(model: type[BaseModel], path: Path) -> type[BaseModel] | None:
    """The block that a dotted key leads to."""
    block: type[BaseModel] | None = model
    for part in path:
        field = block.model_fields.get(str(part)) if block else None
        block = block_type(field.annotation) if field else None
    return block


def block_type(annotation: Any) -> type[BaseModel] | None:
    """The block in `Block` or `Block | None`; None for other annotations."""
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _dotted_fields(model: type[BaseModel]) -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield name
        block = block_type(field.annotation)
        if block:
            yield from (f"{name}.{inner}" for inner in _dotted_fields(block))
