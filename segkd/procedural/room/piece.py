"""A piece of a procedural room: what is built of parts in a frame of its own, and set against a wall or turned freely."""

from __future__ import annotations

from typing import NamedTuple

from segkd.procedural.materials import Colour
from segkd.procedural.room.blocks import Block
from segkd.procedural.room.camera import Label

Span = tuple[float, float]

# What each kind of thing is usually made of. Every material is found in several, so that none gives a class away.
SHEET = ("cream", "plaster", "glass")
BLANKET = ("paint", "paint", "cream", "glass", "fabric")
COVER = ("fabric", "fabric", "fabric", "leaf", "dark", "brick")
SEAT = ("dark", "paint", "paint", "wood", "cream")
BOARD = ("wood", "wood", "wood", "cream", "dark")
FRONT = ("wood", "wood", "cream", "brick", "plaster")
TRIFLE = ("paint", "brick", "leaf", "cream", "glass")


class Part(NamedTuple):
    """A block in the frame of its piece: across (from the middle), up, and out from the wall behind it."""

    across: Span
    up: Span
    out: Span
    colour: Colour
    label: Label
    shape: str


class Piece:
    """Something that stands in a room or hangs in it: how wide and deep it is, from where up to where, and its parts."""

    def __init__(self, label: Label, wide: float, deep: float, high: float, low: float = 0.0) -> None:
        self.label, self.wide, self.deep, self.high, self.low = label, wide, deep, high, low
        self.parts: list[Part] = []

    def add(
        self, across: Span, up: Span, out: Span, colour: Colour, shape: str = "box", label: Label | None = None
    ) -> None:
        """Another part, by default of the piece's own class."""
        self.parts.append(Part(across, up, out, colour, self.label if label is None else label, shape))

    def footprint(self, x: float, z: float, turn: int) -> tuple[float, float, float, float]:
        """Low x, low z, high x, high z where it stands with the middle of its back at (x, z); `turn` as for `placed`."""
        (x0, z0), (x1, z1) = _turned(-0.5 * self.wide, 0.0, turn), _turned(0.5 * self.wide, self.deep, turn)
        return x + min(x0, x1), z + min(z0, z1), x + max(x0, x1), z + max(z0, z1)

    def placed(self, x: float, z: float, turn: int) -> list[Block]:
        """Its blocks with the middle of its back at (x, z).

        ``turn``: 0 with its back to the back wall, 1 to the left wall, 2 to the front wall, 3 to the right wall.
        """
        blocks = []
        for across, up, out, colour, label, shape in self.parts:
            (x0, z0), (x1, z1) = _turned(across[0], out[0], turn), _turned(across[1], out[1], turn)
            low, high = (x + min(x0, x1), up[0], z + min(z0, z1)), (x + max(x0, x1), up[1], z + max(z0, z1))
            blocks.append(Block(low, high, colour, label, shape))
        return blocks


def _turned(across: float, out: float, turn: int) -> Span:
    """(x, z) of a point of a piece's frame."""
    return ((across, -out), (out, across), (-across, out), (-out, -across))[turn]


def even(start: float, stop: float, count: int, gap: float = 0.0) -> list[Span]:
    """`count` equal intervals from start to stop, with gaps between them."""
    pitch = (stop - start + gap) / count
    return [(start + i * pitch, start + (i + 1) * pitch - gap) for i in range(count)]
