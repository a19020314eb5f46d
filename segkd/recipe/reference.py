"""A reference of all keys that a recipe may say, from the blocks and the methods themselves."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic.fields import FieldInfo

from segkd.foundation.errors import UsageError
from segkd.recipe.blocks import DistillRecipe, Recipe, TeachRecipe
from segkd.recipe.loading import WEIGHT
from segkd.recipe.messages import block_type, nearest, shown
from segkd.recipe.own_options import Option
from segkd.recipe.terms import Terms, further_terms, method_terms


@dataclass(frozen=True)
class Key:
    """A key of a recipe: `type` in words, `default` as YAML would write it (`required`: there is none)."""

    name: str
    type: str
    default: str
    description: str


def keys(prefix: str = "") -> list[Key]:
    """All keys in a recipe's order, or those that begin with `prefix`, or are called so in any block.

    Those of `segkd distill` come first; those of `segkd teach` follow where they differ.

    Raises:
        UsageError: no key begins so.
    """
    distil = list(_keys(DistillRecipe))
    names = {key.name for key in distil}
    teach = [key for key in _keys(TeachRecipe) if key not in distil]
    known = distil + [
        replace(key, description=f"{key.description} (of a recipe that teaches)") if key.name in names else key
        for key in teach
    ]
    found = [key for key in known if key.name.startswith(prefix) or key.name.rpartition(".")[2] == prefix]
    if not found:
        parts = dict.fromkeys(part for key in known for part in (key.name, *key.name.split(".")))
        near = nearest(prefix, parts)
        hint = f"did you mean {near!r}?" if near else f"blocks: {', '.join(blocks())}"
        raise UsageError(f"{shown(prefix)}: no key begins so; {hint}")
    return found


def blocks() -> dict[str, str]:
    """The names of a recipe's blocks, and what each is."""
    fields = {**DistillRecipe.model_fields, **TeachRecipe.model_fields}
    whole = {
        name: field
        for name, field in fields.items()
        if block_type(field.annotation) or name in ("weights", "options", "terms")
    }
    return {name: field.description or "" for name, field in whole.items()}


def _keys(model: type[Recipe]) -> Iterator[Key]:
    schema, methods = model.model_json_schema(), method_terms()
    for name, field in model.model_fields.items():
        if name == "method":
            yield Key(name, ", ".join(methods), "required", field.description or "")
        elif name == "weights":
            yield from _method_weights(methods)
        elif name == "terms":
            for term, found in further_terms().items():
                yield _of_option(f"terms.{term}.weight", WEIGHT, found.doc)
                yield from (
                    _of_option(f"terms.{term}.{key}", option, option.doc) for key, option in found.options.items()
                )
        elif name == "options":
            yield from _method_options(methods)
        else:
            yield from _of_field(name, field, schema["properties"][name], schema)


def _of_field(name: str, field: FieldInfo, schema: dict[str, Any], whole: dict[str, Any]) -> Iterator[Key]:
    block = block_type(field.annotation)
    if block is None:
        default = "required" if field.is_required() else _as_yaml(field.default)
        yield Key(name, _words(schema), default, field.description or "")
        return
    inner = whole["$defs"][block.__name__]["properties"]
    for key, child in block.model_fields.items():
        yield from _of_field(f"{name}.{key}", child, inner[key], whole)


def _method_weights(methods: dict[str, Terms]) -> Iterator[Key]:
    """The terms of all methods; one of which several say the same is told once, with each one's weight."""
    having: dict[tuple[str, str], list[str]] = {}
    for method, terms in methods.items():
        for term in terms.names:
            having.setdefault((term, terms.docs.get(term, "")), []).append(method)
    names = dict.fromkeys(term for term, _ in having)
    for term, said in sorted(having, key=lambda key: list(names).index(key[0])):
        found = having[term, said]
        defaults = dict.fromkeys(str(methods[method].weights.get(term, 0.0)) for method in found)
        yield Key(f"weights.{term}", "number ≥ 0", " or ".join(defaults), f"{_whose(found, methods)}: {said}")


def _method_options(methods: dict[str, Terms]) -> Iterator[Key]:
    """The options of all methods; one that several have alike is told once."""
    having: dict[tuple[str, str], list[tuple[str, Option]]] = {}
    for method, terms in methods.items():
        for name, option in terms.options.items():
            having.setdefault((name, repr((option.default, option.allowed))), []).append((method, option))
    for (name, _), found in having.items():
        option = found[0][1]
        whose = _whose([method for method, _ in found], methods)
        yield _of_option(f"options.{name}", option, f"{whose}: {option.doc}")


def _whose(found: Sequence[str], methods: Iterable[str]) -> str:
    """Some of the methods by name, or where they are most of them, the others."""
    others = [method for method in methods if method not in found]
    if len(found) <= len(others) or not others:
        return ", ".join(found) if others else "all"
    return f"all but {', '.join(others)}"


def _of_option(name: str, option: Option, doc: str) -> Key:
    return Key(name, _words(option.values.json_schema()), _as_yaml(option.default), doc)


def _as_yaml(value: Any) -> str:
    return json.dumps(value, default=list, ensure_ascii=False) if not isinstance(value, str) else value


def _words(schema: dict[str, Any]) -> str:
    """A JSON schema in words."""
    if "words" in schema:
        return schema["words"]
    if "enum" in schema:
        return ", ".join(map(str, schema["enum"]))
    if "anyOf" in schema:
        return ", or ".join(_words(choice) for choice in schema["anyOf"])
    kind = schema.get("type")
    if kind == "array":
        items = schema.get("prefixItems")
        return f"list of {len(items)}: {_words(items[0])}" if items else f"list of: {_words(schema['items'])}"
    if kind in ("integer", "number"):
        return ("whole number" if kind == "integer" else "number") + _bounds(schema)
    return {"string": "text", "boolean": "true, false", "object": "mapping", "null": "null"}.get(kind, "scalar or list")


def _bounds(schema: dict[str, Any]) -> str:
    """The bounds of a number, but for those that nobody comes near."""
    low, high = schema.get("minimum"), schema.get("maximum")
    if high is not None and high < 10**9 and low is not None:
        return f" from {low:,} to {high:,}"
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    found = [f"{sign} {schema[bound]:,}" for bound, sign in signs.items() if abs(schema.get(bound, 10**9)) < 10**9]
    return f" {', '.join(found)}" if found else ""
