"""Class lists: names and colours, and whether two lists agree."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass

IGNORE = 255
"""The id of pixels that are neither trained on nor measured; drawn black."""
UNKNOWN = 254
"""In a table of ids: no class, and not ignored. Classes end at 253."""


@dataclass(frozen=True)
class Classes:
    """The classes of a data set: id i is called `names[i]` and drawn in `palette[i]` (RGB, 0-255)."""

    name: str
    names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]

    def __post_init__(self) -> None:
        if len(self.names) != len(self.palette):
            raise ValueError(f"{self.name}: {len(self.names)} names but {len(self.palette)} colours")
        if len(set(self.names)) != len(self.names):
            raise ValueError(f"{self.name}: a class name stands twice")
        if not 0 < len(self.names) < IGNORE:
            raise ValueError(f"{self.name}: {len(self.names)} classes; between 1 and {IGNORE - 1} fit a mask")

    def __len__(self) -> int:
        return len(self.names)


def listed(name: str, names: Sequence[str]) -> Classes:
    """Classes with the given names and generated colours: hues a golden angle apart, none of them black."""
    palette = []
    for index in range(len(names)):
        red, green, blue = colorsys.hsv_to_rgb((index * 0.618034) % 1.0, 0.75, (0.95, 0.7, 0.5)[index % 3])
        palette.append((round(255 * red), round(255 * green), round(255 * blue)))
    return Classes(name, tuple(names), tuple(palette))


def coloured(name: str, names: Sequence[str], colours: str) -> Classes:
    """Classes with the given names and colours, these as `804080 f423e8 ...` (red, green and blue in hexadecimal)."""
    return Classes(name, tuple(names), tuple((*bytes.fromhex(colour),) for colour in colours.split()))  # type: ignore[misc]


def numbered(count: int) -> Classes:
    """`count` classes of which only the number is known."""
    return listed("custom", [f"class {i}" for i in range(count)])


def disagreement(names: Sequence[str], data: Classes, *players: str) -> str | None:
    """What speaks against networks with the classes `names` on data with the classes `data`, in words, or None.

    They must be as many and, unless either list is only numbered, of the same names in the same order; case, and `_`
    or `-` for a space, do not count. `players` are who has the classes `names`: "teacher", "student", "model".
    """
    if len(names) != len(data):
        counts = "".join(f"{player} {len(names)}, " for player in players)
        return f"classes disagree: {counts}data {len(data)} ({data.name})"
    if numbered(len(data)).names in (tuple(names), data.names):
        return None
    for index, (ours, theirs) in enumerate(zip(names, data.names, strict=True)):
        if _folded(ours) != _folded(theirs):
            return f"classes disagree: class {index} is '{ours}' to the {players[0]}, and '{theirs}' in {data.name}"
    return None


def _folded(name: str) -> str:
    return name.casefold().replace("_", " ").replace("-", " ")
