"""The small things of a procedural room, which share a class: lamps, plants, vases, books, screens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from segkd.procedural.materials import BLACK, LAMPLIGHT, Colour, swatch
from segkd.procedural.room.camera import Label
from segkd.procedural.room.piece import TRIFLE, Piece, even


def put_on(rng: np.random.Generator, piece: Piece, kinds: Sequence[str], count: int) -> None:
    """Set so many things on top of a piece, side by side: any of the kinds lamp, books, vase, plant, screen."""
    for left, right in even(-0.5 * piece.wide, 0.5 * piece.wide, max(count, 1), 0.04)[:count]:
        kind, centre = kinds[rng.integers(len(kinds))], rng.uniform(0.45, 0.55) * (left + right)
        if kind == "plant":
            _add_plant(rng, piece, centre, 0.5 * piece.deep, piece.high, rng.uniform(0.3, 0.5))
        elif kind == "screen":
            _add_screen(rng, piece, centre, min(rng.uniform(0.55, 1.1), right - left))
        else:
            _add_trifle(rng, piece, kind, centre)


def _add_trifle(rng: np.random.Generator, piece: Piece, kind: str, centre: float) -> None:
    """A table lamp, a pile of books or a vase."""
    top, out = piece.high, 0.5 * piece.deep

    def add(wide: float, low: float, high: float, deep: float, colour: Colour, shape: str = "box") -> None:
        half, back = 0.5 * wide, 0.5 * deep
        place = (centre - half, centre + half), (top + low, top + high), (out - back, out + back)
        piece.add(*place, colour, shape, Label.OBJECTS)

    if kind == "lamp":
        tall, shade = rng.uniform(0.38, 0.55), rng.uniform(0.22, 0.34)
        add(0.05, 0.0, tall - 0.2, 0.05, swatch(rng, *TRIFLE), "post")
        add(shade, tall - 0.2, tall, shade, _shade(rng), "cone")
    elif kind == "books":
        for low, high in even(0.0, 0.05 * rng.integers(2, 5), 2):
            add(rng.uniform(0.24, 0.34), low, high, 0.2, swatch(rng, *TRIFLE))
    else:
        wide = rng.uniform(0.1, 0.18)
        add(wide, 0.0, rng.uniform(0.2, 0.34), wide, swatch(rng, *TRIFLE), "pot")


def _add_screen(rng: np.random.Generator, piece: Piece, centre: float, wide: float) -> None:
    """A monitor or television that shines by itself, or is off."""
    high, out, half = 0.58 * wide, 0.5 * piece.deep, 0.5 * wide
    top, objects = piece.high, Label.OBJECTS
    glow = swatch(rng, "dark", "dark", "glass", "paint") * 0.8
    piece.add((centre - 0.1, centre + 0.1), (top, top + 0.05), (out - 0.07, out + 0.07), BLACK, "box", objects)
    piece.add(
        (centre - half, centre + half), (top + 0.05, top + 0.05 + high), (out - 0.02, out + 0.02), BLACK, "box", objects
    )
    picture = (centre - half + 0.025, centre + half - 0.025), (top + 0.08, top + 0.02 + high)
    piece.add(*picture, (out + 0.02, out + 0.03), glow, "glow", objects)


def _add_plant(rng: np.random.Generator, piece: Piece, centre: float, out: float, low: float, high: float) -> None:
    """A pot with a few masses of leaves, ``high`` metres in all."""
    pot, half, leaves = 0.28 * high, 0.13 * high + 0.03, swatch(rng, "leaf", "leaf", "autumn")
    place = (centre - half, centre + half), (low, low + pot), (out - half, out + half)
    piece.add(*place, swatch(rng, *TRIFLE), "pot", Label.OBJECTS)
    tall = rng.uniform(0.8, 2.0)  # of a mass of leaves: round to upright
    for tone, side in ((0.7, 0.0), (0.8, -0.2), (0.95, 0.22), (1.1, -0.1), (1.25, 0.12)):
        size = high * rng.uniform(0.07, 0.12)
        x, y = centre + (side + rng.uniform(-0.06, 0.06)) * high, low + high * rng.uniform(0.45, 0.8)
        place = (x - size, x + size), (max(y - tall * size, low + pot), y + tall * size), (out - size, out + size)
        piece.add(*place, leaves * tone, "ball", Label.OBJECTS)


def plant(rng: np.random.Generator) -> Piece:
    """A plant that stands on the floor."""
    piece = Piece(Label.OBJECTS, 0.45, 0.45, rng.uniform(0.7, 1.4))
    _add_plant(rng, piece, 0.0, 0.22, 0.0, piece.high)
    return piece


def floor_lamp(rng: np.random.Generator) -> Piece:
    """A pole with a shade."""
    high, shade = rng.uniform(1.4, 1.75), rng.uniform(0.32, 0.46)
    piece, half = Piece(Label.OBJECTS, shade, shade, high), 0.5 * shade
    metal = swatch(rng, "dark", "wood", "stone")
    piece.add((-0.14, 0.14), (0.0, 0.04), (half - 0.14, half + 0.14), metal)
    piece.add((-0.02, 0.02), (0.04, high - 0.32), (half - 0.02, half + 0.02), metal, "post")
    piece.add((-half, half), (high - 0.32, high), (0.0, shade), _shade(rng), "cone")
    return piece


def pendant(rng: np.random.Generator, ceiling: float) -> Piece:
    """A lamp that hangs from the ceiling."""
    shade, low = rng.uniform(0.28, 0.46), ceiling - rng.uniform(0.35, 0.8)
    piece, half = Piece(Label.OBJECTS, shade, shade, ceiling, low), 0.5 * shade
    piece.add((-0.01, 0.01), (low + 0.22, ceiling), (half - 0.01, half + 0.01), swatch(rng, "dark"), "post")
    shape = "ball" if rng.random() < 0.4 else "cone"
    piece.add((-half, half), (low, low + 0.22), (0.0, shade), _shade(rng), shape)
    return piece


def _shade(rng: np.random.Generator) -> Colour:
    return LAMPLIGHT if rng.random() < 0.5 else swatch(rng, "cream", "paint")
