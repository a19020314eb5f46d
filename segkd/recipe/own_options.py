"""Options that a method or a further term states of its own: what each may be, and what a recipe says to it."""

from __future__ import annotations

import re
from ast import literal_eval
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from segkd.recipe.blocks import Block
from segkd.recipe.messages import Path, explain, shown
from segkd.recipe.options import scalar, scalar_or_list
from segkd.recipe.values import Text

_SIGNS = {">": "gt", ">=": "ge", "<": "lt", "<=": "le"}
_BOUND = re.compile(r"\s*(>=|>|<=|<)\s*(-?\d+(?:\.\d+)?(?:e-?\d+)?)\s*")


@dataclass(frozen=True)
class Option:
    """An option of a method or a term.

    Attributes:
        default: what holds where a recipe says nothing; a value has its kind, where it is null any kind.
        allowed: the words that a text may be, or the bounds of a number, as in `"> 0"` and `">= 0, <= 1"`.
        doc: what it is.
    """

    default: Any
    allowed: Any = None
    doc: str = field(default="", compare=False)

    @cached_property
    def values(self) -> TypeAdapter[Any]:
        """The values that it may have. Raises ValueError where what it states makes no sense, the default included."""
        kind: Any = type(self.default)
        if kind not in (bool, int, float, str, list, type(None)):
            raise ValueError(f"expected true, false, a number, text, a list or None, not a {kind.__name__}")
        if self.allowed is not None:
            kind = self._allowed(kind)
        elif kind is str:
            kind = Text
        elif kind is list:
            kind = list[Annotated[Any, BeforeValidator(scalar)]]
        elif self.default is None:
            kind = Annotated[Any, BeforeValidator(scalar_or_list)]
        values: TypeAdapter[Any] = TypeAdapter(kind, config=ConfigDict(strict=True, allow_inf_nan=False))
        try:
            values.validate_python(self.default)
        except ValidationError as error:
            raise ValueError(f"its default {shown(self.default)} is not what it may be") from error
        return values

    def _allowed(self, kind: Any) -> Any:
        if isinstance(self.allowed, tuple) and kind is str and all(isinstance(word, str) for word in self.allowed):
            return Literal[self.allowed]  # type: ignore[valid-type]
        bounds = [_BOUND.fullmatch(part) for part in self.allowed.split(",")] if isinstance(self.allowed, str) else []
        if kind not in (int, float) or not bounds or None in bounds:
            raise ValueError(
                'expected a tuple of words for a text, or bounds such as "> 0" or ">= 0, <= 1" for a number'
            )
        return Annotated[kind, Field(**{_SIGNS[found[1]]: literal_eval(found[2]) for found in bounds if found})]


Options = Mapping[str, Option]


def filled_in(options: Options, given: Mapping[str, Any]) -> tuple[dict[str, Any], list[tuple[Path, str]]]:
    """All options with the values that hold, and a key and a line for each that cannot be; null is unset."""
    complete, wrong = {}, []
    for name, option in options.items():
        value = given.get(name)
        try:
            complete[name] = option.default if value is None else option.values.validate_python(value)
        except ValidationError as error:
            for item in error.errors():
                path, message = explain(item, Block)
                wrong.append(((name, *path), message))
    return complete, wrong
