"""The class of a method, or of a further student term, by the name of its file; and files of a user's own."""

from __future__ import annotations

import importlib
import inspect
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from segkd.foundation.errors import SegkdError, UsageError, one_line
from segkd.foundation.files import sha256
from segkd.machine.memory import out_of_memory
from segkd.methods.base import Method, Term

Kind = TypeVar("Kind", Method, Term)


@dataclass(frozen=True)
class MethodFile:
    """A user's own method (`--method-file`): its file and what stood in it when it was read, which is what runs."""

    path: Path
    text: bytes

    @classmethod
    def read(cls, path: Path) -> MethodFile:
        """Raises UsageError where the file cannot be read."""
        try:
            return cls(path, path.read_bytes())
        except OSError as error:
            raise UsageError(f"{path}: cannot read the method: {error.strerror or error}") from error

    @property
    def sha256(self) -> str:
        return sha256(self.text)

    @property
    def module(self) -> str:
        """The name of its module while it runs."""
        return f"segkd_method_file_{self.path.stem}"

    @contextmanager
    def blamed(self) -> Iterator[None]:
        """What the file raises inside the block is one line with its name and line, and no bug of segkd's.

        So is what others raise because of it: whoever calls a function of its classes wrongly, or differentiates what its
        terms made.
        """
        try:
            yield
        except (Exception, SystemExit) as error:
            line = self._line(error)
            if (
                line is None
                or out_of_memory(error)
                or (isinstance(error, SegkdError) and not isinstance(error, UsageError))
            ):
                raise
            what = str(error) if isinstance(error, SegkdError) else f"{type(error).__name__}: {one_line(error)}"
            raise UsageError(what if what.startswith(f"{self.path}:") else f"{self.path}:{line}: {what}") from error

    def _line(self, error: BaseException) -> int | None:
        """The last line of the file that an error came through, or that of the class that it is about; None: neither."""
        frames = traceback.extract_tb(error.__traceback__)
        if own := [frame.lineno for frame in frames if frame.filename == str(self.path)]:
            return own[-1]
        module = sys.modules.get(self.module)
        kinds = (
            [kind for kind in vars(module).values() if isinstance(kind, type) and kind.__module__ == self.module]
            if module
            else []
        )
        differentiated = any(frame.filename.endswith("torch/autograd/__init__.py") for frame in frames)
        for kind in kinds:
            if f"{kind.__name__}." in str(error) or str(error).startswith(f"{kind.__name__}: ") or differentiated:
                return inspect.getsourcelines(kind)[1]
        return None

    def run(self) -> ModuleType:
        """The module that the file makes, run anew."""
        module = ModuleType(self.module)
        module.__file__ = str(self.path)
        sys.modules[self.module] = module  # where dataclasses and `inspect` look for it
        with self.blamed():
            exec(compile(self.text, str(self.path), "exec"), vars(module))
        return module


def method_class(name: str, own: MethodFile | None = None) -> type[Method]:
    """That of `segkd/methods/NAME.py`, or of a user's own file.

    Raises:
        UsageError: the user's file raises, or its class is not one that can be played.
    """
    if own is None:
        return _last(importlib.import_module(f"segkd.methods.{name}"), Method)[0]
    found = [kind for kind in _last(own.run(), Method) if kind.student]
    if len(found) != 1:
        raise UsageError(
            f"{own.path}:1: holds {len(found)} subclasses of segkd.methods.base.Method that have student terms, not one"
        )
    line = inspect.getsourcelines(found[0])[1]
    for term in (*found[0].student, *found[0].source, *found[0].pixels):
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
