"""A room that is being furnished: what stands and hangs where, so that all has room and the camera sees it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from segkd.procedural.room.blocks import Block
from segkd.procedural.room.camera import Camera
from segkd.procedural.room.piece import Piece
from segkd.procedural.room.shell import Rectangle, Room

BACK, LEFT, FRONT, RIGHT = range(4)
"""The wall that a piece has behind it."""
WALLS = (BACK, LEFT, RIGHT)
"""Those that the camera sees."""
FLAT = 0.12
"""Metres: what is less deep hangs, and does not stand."""


@dataclass
class Plan:
    """A room that is being furnished: what stands and hangs where."""

    room: Room
    camera: Camera
    rng: np.random.Generator
    blocks: list[Block] = field(default_factory=list)
    standing: list[Rectangle] = field(default_factory=list)
    along: list[tuple[int, float, float, float, float]] = field(default_factory=list)
    """What covers a wall: which one, from, to, and between which heights."""

    def against(self, piece: Piece, walls: Sequence[int] = WALLS, tries: int = 8) -> bool:
        """Stand (or hang) a piece somewhere along one of the walls, where it is seen and nothing else is in its way."""
        wide, _, deep = self.room.size
        for _ in range(tries):
            wall = walls[int(self.rng.random() * len(walls))]
            length = wide if wall == BACK else deep
            if length < piece.wide + 0.1:
                continue
            middle = 0.5 * piece.wide + 0.05 + self.rng.random() * (length - piece.wide - 0.1)
            x, z = {BACK: (middle, deep), LEFT: (0.0, middle), RIGHT: (wide, middle)}[wall]
            span = (wall, middle - 0.5 * piece.wide, middle + 0.5 * piece.wide, piece.low, piece.high)
            put = self.hang if piece.deep < FLAT else self.stand
            if not self.covered(span) and put(piece, x, z, wall):
                self.along.append(span)
                return True
        return False

    def hang(self, piece: Piece, x: float, z: float, turn: int) -> bool:
        """Hang a piece with the middle of its back at (x, z), if the camera sees it."""
        if not self.seen(x, 0.5 * (piece.low + piece.high), z):
            return False
        self.blocks += piece.placed(x, z, turn)
        return True

    def stand(self, piece: Piece, x: float, z: float, turn: int) -> bool:
        """Stand a piece with the middle of its back at (x, z), if there is room and the camera sees it."""
        footprint = west, south, east, north = piece.footprint(x, z, turn)
        wide, _, deep = self.room.size
        if min(west, south, wide - east, deep - north) < -1e-6:
            return False
        if any(west < e and w < east and south < n and s < north for w, s, e, n in self.standing):
            return False
        eye_x, _, eye_z = self.camera.eye.tolist()
        gap = math.hypot(max(west - eye_x, eye_x - east, 0.0), max(south - eye_z, eye_z - north, 0.0))
        middle = 0.5 * (west + east), 0.5 * piece.high, 0.5 * (south + north)
        if gap < max(0.7, 0.75 * piece.high) or not self.seen(*middle):  # too near, it would hide all else
            return False
        self.standing.append(footprint)
        self.blocks += piece.placed(x, z, turn)
        return True

    def free(self, piece: Piece, tries: int = 12) -> Rectangle | None:
        """Stand a piece somewhere in the open room, turned any way; its footprint, or None where there is no room."""
        wide, _, deep = self.room.size
        for _ in range(tries):
            x, z = wide * self.rng.uniform(0.25, 0.75), deep * self.rng.uniform(0.4, 0.8)
            if self.stand(piece, x, z, int(self.rng.integers(4))):
                return self.standing[-1]
        return None

    def covered(self, span: tuple[int, float, float, float, float]) -> bool:
        """Whether something is there already."""
        wall, start, stop, low, high = span
        return any(
            wall == w and start < b + 0.05 and a < stop + 0.05 and low < top and bottom < high
            for w, a, b, bottom, top in self.along
        )

    def seen(self, x: float, y: float, z: float) -> bool:
        """Whether the point lies in a 3:4 picture."""
        right, up, ahead = self.camera.view(np.array((x, y, z))).tolist()
        reach = 0.5 / self.camera.zoom * ahead
        return ahead > 0.6 and abs(right) < 1.25 * reach and abs(up) < 1.05 * reach
