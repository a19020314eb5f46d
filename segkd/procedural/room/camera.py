"""The camera that stands in a procedural room, and the room's light (numpy only).

World units are metres: ``x`` to the right, ``y`` up from the floor, ``z`` ahead, from the corner where the left wall
meets the front wall (which is mostly behind the camera).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

NEAR = 0.12  # metres ahead of the camera where shapes are cut off
SHIFT = 4  # fractional bits of cv2's sub-pixel coordinates


class Label(IntEnum):
    """The classes, in the order of their indices."""

    WALL = 0
    FLOOR = 1
    CEILING = 2
    WINDOW = 3
    PICTURE = 4
    BED = 5
    SOFA = 6
    CHAIR = 7
    TABLE = 8
    CABINET = 9
    OBJECTS = 10


@dataclass(frozen=True, eq=False)
class Camera:
    """A pinhole: picture size, the eye (3,), and its axes (3, 3): right, up, ahead."""

    size: tuple[int, int]
    zoom: float
    """The focal length as a share of the height of the 3:4 picture that fits into the size."""
    eye: np.ndarray
    axes: np.ndarray

    @classmethod
    def looking(
        cls, size: tuple[int, int], zoom: float, eye: tuple[float, float, float], yaw: float, pitch: float, roll: float
    ) -> Camera:
        """Turned by ``yaw`` to the right, then ``pitch`` upwards, then ``roll`` clockwise, in radians."""
        (sin, cos), (rise, level) = (math.sin(yaw), math.cos(yaw)), (math.sin(pitch), math.cos(pitch))
        ahead = np.array((sin * level, rise, cos * level))
        right, up = np.array((cos, 0, -sin)), np.array((-sin * rise, level, -cos * rise))
        tilt, upright = math.sin(roll), math.cos(roll)
        return cls(
            size, zoom, np.array(eye), np.stack((upright * right - tilt * up, tilt * right + upright * up, ahead))
        )

    @property
    def focal(self) -> float:
        """Focal length in pixels."""
        return self.zoom * min(self.size[0], 0.75 * self.size[1])

    @property
    def post(self) -> float:
        """Metres across, for each metre of distance, of what is 2.4 pixels wide at 96x128."""
        return 2.4 / 96 / self.zoom

    def view(self, points: np.ndarray) -> np.ndarray:
        """World points (..., 3) as seen from the eye: metres right, up and ahead."""
        return (points - self.eye) @ self.axes.T

    def pixels(self, view: np.ndarray) -> np.ndarray:
        """(..., 2) column and row of points (..., 3) of `view`; nothing comes nearer than `NEAR`."""
        reach = self.focal / np.maximum(view[..., 2], NEAR)
        middle = (self.size[1] - 1) / 2, (self.size[0] - 1) / 2
        return np.stack((view[..., 0] * reach + middle[0], middle[1] - view[..., 1] * reach), -1)

    def outline(self, view: np.ndarray) -> np.ndarray:
        """The pixels (K, 2) of a polygon (N, 3) of `view`, cut off at `NEAR`; K is 0 where all of it is behind."""
        ahead = view[:, 2] >= NEAR
        if ahead.all():
            return self.pixels(view)
        kept = []
        for here, there, visible, next_visible in zip(
            view, np.roll(view, -1, 0), ahead, np.roll(ahead, -1), strict=True
        ):
            if visible:
                kept.append(here)
            if visible != next_visible:
                kept.append(here + (there - here) * ((NEAR - here[2]) / (there[2] - here[2])))
        return self.pixels(np.array(kept).reshape(-1, 3))

    def rays(self) -> np.ndarray:
        """The directions (3, H, W), float32, in which the pixels look: x, y, z in the world, `focal` long ahead."""
        columns = np.arange(self.size[1], dtype=np.float32) - np.float32(0.5 * (self.size[1] - 1))
        rows = np.float32(0.5 * (self.size[0] - 1)) - np.arange(self.size[0], dtype=np.float32)
        right, up, ahead = self.axes.astype(np.float32)
        along = (ahead * np.float32(self.focal))[:, None] + right[:, None] * columns
        return (up[:, None] * rows)[:, :, None] + along[:, None, :]


@dataclass(frozen=True)
class Light:
    """One source, and what the room throws back: from a window or a lamp."""

    source: tuple[float, float, float]
    ambient: float
    direct: float
    reach: float
    """Metres at which the source gives half of its light."""

    def falling(self, squared: np.ndarray, rise: np.ndarray) -> np.ndarray:
        """Brightness of surfaces at a squared distance from the source that stands ``rise`` metres before them."""
        slant = np.maximum(rise, 0) / np.sqrt(squared + 1e-4)
        return self.ambient + self.direct * (0.3 + 0.7 * slant) / (1 + squared / self.reach**2)
