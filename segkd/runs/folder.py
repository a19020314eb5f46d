"""The folder of a run: whose it is, its lock, and what the recipe in it says of the run that wrote it.

A run takes a folder that is new or its own, and touches nothing of anybody else's.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from torch import nn

from segkd.foundation import audit, terminal
from segkd.foundation.errors import Stopped, StorageError, UsageError, one_line
from segkd.foundation.files import RunLock, atomic_write, make_folder, refuse_irregular, sha256, sweep
from segkd.machine import ranks
from segkd.models.own import digest
from segkd.models.weights import weights_file
from segkd.recipe import Recipe, TeachRecipe, Terms, expand_root, load, method_terms, unset_root
from segkd.training import checkpoint, resume
from segkd.training.signals import StopFlag

MARK = "a run of segkd"
"""What the lock of a run folder says."""
RECIPE_HASH = "# sha256 of what follows: "
"""What the recipe of a run says above the recipe itself."""
FIRST = (".lock", "checkpoints")
"""What every run makes first."""
NOTHING = (".gitkeep", ".gitignore", ".DS_Store")
"""What may lie in a folder that counts as empty."""
TEACHER = "teacher sha256"
"""What `recipe.yaml` says about the file of the teacher's weights, or about these where they come without one."""
PHOTOS = "photos sha256"
"""Of the names and lengths of the files in synth.root."""
STATISTICS = "statistics sha256"
"""Of the file in teacher.statistics."""
METHOD = "method sha256"
"""And of a user's own method, where the run plays one; a copy lies in the folder `method`."""
TEACHER_FILE = "teacher file sha256"
"""And of the file with a user's own teacher, likewise kept in the folder `teacher`."""
PAGE = "report.html"
"""What a finished run tells in a browser; `segkd.reporting.report` writes it."""
EXIT_CODE = "exit_code"
"""All that a `summary.json` says where a signal stopped a run of several processes: torchrun ends with a code of its own."""


def check_folder(folder: Path) -> None:
    """Raises StorageError where a folder is neither new, nor empty, nor that of a run: what lies in it is not to be touched."""
    if not folder.is_dir():
        return
    try:
        names = sorted(set(os.listdir(folder)) - set(NOTHING))
        # The mark last: another process may be leaving it at this moment.
        if (set(names) <= set(FIRST) and _is_untouched(folder)) or _is_marked(folder):
            return
    except OSError as error:
        raise StorageError(f"{folder}: cannot look into the folder: {error.strerror or error}") from error
    held = next((name for name in names if name not in FIRST), names[0])
    raise StorageError(f"{folder}: is no run folder, and holds {held}; name a new or an empty folder: run.dir=DIR")


def _is_marked(folder: Path) -> bool:
    """Whether a run has left its mark there: in its lock, by a checkpoint's name, or in its recipe, which may be a mere copy."""
    if MARK in beginning(folder / ".lock") or any(map(checkpoint.NAME.fullmatch, _names(folder / "checkpoints"))):
        return True
    return RECIPE_HASH in beginning(folder / "recipe.yaml") and any((folder / name).exists() for name in FIRST)


def _is_untouched(folder: Path) -> bool:
    """Whether all that lies there is what a run, of any version, has made when it was killed in its first moment."""
    written = _names(folder / "checkpoints")
    return all(name.startswith(".tmp-step-") for name in written) and bool(
        re.fullmatch(r"\d*\s*", beginning(folder / ".lock"))
    )


def _names(folder: Path) -> list[str]:
    return os.listdir(folder) if folder.is_dir() else []


def beginning(path: Path) -> str:
    """The first kilobytes of a regular file; nothing of anything else."""
    if path.is_symlink() or not path.is_file():
        return ""
    with path.open("rb") as file:
        return file.read(8192).decode(errors="replace")


