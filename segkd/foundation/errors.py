"""Every error that segkd raises on purpose. Each knows the exit code of the command that it ends."""

from __future__ import annotations

from collections.abc import Iterable

SPACES = "\xa0\u2007\u202f\u3000"
"""What Python does not call printable, and people write."""


def visible(text: object) -> str:
    """The text on one line, its control characters (line ends, ESC, marks that turn the direction) as escapes like \\x1b."""
    text = str(text)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in SPACES else c.encode("unicode_escape").decode() for c in text)


def one_line(said: object, most: int = 160) -> str:
    """What an error of a library says, or a name in a file from anybody: printable, on one line, cut at `most` characters."""
    text = " ".join(str(said).split()) or type(said).__name__
    shown = visible(text)
    return shown if len(shown) <= most else shown[: most - 3] + "..."


class SegkdError(Exception):
    """Base of all errors of segkd; `str()` is one line: what, where, and what to do. Exit code 1."""

    exit_code: int = 1


class UsageError(SegkdError):
    """A command line or a call that cannot be carried out as written. Exit code 2."""

    exit_code = 2


class RecipeError(UsageError):
    """A recipe with one or more mistakes. `errors` holds one line each (`file:line: key: what`); `str()` joins them."""

    def __init__(self, errors: str | Iterable[str]) -> None:
        self.errors: list[str] = [errors] if isinstance(errors, str) else list(errors)
        super().__init__("\n".join(self.errors))

    def __reduce__(self) -> tuple[type[RecipeError], tuple[list[str]]]:
        return type(self), (self.errors,)


class ArgumentError(UsageError, TypeError):
    """A call from Python with an argument of another kind than it takes; a TypeError too. Exit code 2."""


class DataError(SegkdError):
    """An image, a mask or a data set that cannot be used. Exit code 3."""

    exit_code = 3


class TeacherError(SegkdError):
    """A teacher that cannot be loaded or does not fit the recipe. Exit code 3."""

    exit_code = 3


class NumbersError(SegkdError):
    """Training diverged, or an export gate failed. Exit code 4."""

    exit_code = 4


class StorageError(SegkdError):
    """A file or folder could not be written, read back or locked, or a download failed. Exit code 5."""

    exit_code = 5


class OutputClosed(SegkdError):
    """Who read a command's output went away. Exit code 141, as of a program that SIGPIPE ended; nothing is said."""

    exit_code = 141


class Stopped(SegkdError):
    """A signal ended the run after a saved step; it can be resumed. Exit code 128 + the signal's number.

    Args:
        signum: the signal's number (1 for SIGHUP, 2 for SIGINT, 15 for SIGTERM).
        message: one line; by default it says that the run can be resumed.
    """

    def __init__(self, signum: int, message: str | None = None) -> None:
        super().__init__(message or f"stopped by signal {int(signum)}: the same command resumes the run")
        self.signum = int(signum)
        self.exit_code = 128 + self.signum

    def __reduce__(self) -> tuple[type[Stopped], tuple[int, str]]:
        return type(self), (self.signum, str(self))
