"""The camera that sees a procedural street and the brush that draws it (numpy and cv2 only).

World units are metres: ``x`` to the right of the camera, ``y`` up from the ground, ``z`` ahead. A road bend is part of
the camera, so that everything is placed in straight-street coordinates. The canvas carries (R, G, B, label): one
drawing call paints a shape and its label, which therefore agree to the pixel.
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import cv2
import numpy as np

from segkd.procedural.materials import Colour

SHIFT = 4  # fractional bits of cv2's sub-pixel coordinates


class Label(IntEnum):
    """The classes, in the order of their indices."""

    SKY = 0
    BUILDING = 1
    ROAD = 2
    PAVEMENT = 3
    VEGETATION = 4
    FENCE = 5
    POLE = 6
    CAR = 7
    PERSON = 8


@dataclass(frozen=True)
class Camera:
    """A pinhole above flat ground: focal length, horizon and vanishing point in pixels, height in metres."""

    size: tuple[int, int]
    unit: float
    """Pixels per pixel of a 96x128 picture."""
    focal: float
    height: float
    horizon: float
    vanish: float
    roll: float
    """Radians, clockwise."""
    bend: float
    """The street's axis lies at x = bend * z**2."""

    def project(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Pixels (..., 2) as (column, row) of world points, broadcast; nothing comes nearer than 0.8 m."""
        z = np.maximum(z, 0.8)
        centre = complex(self.size[1] / 2, self.size[0] / 2)  # column + i row: rolling is one multiplication
        turn = cmath.exp(1j * self.roll)
        middle = (complex(self.vanish, self.horizon) - centre) * turn + centre
        pixels = (x + 1j * (self.height - y)) * (self.focal * turn / z) + (self.focal * self.bend * turn) * z + middle
        return pixels[..., None].view(np.float64)

    @property
    def first_ground_row(self) -> int:
        """No pixel above this row shows ground."""
        return max(int(self.horizon - 0.5 * self.size[1] * abs(math.tan(self.roll))) - 1, 0)

    def ground(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """For every pixel (H, W): street ``x`` and ``z`` of the ground there, and whether it is below the horizon."""
        rows = np.arange(self.size[0], dtype=np.float32)[:, None] - self.size[0] / 2
        columns = np.arange(self.size[1], dtype=np.float32) - self.size[1] / 2
        cos, sin = math.cos(self.roll), math.sin(self.roll)
        drop = cos * rows - sin * columns + (self.size[0] / 2 - self.horizon)
        z = self.focal * self.height / np.maximum(drop, 0.5 * self.unit)
        x = (cos * columns + sin * rows + (self.size[1] / 2 - self.vanish)) * z / self.focal - self.bend * z * z
        return x, z, drop > 0


class Brush:
    """Draws on the canvas (H, W, 4) uint8, dimming colours into the haze with distance."""

    def __init__(self, camera: Camera, haze: Colour, density: float) -> None:
        self.camera = camera
        self.haze = haze
        self.density = density
        self.canvas = np.zeros((*camera.size, 4), np.uint8)

    def fill(self, pixels: np.ndarray, colour: Colour, label: Label, z: float) -> None:
        """Polygons (K, N, 2), which must not overlap one another, or one polygon (N, 2)."""
        points = (pixels * (1 << SHIFT)).astype(np.int32)
        polygons = [points] if points.ndim == 2 else list(points)
        if not polygons:
            return
        cv2.fillPoly(self.canvas, polygons, self.ink(colour, label, z), cv2.LINE_8, SHIFT)

    def ink(self, colour: Colour, label: Label, z: float) -> tuple[float, float, float, float]:
        """The canvas value of a colour seen through ``z`` metres of haze."""
        clear = math.exp(-self.density * z)
        (red, green, blue), haze, veil = colour.tolist(), self.haze.tolist(), 1 - clear
        return red * clear + haze[0] * veil, green * clear + haze[1] * veil, blue * clear + haze[2] * veil, float(label)


class Cutout:
    """A flat figure that faces the camera at ground point (x, z); shapes are given in metres right and up of it."""

    def __init__(self, brush: Brush, x: float, z: float, label: Label) -> None:
        camera = brush.camera
        self.brush, self.z, self.label = brush, z, label
        self.scale = camera.focal / z
        self.least = 3.2 * camera.unit / self.scale
        """Metres across that keep a thin part three pixels wide at 96x128."""
        self.foot = tuple(camera.project(np.float64(x), np.float64(0), z) * (1 << SHIFT))
        fixed = self.scale * (1 << SHIFT)
        self.turn = (math.cos(camera.roll) * fixed, math.sin(camera.roll) * fixed)

    def place(self, right: float, up: float) -> tuple[int, int]:
        """The cv2 fixed-point pixel of a point."""
        cos, sin = self.turn
        return int(self.foot[0] + cos * right + sin * up), int(self.foot[1] + sin * right - cos * up)

    def polygon(self, points: Sequence[tuple[float, float]], colour: Colour) -> None:
        """Fill a polygon of (right, up) points."""
        pixels = np.array([self.place(*point) for point in points], np.int32)
        cv2.fillPoly(self.brush.canvas, [pixels], self.brush.ink(colour, self.label, self.z), cv2.LINE_8, SHIFT)

    def beam(self, start: tuple[float, float], end: tuple[float, float], width: float, colour: Colour) -> None:
        """Fill a straight bar between two points."""
        (x0, y0), (x1, y1) = start, end
        reach = 0.5 * width / max(math.hypot(x1 - x0, y1 - y0), 1e-6)
        dx, dy = -(y1 - y0) * reach, (x1 - x0) * reach
        self.polygon(((x0 - dx, y0 - dy), (x0 + dx, y0 + dy), (x1 + dx, y1 + dy), (x1 - dx, y1 - dy)), colour)

    def disc(self, centre: tuple[float, float], wide: float, high: float, colour: Colour) -> None:
        """Fill an ellipse of the given radii."""
        fixed = self.scale * (1 << SHIFT)
        axes, ink = (int(wide * fixed), int(high * fixed)), self.brush.ink(colour, self.label, self.z)
        cv2.ellipse(self.brush.canvas, self.place(*centre), axes, 0, 0, 360, ink, cv2.FILLED, cv2.LINE_8, SHIFT)
