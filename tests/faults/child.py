"""What a forked child does: one segkd command with one fault armed.

The parent of the forks imports this module, and with it all that a run needs, but runs no torch operation: a pool of
threads does not survive a fork.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import albumentations  # noqa: F401 - imported when it is used, which is after the fork
import jinja2  # noqa: F401 - and this
import kornia.augmentation  # noqa: F401 - and this
import matplotlib.backends.backend_svg  # noqa: F401 - and this
import segmentation_models_pytorch  # noqa: F401 - and this
import torch

from segkd import api  # noqa: F401 - and this
from segkd.cli.main import main
from segkd.training import log
from segkd.training.distiller import Distiller

IMPORTED_BY = os.getpid()


def command(arguments: list[str], folder: Path, words: Connection, fault: Callable[[], None] | None) -> None:
    """`segkd ARGUMENTS` in `folder`; what it says goes into the pipe `words`, its exit code is that of the process."""
    assert IMPORTED_BY != os.getpid(), "the parent of the forks has not imported what they need"
    os.dup2(words.fileno(), 1)
    os.dup2(words.fileno(), 2)
    words.close()
    os.chdir(folder)
    if fault is not None:
        fault()
    sys.exit(main(arguments))


def die() -> None:
    """As kill -9 does: nothing is cleaned up, nothing flushed."""
    os.kill(os.getpid(), signal.SIGKILL)


class Disk:
    """A disk that is full as soon as a file has `size` bytes."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.size, self.size))


def close_at_first_line(descriptor: int) -> None:
    """Close a descriptor, such as our end of a terminal, when the first line is in the diary."""
    true, there = log.append, [descriptor]

    def append(*given: object) -> None:
        true(*given)
        if there:
            os.close(there.pop())

    log.append = append


class Memory:
    """No more memory than there is, from the forward of a module or the backward number `at` (from 0) in the first step on."""

    def __init__(self, at: int, backward: bool = False) -> None:
        self.at, self.backward, self.seen = at, backward, 0

    def __call__(self) -> None:
        ctypes.CDLL(None).mallopt(-3, 1 << 14)  # M_MMAP_THRESHOLD: malloc must ask for more, not give what was freed
        play, true = Distiller.play, torch.autograd.grad

        def grad(*given: Any, **options: Any) -> Any:
            self.count()
            return true(*given, **options)

        def first(game: Distiller, step: int) -> Any:
            Distiller.play = play
            if self.backward:
                torch.autograd.grad = grad
            else:
                torch.nn.modules.module.register_module_forward_pre_hook(lambda *given: self.count())
            return play(game, step)

        Distiller.play = first

    def count(self) -> None:
        if self.seen == self.at:
            size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (size, resource.RLIM_INFINITY))
        self.seen += 1


class Calls:
    """Dies before the call number `at` (from 0) of `os` that changes a folder or syncs; None: they are only counted.

    Each gets a line in `log`, where it is given.
    """

    NAMES = ("open", "fsync", "replace", "rename", "unlink", "ftruncate", "pwrite", "mkdir", "rmdir")

    def __init__(self, at: int | None, log: Path | None = None) -> None:
        self.at, self.log, self.seen = at, log, 0

    def __call__(self) -> None:
        for name in self.NAMES:
            setattr(os, name, self._counted(name, getattr(os, name)))

    def _counted(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **options: Any) -> Any:
            if self.seen == self.at:
                die()
            self.seen += 1
            if self.log is not None:
                with open(self.log, "a") as file:
                    file.write(f"{name} {arguments[0]}\n")
            return call(*arguments, **options)

        return counted


class Writes:
    """Dies in the write number `at` (from 0), when `share` of its bytes are in the file; None: they are only counted."""

    def __init__(self, at: int | None, share: float = 0.0, log: Path | None = None) -> None:
        self.at, self.share, self.log, self.seen = at, share, log, 0

    def __call__(self) -> None:
        true = os.fdopen
        os.fdopen = lambda *given, **options: _Cut(true(*given, **options), self)

    def note(self, file: Any, data: bytes) -> int:
        if self.seen == self.at:
            file.write(data[: int(self.share * len(data))])
            file.flush()
            die()
        self.seen += 1
        if self.log is not None:
            with open(self.log, "a") as log:
                log.write(f"{len(data)} {file.name}\n")
        return file.write(data)


class _Cut:
    """A file whose writes are noted."""

    def __init__(self, file: Any, writes: Writes) -> None:
        self._file, self._writes = file, writes

    def write(self, data: bytes) -> int:
        return self._writes.note(self._file, data)

    def __enter__(self) -> _Cut:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)
