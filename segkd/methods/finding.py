"""The class of a method, or of a further student term, by the name of its file; and files of a user's own."""

from __future__ import annotations

import importlib
import inspect
import sys
import traceback
from dataclasses import dataclass
from types import ModuleType
from typing import TypeVar

from segkd.foundation.errors import UsageError
from segkd.machine.ambient import kept_apart
from segkd.machine.own_code import CodeFile
from segkd.methods.base import Method, Term

Kind = TypeVar("Kind", Method, Term)


@dataclass(frozen=True)
class MethodFile(CodeFile):
    """A user's own method (`--method-file`)."""

    what, error = "method", UsageError

    def line(self, error: BaseException) -> int | None:
        """The last line of the file that an error came through, or that of the class that it is about; None: neither."""
        if (own := super().line(error)) is not None:
            return own
        module = sys.modules.get(self.module)
        kinds = (
            [kind for kind in vars(module).values() if isinstance(kind, type) and kind.__module__ == self.module]
            if module
            else []
        )
        frames = traceback.extract_tb(error.__traceback__)
        differentiated = any(frame.filename.endswith("torch/autograd/__init__.py") for frame in frames)
        for kind in kinds:
            if f"{kind.__name__}." in str(error) or str(error).startswith(f"{kind.__name__}: ") or differentiated:
                return inspect.getsourcelines(kind)[1]
        return None


def method_class(name: str, own: MethodFile | None = None) -> type[Method]:
    """That of `segkd/methods/NAME.py`, or of a user's own file.

    Raises:
        UsageError: the user's file raises, or its class is not one that can be played.
    """
    if own is None:
        return _last(importlib.import_module(f"segkd.methods.{name}"), Method)[0]
    with kept_apart():
        module = own.run()
    found = [kind for kind in _last(module, Method) if kind.student]
    if len(found) != 1:
        raise UsageError(
            f"{own.path}:1: holds {len(found)} subclasses of segkd.methods.base.Method that have student terms, not one"
        )
    line, terms = inspect.getsourcelines(found[0])[1], (*found[0].student, *found[0].source, *found[0].pixels)
    if idle := [name for name in vars(found[0]).get("weights", ()) if name not in terms]:
        raise UsageError(f"{own.path}:{line}: weights: {idle[0]}: no term of the class is called so")
    for term in terms:
        if hasattr(Method, term):
            raise UsageError(
                f"{own.path}:{line}: term {term}: every method has a {term} already; call the term otherwise"
            )
        if not callable(getattr(found[0], term, None)):
            raise UsageError(f"{own.path}:{line}: term {term}: the class has no function of that name")
        if term not in found[0].weights:
            raise UsageError(f"{own.path}:{line}: term {term}: `weights` has no default for it")
    return found[0]


def term_class(name: str) -> type[Term]:
    """That of `segkd/methods/terms/NAME.py`."""
    return _last(importlib.import_module(f"segkd.methods.terms.{name}"), Term)[0]


def _last(module: ModuleType, kind: type[Kind]) -> list[type[Kind]]:
    """The classes of a kind that a module defines and none of its other ones inherits from."""
    own = [
        k
        for k in vars(module).values()
        if isinstance(k, type) and issubclass(k, kind) and k.__module__ == module.__name__
    ]
    return [k for k in own if not any(issubclass(other, k) and other is not k for other in own)]
