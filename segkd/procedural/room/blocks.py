"""Blocks along the room's axes, of which everything in a procedural room is built, drawn from the farthest on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from segkd.procedural.materials import Colour
from segkd.procedural.room.camera import NEAR, SHIFT, Camera, Label, Light

Point = tuple[float, float, float]

# The corners of a block are numbered by bits (1: x high, 2: y high, 4: z high); its faces are x low, x high, y low, ...
CORNERS = np.array([[i & 1, i >> 1 & 1, i >> 2 & 1] for i in range(8)], bool)
FACES = np.array([[0, 2, 6, 4], [1, 3, 7, 5], [0, 1, 5, 4], [2, 3, 7, 6], [0, 1, 3, 2], [4, 5, 7, 6]])


class Block(NamedTuple):
    """A box between two corners, or what is drawn flat in its place.

    ``shape``: box; post (a box that never gets thinner than `Camera.post`); glow (a box that shines by itself); or what
    faces the camera as wide and high as the box: ball, cone (narrow above) and pot (narrow below).
    """

    low: Point
    high: Point
    colour: Colour
    label: Label
    shape: str = "box"


def painters_order(low: np.ndarray, high: np.ndarray, eye: np.ndarray) -> np.ndarray:
    """The order (N,) in which boxes (N, 3) must be drawn so that none covers what stands before it.

    Of two boxes with a plane between them, the one on the eye's side may hide the other; of all that nothing undrawn
    must precede, the farthest comes first.
    """
    middle = 0.5 * (low + high)
    order = np.argsort(-np.square(middle - eye).sum(1), kind="stable")
    low, high = low[order], high[order]
    below = (high[None] <= low[:, None] + 1e-4) & (eye <= low + 1e-4)[:, None]  # j is low of i, and so is the eye
    above = (low[None] >= high[:, None] - 1e-4) & (eye >= high - 1e-4)[:, None]
    hides = ~(below | above).any(2)  # i may hide j
    first = hides.T & ~hides  # i must be drawn before j
    waiting, chosen = first.sum(0), []
    for _ in range(len(low)):
        index = int(waiting.argmin())  # the first of the least: 0, but in a circle, which can only be cut
        chosen.append(index)
        waiting -= first[index]
        waiting[index] = len(low) + 1
    return order[chosen]


def draw(canvas: np.ndarray, camera: Camera, blocks: Sequence[Block], light: Light) -> None:
    """Draw blocks on a canvas (H, W, 4) of (R, G, B, label): each face is one colour, as bright as the light falls."""
    if not blocks:
        return
    low, high = np.array([block.low for block in blocks]), np.array([block.high for block in blocks])
    _widen_posts(camera, low, high, np.array([block.shape == "post" for block in blocks]))
    view = camera.view(np.where(CORNERS, high[:, None], low[:, None]))
    pixels = camera.pixels(view)
    shown = (view[..., 2].max(1) > NEAR) & (pixels[..., 0].max(1) > 0) & (pixels[..., 0].min(1) < camera.size[1])
    facing = np.stack((camera.eye < low, camera.eye > high), -1).reshape(-1, 6)
    whole = view[..., 2].min(1) > NEAR
    faces = (pixels[:, FACES] * (1 << SHIFT)).astype(np.int32, "C")
    bright = _brightness(light, low, high)
    kept = np.flatnonzero(shown)
    for index in kept[painters_order(low[kept], high[kept], camera.eye)]:
        block = blocks[index]
        if block.shape in ("ball", "cone", "pot"):
            if whole[index]:
                _draw_flat(canvas, camera, block, pixels[index])
            continue
        for face in np.flatnonzero(facing[index]):
            outline = faces[index, face]
            if not whole[index]:
                outline = (camera.outline(view[index, FACES[face]]) * (1 << SHIFT)).astype(np.int32)
            if len(outline):
                ink = _ink(block, 1.0 if block.shape == "glow" else bright[index, face])
                cv2.fillConvexPoly(canvas, outline, ink, cv2.LINE_8, SHIFT)


def _widen_posts(camera: Camera, low: np.ndarray, high: np.ndarray, posts: np.ndarray) -> None:
    least = 0.5 * camera.post * np.maximum(camera.view(0.5 * (low + high))[:, 2], 0)
    for axis in (0, 2):
        grown = np.where(posts, np.maximum(least - 0.5 * (high[:, axis] - low[:, axis]), 0), 0)
        low[:, axis] -= grown
        high[:, axis] += grown


def _brightness(light: Light, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """(N, 6): how much light falls on the middle of each face."""
    middle, half, source = 0.5 * (low + high), 0.5 * (high - low), np.array(light.source)
    away = (middle - source)[:, None].repeat(6, 1)
    rise = np.empty(away.shape[:2])
    for axis in range(3):
        for side, sign in ((0, -1), (1, 1)):
            away[:, 2 * axis + side, axis] += sign * half[:, axis]
            rise[:, 2 * axis + side] = -sign * away[:, 2 * axis + side, axis]
    return light.falling(np.square(away).sum(-1), rise)


def _draw_flat(canvas: np.ndarray, camera: Camera, block: Block, corners: np.ndarray) -> None:
    """An ellipse or a trapezoid in the rectangle that a block covers on the picture."""
    (left, top), (right, bottom) = corners.min(0), corners.max(0)
    middle, wide = 0.5 * (left + right), 0.5 * (right - left)
    ink = _ink(block, 1.0)
    if block.shape == "ball":
        centre = (int(middle * (1 << SHIFT)), int(0.5 * (top + bottom) * (1 << SHIFT)))
        axes = (int(wide * (1 << SHIFT)), int(0.5 * (bottom - top) * (1 << SHIFT)))
        cv2.ellipse(canvas, centre, axes, 0, 0, 360, ink, cv2.FILLED, cv2.LINE_8, SHIFT)
        return
    above, below = (0.55, 1.0) if block.shape == "cone" else (1.0, 0.65)
    outline = np.array(((middle - above * wide, top), (middle + above * wide, top), (middle + below * wide, bottom),
                        (middle - below * wide, bottom)))  # fmt: skip
    cv2.fillConvexPoly(canvas, (outline * (1 << SHIFT)).astype(np.int32), ink, cv2.LINE_8, SHIFT)


def _ink(block: Block, bright: float) -> tuple[float, float, float, float]:
    red, green, blue = block.colour.tolist()
    return red * bright, green * bright, blue * bright, float(block.label)
