"""The one place where segkd prints: lines, results, and the live line that shows how far it is.

What comes from outside (names of files, members of archives, keys, classes, words of other libraries) is printed with its
control characters made visible. A closed pipe, a full disk or a terminal that is gone never ends what is only told there;
`deliver` alone says so, for the commands whose output is what they are for.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Sequence
from typing import TextIO

from segkd.foundation.errors import OutputClosed, StorageError, visible

EVERY = 0.1
"""Seconds between two refreshes of the live line."""
_lock = threading.RLock()
_live: Live | None = None


def speaks() -> bool:
    """Whether this process is the one of torchrun's that has a say; it is known before they meet, and when they have parted."""
    return os.environ.get("RANK", "0") == "0"


def say(*lines: object) -> None:
    """Print lines beside the result, on standard error. Never raises for the sake of the stream."""
    with contextlib.suppress(OSError, ValueError):
        _print(sys.stderr, lines)


def tell(*lines: object) -> None:
    """Print lines on standard output about a result that lies in files. Never raises for the sake of the stream."""
    with contextlib.suppress(OSError, ValueError):
        _print(sys.stdout, lines)


def deliver(*lines: object) -> None:
    """Print on standard output what a command is for.

    Raises:
        OutputClosed: who read it went away.
        StorageError: it cannot be written: a full disk, or no standard output at all.
    """
    try:
        if sys.stdout is None:
            raise ValueError("closed")
        _print(sys.stdout, lines)
    except BrokenPipeError as error:
        raise OutputClosed from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise StorageError(f"standard output: cannot write the result: {reason}") from error


def warn(message: object, category: object, filename: str, lineno: int, *rest: object) -> None:
    """A warning of Python's in a line of its own; takes the place of `warnings.showwarning`."""
    say(f"warning: {' '.join(str(message).split())} ({os.path.basename(filename)}:{lineno})")


def _print(stream: TextIO | None, lines: tuple[object, ...]) -> None:
    """Raises OSError, or ValueError for a stream that was closed."""
    with _lock:
        if _live is not None:
            _live.erase()
        try:
            if stream is not None:
                _write(stream, "".join(f"{visible(line)}\n" for line in lines))
        finally:
            if _live is not None:
                _live.draw()


def _write(stream: TextIO, text: str) -> None:
    try:
        stream.write(text)
    except UnicodeEncodeError:
        coding = stream.encoding
        stream.write(text.encode(coding, "backslashreplace").decode(coding))
    stream.flush()


def spoken(seconds: float) -> str:
    """A time as people say it: 4 min 36 s."""
    whole = round(seconds)
    minutes, hours = whole // 60 % 60, whole // 3600
    if hours:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    if minutes:
        return f"{minutes} min {whole % 60} s" if whole % 60 else f"{minutes} min"
    return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"


def aligned(rows: Sequence[Sequence[str]], texts: int) -> list[str]:
    """Rows of cells as lines: the first columns, `texts` of them, to the left, the others, numbers, to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    ends = [str.ljust] * texts + [str.rjust] * (len(widths) - texts)
    return [
        "  ".join(end(cell, width) for end, cell, width in zip(ends, row, widths, strict=True)).rstrip() for row in rows
    ]


def without_empty_columns(rows: Sequence[Sequence[str]]) -> list[tuple[str, ...]]:
    """Rows of cells, the first of them the head, without the columns in which nothing stands below it."""
    kept = [column for column in range(len(rows[0])) if any(row[column] for row in rows[1:])]
    return [tuple(row[column] for column in kept) for row in rows]


def interactive(stream: TextIO | None) -> bool:
    """Whether a line on it can be written over: it is a terminal, and no dumb one, or a notebook's output."""
    try:
        if in_notebook(stream):
            return True
        return stream is not None and stream.isatty() and os.environ.get("TERM", "") not in ("", "dumb")
    except ValueError:  # it was closed
        return False


def in_notebook(stream: TextIO | None) -> bool:
    """Whether what is written appears below a cell of a Jupyter notebook, which knows carriage returns, and no escape codes."""
    return type(stream).__module__.startswith("ipykernel.")


def columns(stream: TextIO) -> int:
    """The width of a terminal at this moment; 80 where it does not tell."""
    with contextlib.suppress(OSError, ValueError):
        return os.get_terminal_size(stream.fileno()).columns or 80
    return 80


