"""Class names and colours of the data sets."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass

from segkd.foundation.errors import DataError
from segkd.synthesis.rooms import ROOM_NAMES, ROOM_PALETTE
from segkd.synthesis.scenes import STREET_NAMES, STREET_PALETTE

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

ROOMS = Classes("rooms", ROOM_NAMES, ROOM_PALETTE)

_KNOWN = {classes.name: classes for classes in (CAMVID, ROOMS, SCENES)}


def named(name: str) -> Classes:
    """The classes called `name`: "camvid", "rooms" or "scenes".

    Raises:
        DataError: for another name, listing the known ones.
    """
    if name not in _KNOWN:
        raise DataError(f"no classes called '{name}'; known: {', '.join(sorted(_KNOWN))}")
    return _KNOWN[name]


def listed(name: str, names: Sequence[str]) -> Classes:
    """Classes with the given names and generated colours: hues a golden angle apart, none of them black."""
    palette = []
    for index in range(len(names)):
        red, green, blue = colorsys.hsv_to_rgb((index * 0.618034) % 1.0, 0.75, (0.95, 0.7, 0.5)[index % 3])
        palette.append((round(255 * red), round(255 * green), round(255 * blue)))
    return Classes(name, tuple(names), tuple(palette))
