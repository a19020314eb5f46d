"""Procedural rooms: a picture of an interior from a seed, without any file (numpy and cv2 only).

Walls, floor and ceiling in perspective, doors, windows and pictures on the walls, beds, sofas, tables, chairs, cupboards and
shelves in front of them, and small things on these. Materials, light and viewpoint vary.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

import cv2
import numpy as np

from segkd.procedural.exposure import expose
from segkd.procedural.materials import Colour, swatch

SHIFT = 4  # fractional bits of cv2's sub-pixel coordinates
NEAR = 0.15
"""Metres in front of the camera, where things are cut off."""

Point = tuple[float, float, float]
Face = tuple[float, list[tuple[np.ndarray, tuple[float, ...]]]]
"""Metres to the camera; pixels (n,2) of polygons, and what they are filled with."""


class Surface(IntEnum):
    """What things are made of, as their grain goes."""

    PLASTER = 0
    WOOD = 1
    CLOTH = 2
    SMOOTH = 3


TEXTURE = np.array([(0.02, 0.01, 0.06), (0.04, 0.06, 0.08), (0.07, 0.08, 0.06), (0.0, 0.0, 0.03)], np.float32)
CLOTHS = ("paint", "cream", "stone", "leaf", "brick", "dark")
TIMBERS = ("wood", "cream", "dark", "stone")


@dataclass
class Room:
    """A box of `width` x, `height` y and `depth` z metres, and the camera in it.

    `faces` are drawn far ones first, and before them the `shell`'s, behind all that stands in it.
    """

    rng: np.random.Generator
    size: tuple[int, int]
    width: float
    height: float
    depth: float
    eye: Point
    yaw: float
    pitch: float
    focal: float
    light: Point
    faces: list[Face] = field(default_factory=list)
    shell: list[Face] = field(default_factory=list)

    def seen(self, points: np.ndarray) -> np.ndarray:
        """Pixels (n,2) of a flat polygon (N,3) of world points, cut at NEAR."""
        x, y, z = (points - np.array(self.eye)).T
        sin, cos = math.sin(self.yaw), math.cos(self.yaw)
        x, z = cos * x - sin * z, sin * x + cos * z
        sin, cos = math.sin(self.pitch), math.cos(self.pitch)
        y, z = cos * y - sin * z, sin * y + cos * z
        kept = []
        for here, there in zip(ring := list(zip(x, y, z, strict=True)), ring[1:] + ring[:1], strict=True):
            if here[2] > NEAR:
                kept.append(here)
            if (here[2] > NEAR) != (there[2] > NEAR):
                share = (NEAR - here[2]) / (there[2] - here[2])
                kept.append(tuple(a + share * (b - a) for a, b in zip(here, there, strict=True)))
        found = np.array(kept).reshape(-1, 3)
        height, width = self.size
        return np.stack(
            [width / 2 + self.focal * found[:, 0] / found[:, 2], height / 2 - self.focal * found[:, 1] / found[:, 2]], 1
        )

    def face(self, corners: Sequence[Point], colour: Colour, surface: Surface, parts: Sequence[tuple] = ()) -> None:
        """A rectangle of four corners with `parts` on it: ((left, right, low, high) in shares of it, colour)."""
        a, b, c, d = (np.array(corner) for corner in corners)
        normal = np.cross(b - a, d - a)
        normal /= max(float(np.linalg.norm(normal)), 1e-9)
        middle = (a + b + c + d) / 4
        ray = np.array(self.light) - middle
        shade = 0.55 + 0.45 * abs(float(normal @ ray)) / max(float(np.linalg.norm(ray)), 0.3)
        drawn = [(np.array([a, b, c, d]), colour)]
        for (left, right, low, high), ink in parts:
            corner = [
                a + u * (b - a) + v * (d - a) for u, v in ((left, low), (right, low), (right, high), (left, high))
            ]
            drawn.append((np.array(corner), ink))
        distance = float(np.linalg.norm(middle - np.array(self.eye)))
        inks = [(self.seen(points), (*np.clip(ink * shade, 0, 255).tolist(), float(surface))) for points, ink in drawn]
        self.faces.append((distance, inks))

    def box(self, low: Point, high: Point, colour: Colour, surface: Surface, front: Sequence[tuple] = ()) -> None:
        """The faces of a box that look at the camera; `front`: parts of the one that looks down z."""
        (x0, y0, z0), (x1, y1, z1), (ex, ey, ez) = low, high, self.eye
        if ez < z0:
            self.face([(x0, y0, z0), (x1, y0, z0), (x1, y1, z0), (x0, y1, z0)], colour, surface, front)
        if ex < x0:
            self.face([(x0, y0, z0), (x0, y0, z1), (x0, y1, z1), (x0, y1, z0)], colour, surface)
        if ex > x1:
            self.face([(x1, y0, z0), (x1, y0, z1), (x1, y1, z1), (x1, y1, z0)], colour, surface)
        if ey > y1:
            self.face([(x0, y1, z0), (x1, y1, z0), (x1, y1, z1), (x0, y1, z1)], colour, surface)
        if ey < y0:
            self.face([(x0, y0, z0), (x1, y0, z0), (x1, y0, z1), (x0, y0, z1)], colour, surface)

    def painted(self) -> np.ndarray:
        """The canvas (H,W,4): red, green, blue, surface."""
        canvas = np.zeros((*self.size, 4), np.uint8)
        shell, faces = (sorted(drawn, key=lambda face: -face[0]) for drawn in (self.shell, self.faces))
        for _, inks in (*shell, *faces):
            for pixels, ink in inks:
                if len(pixels) > 2:
                    points = (pixels.clip(-4000, 4000) * (1 << SHIFT)).astype(np.int32)
                    cv2.fillPoly(canvas, [points], ink, cv2.LINE_8, SHIFT)
        return canvas


def render(seed: int, size: tuple[int, int] = (96, 128)) -> tuple[np.ndarray, np.ndarray]:
    """One room.

    Args:
        seed: any integer >= 0; the same seed and size give the same bytes.
        size: height and width in pixels.

    Returns:
        The image (H, W, 3) uint8 RGB and a map (H, W) uint8 of its surfaces.
    """
    rng = np.random.default_rng(seed)
    width, height, depth = rng.uniform(2.5, 6), rng.uniform(2.3, 3), rng.uniform(2.5, 7)
    eye = (rng.uniform(0.2, 0.8) * width, rng.uniform(1.0, 1.7), rng.uniform(0.05, 0.3) * depth)
    room = Room(
        rng, size, width, height, depth, eye, yaw=rng.normal(0, 0.35), pitch=rng.normal(-0.15, 0.12),
        focal=size[1] * rng.uniform(0.6, 1.1), light=(rng.uniform(0, width), height - 0.2, rng.uniform(0, depth)),
    )  # fmt: skip
    enclose(room)
    room.shell, room.faces = room.faces, []
    for z in sorted(rng.uniform(0.35, 0.98, rng.integers(5, 15)))[::-1]:
        rng.choice([cupboard, shelf, table, sofa, bed, chair])(room, z * depth)
    gain = rng.uniform(0.55, 1.25) * (1 + rng.normal(0, 0.06, 3))
    return expose(room.painted(), rng, TEXTURE, gain)


def enclose(room: Room) -> None:
    """Floor with boards or tiles, ceiling, four walls with what hangs on them."""
    rng, w, h, d = room.rng, room.width, room.height, room.depth
    floor, wall = (
        swatch(rng, "wood", "stone", "cream", "brick"),
        swatch(rng, "cream", "stone", "glass", "leaf", "brick"),
    )
    boards = int(rng.integers(2, 24))
    lines = [((k / boards, k / boards + 0.06 / w, 0, 1), floor * 0.8) for k in range(1, boards)]
    rug = (
        [((*sorted(rng.uniform(0, 1, 2)), *sorted(rng.uniform(0, 1, 2))), swatch(rng, *CLOTHS))]
        if rng.random() < 0.4
        else []
    )
    room.face([(0, 0, 0), (w, 0, 0), (w, 0, d), (0, 0, d)], floor, Surface.WOOD, [*lines, *rug])
    lamp = [((0.4, 0.6, 0.4, 0.5), np.full(3, 255.0))] if rng.random() < 0.4 else []
    room.face([(0, h, 0), (w, h, 0), (w, h, d), (0, h, d)], swatch(rng, "cream") + 20, Surface.PLASTER, lamp)
    for a, b in (((0, d), (w, d)), ((0, 0), (0, d)), ((w, 0), (w, d)), ((0, 0), (w, 0))):
        long, parts = math.dist(a, b), [((0, 1, 0, 0.04), swatch(rng, *TIMBERS))]
        for _ in range(rng.integers(0, 5)):
            parts += hung(rng, long, h)
        corners = [(a[0], 0, a[1]), (b[0], 0, b[1]), (b[0], h, b[1]), (a[0], h, a[1])]
        room.face(corners, wall * rng.uniform(0.9, 1.05), Surface.PLASTER, parts)


def hung(rng: np.random.Generator, long: float, high: float) -> Iterator[tuple]:
    """A window, picture or door on a wall of so many metres, as parts of it."""
    kind, left = rng.random(), rng.uniform(0, 0.85)
    if kind < 0.3:  # window: frame, panes, perhaps curtains
        wide, low, top = rng.uniform(0.6, 2) / long, rng.uniform(0.25, 0.4), rng.uniform(0.75, 0.92)
        yield (left, left + wide, low, top), swatch(rng, "cream", "wood")
        panes, sky = int(rng.integers(1, 4)), swatch(rng, "glass") * rng.uniform(0.6, 1.4)
        for k in range(panes):
            yield (left + wide * (k + 0.08) / panes, left + wide * (k + 0.92) / panes, low + 0.02, top - 0.02), sky
        if rng.random() < 0.5:
            cloth = swatch(rng, *CLOTHS)
            yield (left - 0.2 * wide, left + 0.1 * wide, low - 0.15, top + 0.03), cloth
            yield (left + 0.9 * wide, left + 1.2 * wide, low - 0.15, top + 0.03), cloth
    elif kind < 0.75:  # picture: frame, ground, a thing on it
        wide, tall, low = rng.uniform(0.2, 1) / long, rng.uniform(0.2, 0.9) / high, rng.uniform(0.4, 0.65)
        yield (left, left + wide, low, low + tall), swatch(rng, *TIMBERS)
        yield (left + 0.08 * wide, left + 0.92 * wide, low + 0.06 * tall, low + 0.94 * tall), swatch(rng, *CLOTHS)
        yield (left + 0.3 * wide, left + 0.7 * wide, low + 0.2 * tall, low + 0.6 * tall), swatch(rng, *CLOTHS)
    else:
        yield (left, left + 0.9 / long, 0, 2.0 / high), swatch(rng, *TIMBERS)
        yield (left + 0.75 / long, left + 0.8 / long, 1.0 / high, 1.05 / high), swatch(rng, "dark")


def _stand(room: Room, wide: float) -> tuple[float, float]:
    left = float(room.rng.uniform(-0.2, max(room.width - wide, 0) + 0.2))
    return left, left + wide


def _things(room: Room, x0: float, x1: float, y: float, z0: float, z1: float, most: int) -> None:
    """Small things on a top: books, boxes, bottles, a screen."""
    rng = room.rng
    for _ in range(rng.integers(0, most)):
        wide, tall, deep = rng.uniform(0.04, 0.35), rng.uniform(0.03, 0.4), rng.uniform(0.03, 0.2)
        x, z = rng.uniform(x0, max(x1 - wide, x0 + 0.01)), rng.uniform(z0, max(z1 - deep, z0 + 0.01))
        room.box((x, y, z), (x + wide, y + tall, z + deep), swatch(rng, *CLOTHS, "glass"), Surface.SMOOTH)
    if rng.random() < 0.3:
        x, wide = rng.uniform(x0, x1), rng.uniform(0.4, 1.0)
        screen = [((0.04, 0.96, 0.06, 0.96), swatch(rng, "dark", "glass"))]
        room.box(
            (x, y + 0.05, z1 - 0.06), (x + wide, y + 0.6 * wide, z1 - 0.02), swatch(rng, "dark"), Surface.SMOOTH, screen
        )


def cupboard(room: Room, z: float) -> None:
    """With doors or drawers, and things on it."""
    rng, (wide, tall, deep) = room.rng, room.rng.uniform((0.5, 0.6, 0.35), (2.2, 2.1, 0.6))
    (x0, x1), colour = _stand(room, wide), swatch(rng, *TIMBERS)
    across, up = rng.integers(1, 5, 2)
    doors = [
        ((k / across + 0.02, (k + 1) / across - 0.02, j / up + 0.02, (j + 1) / up - 0.02), colour * rng.uniform(0.85, 1.1))
        for k in range(across) for j in range(up)
    ]  # fmt: skip
    room.box((x0, 0, z), (x1, tall, z + deep), colour * 0.9, Surface.WOOD, doors)
    _things(room, x0, x1, tall, z, z + deep, 6)


def shelf(room: Room, z: float) -> None:
    """Boards full of books."""
    rng, (wide, tall) = room.rng, room.rng.uniform((0.5, 0.8), (2.0, 2.2))
    (x0, x1), colour, boards = _stand(room, wide), swatch(rng, *TIMBERS), int(rng.integers(2, 7))
    parts = []
    for row in range(boards):
        parts.append(((0.03, 0.97, row / boards + 0.02, (row + 1) / boards - 0.01), colour * 0.45))
        at = 0.03
        while at < 0.9 and rng.random() < 0.95:
            thick = float(rng.uniform(0.015, 0.06)) / wide
            if rng.random() < 0.85:
                parts.append(
                    (
                        (at, at + thick, row / boards + 0.02, (row + rng.uniform(0.5, 0.95)) / boards),
                        swatch(rng, *CLOTHS),
                    )
                )
            at += thick
    room.box((x0, 0, z), (x1, tall, z + 0.3), colour, Surface.WOOD, parts)


def table(room: Room, z: float) -> None:
    """A top on four legs, with things on it."""
    rng, (wide, tall, deep) = room.rng, room.rng.uniform((0.5, 0.4, 0.4), (2.0, 0.9, 1.0))
    (x0, x1), colour = _stand(room, wide), swatch(rng, *TIMBERS)
    for x in (x0, x1 - 0.06):
        for near in (z, z + deep - 0.06):
            room.box((x, 0, near), (x + 0.06, tall, near + 0.06), colour * 0.8, Surface.WOOD)
    room.box((x0, tall, z), (x1, tall + 0.05, z + deep), colour, Surface.WOOD)
    _things(room, x0, x1, tall + 0.05, z, z + deep, 9)


def chair(room: Room, z: float) -> None:
    """A seat, four legs and a back."""
    rng, colour = room.rng, swatch(room.rng, *TIMBERS, *CLOTHS)
    x0, x1 = _stand(room, 0.45)
    for x in (x0, x1 - 0.04):
        for near in (z, z + 0.41):
            room.box((x, 0, near), (x + 0.04, 0.45, near + 0.04), colour * 0.8, Surface.WOOD)
    room.box((x0, 0.45, z), (x1, 0.5, z + 0.45), colour, Surface.CLOTH)
    bars = [((k / 4 + 0.05, k / 4 + 0.2, 0.05, 0.9), colour * 0.5) for k in range(4)] if rng.random() < 0.5 else []
    back = z if rng.random() < 0.5 else z + 0.41
    room.box((x0, 0.5, back), (x1, 0.95, back + 0.04), colour, Surface.CLOTH, bars)


def sofa(room: Room, z: float) -> None:
    """A base, a back, two arms and cushions."""
    rng, wide, colour = room.rng, float(room.rng.uniform(0.8, 2.2)), swatch(room.rng, *CLOTHS)
    x0, x1 = _stand(room, wide)
    room.box((x0, 0.05, z), (x1, 0.42, z + 0.8), colour, Surface.CLOTH, [((0.02, 0.98, 0.5, 0.54), colour * 0.7)])
    room.box((x0, 0.42, z + 0.6), (x1, 0.85, z + 0.8), colour * 0.95, Surface.CLOTH)
    for x in (x0, x1 - 0.18):
        room.box((x, 0.05, z), (x + 0.18, 0.6, z + 0.8), colour * 0.9, Surface.CLOTH)
    for _ in range(rng.integers(0, 4)):
        x = float(rng.uniform(x0 + 0.18, max(x1 - 0.6, x0 + 0.2)))
        room.box((x, 0.42, z + 0.4), (x + 0.4, 0.75, z + 0.6), swatch(rng, *CLOTHS), Surface.CLOTH)


def bed(room: Room, z: float) -> None:
    """A frame, a blanket, pillows and a head board."""
    rng, wide = room.rng, float(room.rng.uniform(0.9, 1.9))
    (x0, x1), timber, cloth = _stand(room, wide), swatch(room.rng, *TIMBERS), swatch(room.rng, *CLOTHS)
    deep = float(rng.uniform(1.2, 2.0))
    room.box((x0, 0, z), (x1, 0.3, z + deep), timber, Surface.WOOD)
    room.box((x0, 0.3, z), (x1, 0.55, z + deep), cloth, Surface.CLOTH, [((0, 1, 0.7, 1), cloth * 1.15)])
    for k in range(int(rng.integers(1, 3))):
        x = x0 + 0.1 + k * 0.5 * wide
        room.box(
            (x, 0.55, z + deep - 0.45),
            (x + 0.4 * wide, 0.72, z + deep - 0.1),
            swatch(rng, "cream", *CLOTHS),
            Surface.CLOTH,
        )
    room.box((x0, 0, z + deep), (x1, rng.uniform(0.7, 1.2), z + deep + 0.06), timber, Surface.WOOD)
