"""What the rooms of the package hold, by file name: a data set or a family of networks is known as soon as its file is there."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).parents[1]
SETS = "data/sets"
FAMILIES = "models/families"


def files(room: str) -> dict[str, Path]:
    """The files of a room such as `data/sets` by the names that recipes and commands call them by, sorted."""
    return {path.stem: path for path in sorted((PACKAGE / room).glob("*.py")) if not path.stem.startswith("_")}