class Live:
    """A line at the end of standard error that is written over: how much is done of how much, how long it took and will take.

    A notebook shows it, too. Where standard error cannot be written over (a file, a pipe, TERM=dumb), and when `quiet`, nothing is shown. One line is
    shown at a time: the newest. Its width never exceeds the terminal's.

    Args:
        what: what is done; `doing` replaces it.
        unit: what is counted: images, steps, or `B` for bytes.
        done: what was done before, of which no time is known.
        stays: leave the last state there when it ends, as a line of its own.
    """

    def __init__(
        self, what: str = "", unit: str = "", done: float = 0, stays: bool = False, quiet: bool = False
    ) -> None:
        self.what, self.unit, self.stays = what, unit, stays
        self.shown = not quiet and interactive(sys.stderr)
        self._done, self._before, self._total, self._note = done, done, None, ""
        self._began, self._drawn, self._last = time.perf_counter(), "", -EVERY

    def __enter__(self) -> Live:
        return self.begin()

    def __exit__(self, *error: object) -> None:
        self.end()

    def begin(self) -> Live:
        """Show it, in the place of the one that is shown."""
        global _live
        with _lock:
            if _live is not None and self.shown:
                _live.end()
            if self.shown:
                _live = self
                self.draw()
        return self

    def doing(self, what: str) -> None:
        """Show at once what is done now."""
        self.what, self._last = what, -EVERY
        self.update(self._done, self._total, self._note)

    def update(self, done: float, total: int | None = None, note: str = "") -> None:
        """Show how much is done of how much, and a note at the end of the line; not more often than one can read."""
        self._done, self._total, self._note = done, total, note
        if self.shown and time.perf_counter() - self._last >= EVERY:
            with _lock:
                self.draw()

    def text(self, width: int) -> str:
        """The line as it is to be seen, in at most so many columns."""
        from tqdm import tqdm
        from tqdm.utils import disp_trim

        what, elapsed = visible(self.what), time.perf_counter() - self._began
        if self._total is None and self._done == self._before:
            return disp_trim(f"{what} {visible(self._note)}".strip(), width)
        in_bytes = self.unit == "B"
        done = self._done if in_bytes or self._done % 1 == 0 else round(self._done, 1)
        meter = tqdm.format_meter(
            done, self._total, elapsed, ncols=width, prefix=what, unit="B" if in_bytes else f" {self.unit}",
            unit_scale=in_bytes, ascii=not _unicode(sys.stderr), initial=self._before, postfix=visible(self._note),
        )  # fmt: skip
        return disp_trim(meter, width)

    def draw(self) -> None:
        """Write the line over what is there."""
        if not self.shown or _live is not self:
            return
        with contextlib.suppress(OSError, ValueError):
            before = len(self._drawn)
            self._drawn, self._last = self.text(columns(sys.stderr) - 1), time.perf_counter()
            rest = " " * (before - len(self._drawn)) if in_notebook(sys.stderr) else "\x1b[K"
            _write(sys.stderr, f"\r{self._drawn}{rest}")

    def erase(self) -> None:
        """Make room for another line; `draw` brings this one back."""
        if self._drawn:
            blank = " " * len(self._drawn) + "\r" if in_notebook(sys.stderr) else "\x1b[K"
            self._drawn = ""
            with contextlib.suppress(OSError, ValueError):
                _write(sys.stderr, f"\r{blank}")

    def end(self) -> None:
        """Show it no more."""
        global _live
        with _lock:
            if _live is not self:
                return
            if self.stays:
                self.draw()
                with contextlib.suppress(OSError, ValueError):
                    _write(sys.stderr, "\n")
            else:
                self.erase()
            _live = None


def doing(what: str) -> None:
    """Let the live line, if there is one, say what is done now."""
    if _live is not None:
        _live.doing(what)


def end() -> None:
    """End the live line, if there is one: what anybody prints next begins below it."""
    if _live is not None:
        _live.end()


def _unicode(stream: TextIO) -> bool:
    return (stream.encoding or "").lower().replace("-", "") == "utf8"


def open_closed() -> None:
    """Give standard descriptors that are closed to the null device.

    Else the next file that is opened, a checkpoint say, takes such a number, and is written into by whatever prints from C.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest free number: this one


def settle() -> None:
    """End the live line, and let nothing that could not be written disturb the end of the process."""
    end()
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            with contextlib.suppress(OSError, ValueError), open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), stream.fileno())
                stream.flush()
