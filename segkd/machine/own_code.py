"""Files of code that a user brings on the command line: what stood in them when they were read is what runs."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import ClassVar, TypeVar

from segkd.foundation.errors import SegkdError, UsageError, one_line
from segkd.foundation.files import sha256
from segkd.machine.memory import out_of_memory

Own = TypeVar("Own", bound="CodeFile")


@dataclass(frozen=True)
class CodeFile:
    """A user's own code: its file and its text. What it raises is an error of the kind that a subclass names."""

    path: Path
    text: bytes
    what: ClassVar[str]
    error: ClassVar[type[SegkdError]]

    @classmethod
    def read(cls: type[Own], path: Path) -> Own:
        """Raises the class's error where the file cannot be read."""
        try:
            return cls(path, path.read_bytes())
        except OSError as error:
            raise cls.error(f"{path}: cannot read the {cls.what}: {error.strerror or error}") from error

    @property
    def sha256(self) -> str:
        return sha256(self.text)

    @property
    def module(self) -> str:
        """The name of its module while it runs."""
        return f"segkd_{self.what}_file_{self.path.stem}"

    @contextmanager
    def blamed(self) -> Iterator[None]:
        """What the file raises inside the block is one line with its name and line, and no bug of segkd's.

        So is what others raise because of it: whoever calls a function of its classes wrongly, or differentiates what they
        made.
        """
        try:
            yield
        except (Exception, SystemExit) as error:
            line = self.line(error)
            if (
                line is None
                or out_of_memory(error)
                or (isinstance(error, SegkdError) and not isinstance(error, UsageError))
            ):
                raise
            what = str(error) if isinstance(error, SegkdError) else f"{type(error).__name__}: {one_line(error)}"
            raise self.error(what if what.startswith(f"{self.path}:") else f"{self.path}:{line}: {what}") from error

    def line(self, error: BaseException) -> int | None:
        """The last line of the file that an error came through; None: none."""
        frames = traceback.extract_tb(error.__traceback__)
        return next((frame.lineno for frame in reversed(frames) if frame.filename == str(self.path)), None)

    def run(self) -> ModuleType:
        """The module that the file makes, run anew."""
        module = ModuleType(self.module)
        module.__file__ = str(self.path)
        sys.modules[self.module] = module  # where dataclasses and `inspect` look for it
        with self.blamed():
            exec(compile(self.text, str(self.path), "exec"), vars(module))
        return module
