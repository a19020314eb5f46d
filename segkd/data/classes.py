"""Class names and colours of the data sets."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass

from segkd.foundation.errors import DataError
from segkd.procedural.scenes import STREET_NAMES, STREET_PALETTE

IGNORE = 255
"""The id of pixels that are neither trained on nor measured; drawn black."""


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


CAMVID = Classes(
    "camvid",
    (
        "sky",
        "building",
        "pole",
        "road",
        "pavement",
        "tree",
        "signsymbol",
        "fence",
        "car",
        "pedestrian",
        "bicyclist",
    ),
    (
        (128, 128, 128),
        (128, 0, 0),
        (192, 192, 128),
        (128, 64, 128),
        (60, 40, 222),
        (128, 128, 0),
        (192, 128, 128),
        (64, 64, 128),
        (64, 0, 128),
        (64, 64, 0),
        (0, 128, 192),
    ),
)

SCENES = Classes("scenes", tuple(STREET_NAMES), tuple((int(r), int(g), int(b)) for r, g, b in STREET_PALETTE))

NYUV2_13 = listed("nyuv2_13", (
    "bed", "books", "ceiling", "chair", "floor", "furniture", "objects", "picture", "sofa", "table", "tv", "wall",
    "window",
))  # fmt: skip

NYUV2_40 = listed("nyuv2_40", (
    "wall", "floor", "cabinet", "bed", "chair", "sofa", "table", "door", "window", "bookshelf", "picture",
    "counter", "blinds", "desk", "shelves", "curtain", "dresser", "pillow", "mirror", "floor mat", "clothes",
    "ceiling", "books", "refridgerator", "television", "paper", "towel", "shower curtain", "box", "whiteboard",
    "person", "night stand", "toilet", "sink", "lamp", "bathtub", "bag", "otherstructure", "otherfurniture",
    "otherprop",
))  # fmt: skip

NAMED = (CAMVID, SCENES, NYUV2_13, NYUV2_40)
"""The lists that a recipe may name."""


def named(name: str) -> Classes:
    """The classes called `name`, such as "camvid" or "nyuv2_13".

    Raises:
        DataError: for another name, listing the known ones.
    """
    for classes in NAMED:
        if classes.name == name:
            return classes
    raise DataError(f"no classes called '{name}'; known: {', '.join(sorted(classes.name for classes in NAMED))}")


def numbered(count: int) -> Classes:
    """`count` classes of which only the number is known."""
    return listed("custom", [f"class {i}" for i in range(count)])


def known_as(names: Sequence[str]) -> Classes | None:
    """The named list with exactly these names, if there is one."""
    return next((classes for classes in NAMED if classes.names == tuple(names)), None)


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
