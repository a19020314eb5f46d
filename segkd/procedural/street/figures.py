"""How each thing in a procedural street is drawn: houses, fences, trees, street furniture, cars, people."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from segkd.procedural.materials import BLACK, LAMPLIGHT, WHITE, Colour, swatch
from segkd.procedural.street.camera import Brush, Cutout, Label

Ground = tuple[float, float]
"""A point (x, z)."""

Part = tuple[np.ndarray, np.ndarray, Colour]
"""Rectangles on a wall: ``along`` (K, 2) in 0..1 of its length, ``up`` (K, 2) in metres, and their colour."""

WHOLE = np.array(((0.0, 1.0),))


def band(low: float, high: float) -> np.ndarray:
    """One interval as (1, 2)."""
    return np.array(((low, high),))


def paint_wall(brush: Brush, a: Ground, b: Ground, parts: list[Part], label: Label) -> None:
    """Paint upright rectangles over the ground line a-b, in their order; nothing if the first is out of the picture."""
    along = np.concatenate([part[0] for part in parts]).take((0, 1, 1, 0), 1)
    up = np.concatenate([part[1] for part in parts]).take((0, 0, 1, 1), 1)
    pixels = brush.camera.project(a[0] + (b[0] - a[0]) * along, up, a[1] + (b[1] - a[1]) * along)
    columns = pixels[0, :, 0]
    if columns.max() < 0 or columns.min() > brush.camera.size[1]:
        return
    start = 0
    for part in parts:
        stop = start + len(part[0])
        brush.fill(pixels[start:stop], part[2], label, 0.5 * (a[1] + b[1]))
        start = stop


def strips(start: float, stop: float, count: int, share: float) -> np.ndarray:
    """(count, 2) intervals, evenly spread over start..stop, each covering ``share`` of its pitch from its middle."""
    pitch = (stop - start) / count
    ends = np.array((0.5 - 0.5 * share, 0.5 + 0.5 * share)) * pitch + start
    return ends + (np.arange(count) * pitch)[:, None]


@dataclass(frozen=True)
class Facade:
    """How a building looks."""

    height: float
    colour: Colour
    window: Colour
    lit: float
    """Share of lit windows."""
    bay: float
    """Metres from window to window."""
    glazed: tuple[float, float]
    """Share of each bay that is glass, along and up."""
    courses: bool
    shop: Colour | None
    roof: Colour | None


def draw_wall(brush: Brush, rng: np.random.Generator, a: Ground, b: Ground, look: Facade, shade: float) -> None:
    """A wall with brick courses, windows, perhaps a shop front and a roof edge."""
    parts: list[Part] = [(WHOLE, band(0.0, look.height), look.colour * shade)]
    if look.courses and a[1] + b[1] < 40:
        lines = strips(0, look.height, max(int(look.height / 0.55), 1), 0.22)
        parts.append((WHOLE.repeat(len(lines), 0), lines, look.colour * (0.84 * shade)))
    floors = max(round((look.height - 0.6) / 3.1), 1)
    bays = max(round(math.dist(a, b) / look.bay), 1)
    columns, rows = strips(0, 1, bays, look.glazed[0]), strips(0.3, look.height - 0.3, floors, look.glazed[1])
    along, up = columns[np.arange(floors * bays) % bays], rows.repeat(bays, 0)
    lit = rng.random(len(along)) < look.lit
    parts += [(along, up, look.window * shade), (along[lit], up[lit], LAMPLIGHT)]
    if look.shop is not None:
        parts.append((WHOLE, band(0.0, 0.6), look.shop * (0.7 * shade)))
        parts.append((strips(0, 1, bays, 0.82), band(0.6, 2.4).repeat(bays, 0), look.window * (0.9 * shade)))
        parts.append((WHOLE, band(2.4, 3.2), look.shop * shade))
    if look.roof is not None:
        parts.append((WHOLE, band(look.height - 0.5, look.height + 0.5), look.roof * shade))
    paint_wall(brush, a, b, parts, Label.BUILDING)


def draw_building(
    brush: Brush,
    rng: np.random.Generator,
    x: float,
    span: tuple[float, float],
    look: Facade,
    joined: bool,
    shade: float,
) -> None:
    """A house beside the street, over a span of ``z``: the end wall that faces us, blank if joined, then the front."""
    near, outside = span[0], x + math.copysign(12.0, x)
    if joined:
        corners = np.array((x, outside, outside, x)), np.array((0, 0, look.height, look.height))
        brush.fill(brush.camera.project(*corners, np.full(4, near)), look.colour * 0.86, Label.BUILDING, near)
    else:
        draw_wall(brush, rng, (x, near), (outside, near), look, 0.86)
    draw_wall(brush, rng, (x, near), (x, span[1]), look, shade)


def draw_fence(brush: Brush, rng: np.random.Generator, a: Ground, b: Ground, height: float, colour: Colour) -> None:
    """Upright boards between two rails; the gaps belong to the fence."""
    boards = max(int(math.dist(a, b) / 0.42), 1)
    top = max(height, 2.25 * brush.camera.unit * (a[1] + b[1]) / brush.camera.focal)
    rails = np.array(((0.2, 0.32), (0.8, 0.92))) * top
    parts: list[Part] = [
        (WHOLE, band(0.0, top), colour * 0.55),
        (strips(0, 1, boards, 0.55), band(0.0, top).repeat(boards, 0), colour),
        (WHOLE.repeat(2, 0), rails, colour * 1.12),
    ]
    paint_wall(brush, a, b, parts, Label.FENCE)


def draw_tree(
    brush: Brush, rng: np.random.Generator, x: float, z: float, height: float, leaves: Colour, bark: Colour, sun: float
) -> None:
    """A trunk under a crown of overlapping leaf masses, brighter towards the sun."""
    tree = Cutout(brush, x, z, Label.VEGETATION)
    crown = 0.3 * height
    tree.beam((0, 0), (0, 0.6 * height), max(0.09 * height, tree.least), bark)
    for tone in (0.72, 0.72, 0.72, 0.9, 0.9, 1.08, 1.2):
        turn, reach = rng.uniform(0, 2 * math.pi), rng.uniform(0.2, 0.6) * crown
        lift = 0.45 * crown * (tone - 0.85)
        centre = (reach * math.cos(turn) + sun * lift, 0.66 * height + 0.8 * reach * math.sin(turn) + lift)
        size = crown * rng.uniform(0.5, 0.72) * (1.35 - 0.55 * tone)
        tree.disc(centre, 1.1 * size, size, leaves * tone)


def draw_bush(brush: Brush, rng: np.random.Generator, x: float, z: float, width: float, leaves: Colour) -> None:
    """A hedge or bush: a row of leaf masses on the ground."""
    bush = Cutout(brush, x, z, Label.VEGETATION)
    for tone in (0.75, 0.75, 0.95, 1.1):
        size = width * rng.uniform(0.22, 0.34)
        bush.disc((rng.uniform(-0.3, 0.3) * width, size * tone * 0.9), size, 0.9 * size, leaves * tone)


def draw_furniture(
    brush: Brush, rng: np.random.Generator, x: float, z: float, kind: str, metal: Colour, face: Colour
) -> None:
    """A street ``lamp``, a traffic ``light`` or a road ``sign``, all of class pole."""
    pole = Cutout(brush, x, z, Label.POLE)
    width = max(0.14, pole.least)
    inward = -math.copysign(1.0, x)
    if kind == "lamp":
        top = rng.uniform(4.6, 6.2)
        pole.beam((0, 0), (0, top), width, metal)
        pole.beam((0, top), (inward * 1.3, top + 0.25), width, metal)
        pole.beam((inward * 0.9, top + 0.2), (inward * 1.7, top + 0.3), width * 1.3, face)
    elif kind == "light":
        pole.beam((0, 0), (0, 2.6), width, metal)
        pole.beam((0, 2.2), (0, 3.5), max(0.5, 1.6 * pole.least), BLACK)
        burning = rng.integers(3)
        for index, lamp in enumerate(((230.0, 60, 50), (240.0, 180, 60), (70.0, 210, 110))):
            pole.disc((0, 3.25 - 0.4 * index), 0.16, 0.16, np.array(lamp) * (1.0 if index == burning else 0.35))
    else:
        high = rng.uniform(2.2, 2.8)
        pole.beam((0, 0), (0, high), width, metal)
        sides, radius = (3, 4, 8, 16)[rng.integers(4)], max(0.45, 1.5 * pole.least)
        turns = [(2 * i + sides % 2 + (sides == 4)) * math.pi / sides - math.pi / 2 for i in range(sides)]
        for reach, tone in ((radius, face), (0.62 * radius, WHITE)):
            pole.polygon([(reach * math.cos(turn), high + reach * math.sin(turn)) for turn in turns], tone)


# A car's outline from the side: metres along from its middle and up; hatchback, saloon, van.
CAR_OUTLINES: tuple[tuple[tuple[float, float], ...], ...] = (
    ((-2.0, 0.3), (-2.05, 0.9), (-1.75, 1.5), (0.3, 1.52), (1.0, 0.95), (1.95, 0.85), (2.0, 0.3)),
    ((-2.3, 0.3), (-2.3, 0.95), (-1.6, 1.02), (-1.0, 1.45), (0.5, 1.45), (1.2, 0.95), (2.2, 0.85), (2.3, 0.3)),
    ((-2.4, 0.35), (-2.45, 1.0), (-2.35, 2.0), (1.2, 2.0), (1.9, 1.15), (2.4, 1.0), (2.4, 0.35)),
)


def draw_car(
    brush: Brush, rng: np.random.Generator, x: float, z: float, across: bool, reverse: bool, colour: Colour
) -> None:
    """A car along the street, or across it: body swept over its width, glass, wheels, lights and plate."""
    outline = np.array(CAR_OUTLINES[rng.integers(len(CAR_OUTLINES))])
    long, up = outline[:, 0] * (-1 if reverse else 1), outline[:, 1]
    side = 0.88 if across or x < 0 else -0.88
    glass = swatch(rng, "dark", "glass") * 0.8

    def place(along: np.ndarray, high: np.ndarray, over: np.ndarray | float) -> np.ndarray:
        if across:
            return brush.camera.project(x + along, high, z - np.asarray(over))
        return brush.camera.project(x + np.asarray(over), high, z + along)

    def paint(pixels: np.ndarray, tone: Colour) -> None:
        brush.fill(pixels, tone, Label.CAR, z)

    far, near = place(long, up, -side), place(long, up, side)
    for i in np.argsort(-(long + np.roll(long, -1))):  # the far panels first
        j = (i + 1) % len(long)
        steep = abs(up[j] - up[i]) > 0.4 * abs(long[j] - long[i]) and max(up[i], up[j]) > 1.2
        paint(np.stack((far[i], far[j], near[j], near[i])), glass if steep else colour * 1.08)
    paint(near, colour * 0.9)
    top = up.max()
    cabin = np.flatnonzero(up > 0.9)
    middle = long[cabin].mean()
    pane = place(middle + 0.78 * (long[cabin] - middle), np.clip(up[cabin], 1.02, top - 0.12), side)
    if len(cabin) > 2:
        paint(cv2.convexHull(pane.astype(np.float32))[:, 0], glass)
    turn = np.arange(10) * (math.pi / 5)
    for hub in (-1.35, 1.35):
        paint(place(hub + 0.36 * np.cos(turn), 0.34 + 0.36 * np.sin(turn), side), BLACK)
        paint(place(hub + 0.17 * np.cos(turn), 0.34 + 0.17 * np.sin(turn), side), np.full(3, 150.0))
    if not across:
        tail = float(long.min())
        low, high = 0.3, float(up[np.argmin(long)]) + 0.5
        paint(place(np.full(4, tail), np.array((low, low, high, high)), np.array((-0.88, 0.88, 0.88, -0.88))), colour)
        lamps = np.array((245.0, 240, 210)) if reverse else np.array((205.0, 36, 36))
        for edge in (-0.68, 0.68):
            spread = edge + np.array((-0.17, 0.17, 0.17, -0.17))
            paint(place(np.full(4, tail), np.array((0.62, 0.62, 0.82, 0.82)), spread), lamps)
        corners = np.array((-0.86, -0.56, 0.56, 0.86))
        paint(place(np.full(4, tail), np.array((0.3, 0.22, 0.22, 0.3)), corners), BLACK)
        paint(place(np.full(4, tail), np.array((0.42, 0.42, 0.54, 0.54)), np.array((-0.3, 0.3, 0.3, -0.3))), WHITE)


def draw_person(
    brush: Brush,
    rng: np.random.Generator,
    x: float,
    z: float,
    height: float,
    colours: tuple[Colour, Colour, Colour, Colour],
) -> None:
    """A walker: legs in stride, coat, arms, head and hair. Colours: coat, trousers, skin, hair."""
    person = Cutout(brush, x, z, Label.PERSON)
    coat, trousers, skin, hair = colours
    size, stride, swing = height / 1.75, rng.uniform(0.05, 0.3), rng.uniform(-0.2, 0.2)
    limb = max(0.2, 0.7 * person.least)

    def at(right: float, up: float) -> tuple[float, float]:
        return right * size, up * size

    for way in (-1, 1):
        person.beam(at(way * stride, 0), at(way * 0.09, 0.9), limb, trousers)
        person.beam(at(way * (0.3 + swing), 0.75), at(way * 0.22, 1.36), 0.7 * limb, coat * 0.85)
    person.polygon(
        [at(-0.2, 0.78), at(0.2, 0.78), at(0.28, 1.4), at(0.14, 1.48), at(-0.14, 1.48), at(-0.28, 1.4)], coat
    )
    person.disc(at(0, 1.63), 0.17 * size, 0.19 * size, hair)
    person.disc(at(0.03, 1.58), 0.13 * size, 0.13 * size, skin)