@contextmanager
def run_folder(recipe: Recipe, resume: str = "auto") -> Iterator[tuple[StopFlag, RunLock | None]]:
    """The run folder, made, locked and free of what killed runs have left, with signals noticed while the block runs.

    Of several processes the first has it and its lock, and the others wait until it does: they write nothing. Where `resume` is not auto, who stopped the
    run is told that the same command would not go on with it.

    Raises:
        StorageError: it is not a run's, it cannot be made, another process runs in it, or what it holds could not be
            replaced at the end.
    """
    folder = Path(recipe.run.dir)
    if ranks.rank():
        with StopFlag().listening() as stop:
            audit.ignore(folder)
            ranks.barrier()
            yield stop, None
        return
    check_folder(folder)
    make_folder(folder / "checkpoints")
    audit.ignore(folder)
    with RunLock(folder, mark=MARK) as lock, StopFlag().listening() as stop:
        for name in ("recipe.yaml", "metrics.jsonl", "summary.json", PAGE):
            refuse_irregular(folder / name)
        for name in ("samples", "student", "model", "method", "teacher"):
            if os.path.lexists(folder / name):
                make_folder(folder / name)  # says what is wrong with it, if anything is
        for place in (folder, folder / "checkpoints", folder / "samples", folder / "method", folder / "teacher"):
            sweep(place)
        ranks.barrier()
        try:
            yield stop, lock
        except Stopped as error:
            if ranks.size() > 1:
                atomic_write(folder / "summary.json", json.dumps({EXIT_CODE: error.exit_code}) + "\n")
            if resume != "auto":
                signum = error.signum
                raise Stopped(signum, f"stopped by signal {signum}: with --resume auto the run goes on") from error
            raise
        finally:
            terminal.end()


def read_recipe(path: Path) -> dict:
    """The resolved recipe that `begin` wrote.

    Raises:
        StorageError: missing, damaged, or changed since.
    """
    try:
        _, hashed, text = path.read_text("utf-8").partition(RECIPE_HASH)
        if hashed and sha256(text[65:].encode()) != text[:64]:
            raise ValueError("its bytes do not match the hash in it")
        return load(path, methods=kept_methods(path.parent)).as_dict()
    except (OSError, ValueError, UsageError) as error:
        raise StorageError(f"{path}: damaged ({one_line(error)})") from error


def kept_methods(folder: Path) -> Mapping[str, Terms]:
    """The methods that a run's recipe may name: segkd's, and one that the folder has a copy of. None is run."""
    return method_terms(extra=sorted((folder / "method").glob("*.py")))


def about_run(folder: Path) -> dict[str, str]:
    """What `begin` wrote above the recipe of the run in a folder, by key; nothing where no run is, or its file is damaged.

    Raises StorageError where it may not be read.
    """
    path = folder / "recipe.yaml"
    try:
        head = path.read_text("utf-8").partition(RECIPE_HASH)[0] if path.is_file() else ""
    except PermissionError as error:
        raise StorageError(f"{path}: cannot read: {error.strerror}") from error
    except (OSError, ValueError):
        return {}
    return dict(line[2:].split(": ", 1) for line in head.splitlines() if line.startswith("# ") and ": " in line)


def teacher_hash(weights: str | None, network: Callable[[], nn.Module] | None = None) -> str | None:
    """What `TEACHER` says of a teacher with such weights as they are now; where they come without a file, `network` has them.

    None: the file is gone, or there is no network.
    """
    if weights is None:
        return None if network is None else digest(network())
    if unset_root(weights):
        return None
    path = weights_file(Path(expand_root(weights)))
    return sha256(path) if path.is_file() else None


def free_keys(recipe: Recipe) -> tuple[str, ...]:
    """The keys that may change between the parts of a run: not the data that train, nor a teacher's looks."""
    if isinstance(recipe, TeachRecipe):
        return ("data.root", "data.final", "run.dir", "run.save_every", "run.tensorboard")
    if recipe.synth.shows_set:
        return ("data.root", "data.watch", "data.final", "data.size", *resume.FREE_KEYS[1:])
    return resume.FREE_KEYS


def data_root(recipe: Recipe) -> str:
    """The folder of the recipe's labelled set as it is now, in a line; `none` where no set is read from one."""
    data = recipe.data
    if data.name in (None, "scenes") or data.root is None or unset_root(data.root):
        return "none"
    return one_line(expand_root(data.root).resolve(), 4096)
