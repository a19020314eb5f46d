"""The class of a method, or of a further student term, by the name of its file."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TypeVar

from segkd.methods.base import Method, Term

Kind = TypeVar("Kind", Method, Term)


def method_class(name: str) -> type[Method]:
    """That of `segkd/methods/NAME.py`."""
    return _only(importlib.import_module(f"segkd.methods.{name}"), Method)


def term_class(name: str) -> type[Term]:
    """That of `segkd/methods/terms/NAME.py`."""
    return _only(importlib.import_module(f"segkd.methods.terms.{name}"), Term)


def _only(module: ModuleType, kind: type[Kind]) -> type[Kind]:
    """The class of a kind that a module defines and none of its other ones inherits from."""
    own = [
        k
        for k in vars(module).values()
        if isinstance(k, type) and issubclass(k, kind) and k.__module__ == module.__name__
    ]
    [found] = [k for k in own if not any(issubclass(other, k) and other is not k for other in own)]
    return found
