"""Whose a folder or a file is: a run takes what is new or its own, and touches nothing of anybody else's."""

from __future__ import annotations

import os
import re
from pathlib import Path

from safetensors import SafetensorError, safe_open

from segkd.foundation.errors import StorageError
from segkd.training import checkpoint

MARK = "a run of segkd"
"""What the lock of a run folder says."""
RECIPE_HASH = "# sha256 of what follows: "
"""What the recipe of a run says above the recipe itself."""
FIRST = (".lock", "checkpoints")
"""What a run makes before all else."""
NOTHING = (".gitkeep", ".gitignore", ".DS_Store")
"""What a folder that is empty to its owner may hold."""


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
    if MARK in _beginning(folder / ".lock") or any(map(checkpoint.NAME.fullmatch, _names(folder / "checkpoints"))):
        return True
    return RECIPE_HASH in _beginning(folder / "recipe.yaml") and any((folder / name).exists() for name in FIRST)


def _is_untouched(folder: Path) -> bool:
    """Whether all that lies there is what a run, of any version, has made when it was killed in its first moment."""
    written = _names(folder / "checkpoints")
    return all(name.startswith(".tmp-step-") for name in written) and bool(
        re.fullmatch(r"\d*\s*", _beginning(folder / ".lock"))
    )


def _names(folder: Path) -> list[str]:
    return os.listdir(folder) if folder.is_dir() else []


def _beginning(path: Path) -> str:
    """The first kilobytes of a regular file; nothing of anything else."""
    if path.is_symlink() or not path.is_file():
        return ""
    with path.open("rb") as file:
        return file.read(8192).decode(errors="replace")


def check_made_by(path: Path, recipe: str) -> None:
    """Raises StorageError where a teacher's file, or its card, is there and was not made by `segkd teach` with this recipe."""
    if path.is_file():
        try:
            with safe_open(path, "pt") as file:
                made_by = (file.metadata() or {}).get("recipe")
        except (SafetensorError, OSError):
            made_by = None
        if made_by != recipe:
            whose = f"of the recipe {made_by}" if made_by else "that segkd teach has not made"
            raise StorageError(f"{path}: a file {whose} is there; move it away, or name another output")
    card = path.with_suffix(".md")
    if card.is_file() and "Made by `segkd teach" not in _beginning(card):
        raise StorageError(
            f"{card}: a file that segkd teach has not made is there; move it away, or name another output"
        )
