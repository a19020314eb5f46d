"""What hangs on the walls of a procedural room: windows and pictures."""

from __future__ import annotations

import numpy as np

from segkd.procedural.materials import swatch
from segkd.procedural.room.camera import Label
from segkd.procedural.room.piece import Piece, even


def window(rng: np.random.Generator, day: float) -> Piece:
    """Frame, panes with the world outside, and curtains or a blind, all of class window.

    ``day`` is the light outside, 0 at night to 1 at noon. One in five reaches down to the floor.
    """
    wide, high, low = rng.uniform(0.8, 1.6), rng.uniform(1.85, 2.2), rng.uniform(0.75, 1.0)
    low = 0.08 if rng.random() < 0.2 else low
    curtain = rng.uniform(0.18, 0.34) if rng.random() < 0.5 else 0.0
    piece, side = Piece(Label.WINDOW, wide + 2 * curtain, 0.1, high, low), 0.5 * wide
    frame = swatch(rng, "cream", "cream", "wood", "dark")
    sky = (0.15 + 0.85 * day) * swatch(rng, "glass") + day * 45
    below = (0.12 + 0.8 * day) * swatch(rng, "leaf", "brick", "stone", "autumn")
    horizon = low + (high - low) * rng.uniform(0.1, 0.5)
    piece.add((-side, side), (low, high), (0.0, 0.04), frame)
    for across in even(0.06 - side, side - 0.06, max(round(wide / 0.6), 1), 0.09):
        piece.add(across, (low + 0.06, horizon), (0.04, 0.045), below, "glow")
        piece.add(across, (horizon, high - 0.06), (0.04, 0.045), sky, "glow")
    if curtain:
        fabric, drop = swatch(rng, "cream", "paint", "fabric", "leaf"), 0.06 if rng.random() < 0.5 else low - 0.1
        piece.low = min(low, drop)
        for start in (-side - curtain, side - 0.05):
            for index, fold in enumerate(even(start, start + curtain + 0.05, 4)):
                piece.add(fold, (drop, high + 0.1), (0.06, 0.1), fabric * (0.88 if index % 2 else 1.04))
        piece.add((-side - curtain - 0.05, side + curtain + 0.05), (high + 0.1, high + 0.15), (0.06, 0.1), frame * 0.7)
    elif rng.random() < 0.4:
        for index, slat in enumerate(even(rng.uniform(low + 0.3, high - 0.2), high, 6)):
            piece.add((-side, side), slat, (0.05, 0.08), frame * (0.95 if index % 2 else 0.85))
    return piece


def picture(rng: np.random.Generator) -> Piece:
    """A frame, perhaps a mount, and a landscape, an abstract or a portrait."""
    wide, tall, middle = rng.uniform(0.35, 0.75), rng.uniform(0.35, 0.65), rng.uniform(1.5, 1.7)
    low, high, side = middle - 0.5 * tall, middle + 0.5 * tall, 0.5 * wide
    piece, rim = Piece(Label.PICTURE, wide, 0.04, high, low), rng.uniform(0.03, 0.06)
    piece.add((-side, side), (low, high), (0.0, 0.03), swatch(rng, "dark", "wood", "cream", "autumn"))
    if rng.random() < 0.5:
        piece.add((rim - side, side - rim), (low + rim, high - rim), (0.03, 0.032), swatch(rng, "cream"))
        rim += 0.14 * min(wide, tall)
    left, right, bottom, top = rim - side, side - rim, low + rim, high - rim
    ground = swatch(rng, "paint", "glass", "cream", "fabric", "autumn")
    piece.add((left, right), (bottom, top), (0.032, 0.034), ground)
    kind, layers = rng.integers(3), even(0.034, 0.042, 4)  # what lies on what
    if kind == 0:
        for layer, level in zip(layers, sorted(rng.uniform(0.15, 0.65, 2), reverse=True), strict=False):
            edge = bottom + level * (top - bottom)
            piece.add((left, right), (bottom, edge), layer, swatch(rng, "leaf", "autumn", "wood", "glass"))
    elif kind == 1:
        for layer in layers[: rng.integers(2, 5)]:
            (a, b), (c, d) = np.sort(rng.uniform(left, right, 2)), np.sort(rng.uniform(bottom, top, 2))
            piece.add((a, b), (c, d), layer, swatch(rng, "paint", "dark", "brick", "cream"))
    else:
        x, y, size = 0.5 * (left + right), bottom + 0.62 * (top - bottom), 0.2 * min(right - left, top - bottom)
        coat, skin = swatch(rng, "dark", "paint"), swatch(rng, "skin")
        piece.add((x - 1.7 * size, x + 1.7 * size), (bottom, y - 0.6 * size), layers[0], coat)
        piece.add((x - size, x + size), (y - 1.3 * size, y + 1.3 * size), layers[1], skin, "ball")
    return piece
