"""Counts the image and data-set files that this process opens, apart for training and for evaluation.

"Data-free" is a claim about what a run did, so it is counted, not promised. Python's own opens (PIL, numpy and plain
`open` among them) raise an audit event. Readers written in C do not: `cv2.imread`, `h5py.File` and torchvision's are
wrapped, at once when they are already imported, otherwise as soon as they are. Other processes are not seen: a loader's
workers count for themselves.

The phase is a thread's own: what other threads of the process open is none of the run's. A thread begins in the phase of
the thread that starts it, so that a run's own readers count as the run does.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.abc
import importlib.machinery
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

Phase = Literal["training", "evaluation", "none"]
Counter = Literal["training", "evaluation", "none", "rendered"]

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".mat", ".h5", ".npy", ".npz")
"""A file whose name ends so (in any case) counts as an image or data-set file."""

# Readers that reach the file system from C, where no audit event is raised.
_SILENT_READERS = {
    "cv2": ("imread", "imreadmulti", "imreadWithMetadata"),
    "h5py": ("File",),
    "torchvision.io": ("read_image", "decode_image", "read_file"),
}

_STARTED_IN = "_segkd_started_in"

_counts: dict[str, int] = {"training": 0, "evaluation": 0, "none": 0, "rendered": 0}
_ignored: list[str] = []
_own = threading.local()
_installed = False


def install() -> None:
    """Starts the counting. Calling it again changes nothing. It cannot be undone within a process."""
    global _installed
    if _installed:
        return
    _installed = True
    sys.addaudithook(_on_event)
    threading.Thread.start = _telling_the_phase(threading.Thread.start)  # type: ignore[method-assign]
    for name in _SILENT_READERS:
        if name in sys.modules:
            _wrap(sys.modules[name])
    sys.meta_path.insert(0, _WrapOnImport())


def installed() -> bool:
    """True once `install` was called: only then does a count of 0 mean that nothing was opened."""
    return _installed


@contextlib.contextmanager
def phase(name: Phase) -> Iterator[None]:
    """Counts what this thread opens inside the `with` block as `name`; the former phase returns afterwards, also on errors."""
    if name not in ("training", "evaluation", "none"):
        raise ValueError(f"unknown phase {name!r}: training, evaluation or none")
    before, _own.phase = _here(), name
    try:
        yield
    finally:
        _own.phase = before


def _here() -> Phase:
    """The phase of this thread."""
    if not hasattr(_own, "phase"):
        _own.phase = getattr(threading.current_thread(), _STARTED_IN, "none")
    return _own.phase


def ignore(folder: str | Path) -> None:
    """Opens below `folder` no longer count: the run's own samples and panels are not data."""
    root = os.path.join(os.path.realpath(folder), "")
    if root not in _ignored:
        _ignored.append(root)


def count(name: Counter) -> int:
    """The files opened in a phase (each open counts), or the scenes `"rendered"` while training."""
    return _counts[name]


def rendered(n: int = 1) -> None:
    """Counts `n` procedural scenes, if the present phase is training."""
    if _here() == "training":
        _counts["rendered"] += n


def _on_event(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and arguments:
        _note(arguments[0])


def _telling_the_phase(start: Callable[[threading.Thread], None]) -> Callable[[threading.Thread], None]:
    """`Thread.start`, which lets the new thread begin in the phase of this one: Python raises no event for it before 3.12."""

    @functools.wraps(start)
    def wrapper(thread: threading.Thread) -> None:
        setattr(thread, _STARTED_IN, _here())
        start(thread)

    return wrapper


def _note(path: object) -> None:
    """Counts one open. Called for every open of the process, so the cheap test on the suffix comes first."""
    if not isinstance(path, str | bytes | os.PathLike):
        return  # a file descriptor, or a buffer that holds no path
    name = os.fsdecode(path)
    if not name.lower().endswith(SUFFIXES):
        return
    if _ignored and os.path.realpath(name).startswith(tuple(_ignored)):
        return
    _counts[_here()] += 1


def _wrap(module: ModuleType) -> None:
    for attribute in _SILENT_READERS[module.__name__]:
        reader = getattr(module, attribute, None)
        # Absent from this version of the library; or wrapped before: cv2's loader imports its binary under the
        # package's own name, and copies the functions from there.
        if reader is None or hasattr(reader, "segkd_counted"):
            continue
        if isinstance(reader, type):
            _wrap_init(reader)
        else:
            setattr(module, attribute, _counted(reader))


def _counted(reader: Callable[..., Any]) -> Callable[..., Any]:
    """The reader itself, but its first argument is noted as an opened path."""

    @functools.wraps(reader)
    def wrapper(*arguments: Any, **options: Any) -> Any:
        for path in [*arguments[:1], *(options[key] for key in ("filename", "path", "input") if key in options)]:
            _note(path)
        return reader(*arguments, **options)

    wrapper.segkd_counted = True  # type: ignore[attr-defined]
    return wrapper


def _wrap_init(reader: type) -> None:
    """Wraps a class in place: replacing the name would break `isinstance(x, h5py.File)`."""
    original = reader.__init__

    @functools.wraps(original)
    def __init__(self: Any, name: Any, *arguments: Any, **options: Any) -> None:
        _note(name)
        original(self, name, *arguments, **options)

    reader.__init__ = __init__  # type: ignore[misc]
    reader.segkd_counted = True  # type: ignore[attr-defined]


class _WrapOnImport(importlib.abc.MetaPathFinder):
    """Finds nothing by itself: it lets the usual finders find a silent reader, and wraps it once it is loaded."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in _SILENT_READERS:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.loader is None:
            return spec
        load = spec.loader.exec_module

        def exec_and_wrap(module: ModuleType) -> None:
            load(module)
            _wrap(module)

        spec.loader.exec_module = exec_and_wrap  # type: ignore[method-assign]
        return spec
