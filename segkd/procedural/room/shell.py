"""The bare room: what every pixel would show without furniture, by where its ray meets a wall, floor or ceiling."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from segkd.procedural.materials import Colour
from segkd.procedural.room.camera import SHIFT, Camera, Label, Light

Rectangle = tuple[float, float, float, float]
"""On the floor: low x, low z, high x, high z."""


@dataclass(frozen=True, eq=False)
class Room:
    """Width (x), height (y) and depth (z) in metres, and how its surfaces look."""

    size: tuple[float, float, float]
    wall: str
    """plain, stripes, wainscot or brick."""
    wall_colours: tuple[Colour, Colour, Colour]
    """Main, second (stripes, wainscot, mortar), and that of the accent wall."""
    accent: int
    """The wall of another colour: 0 left, 1 right, 2 back; 3 none."""
    period: float
    """Metres: of stripes, or the height of a wainscot."""
    skirting: tuple[float, Colour]
    floor: str
    """boards, tiles, chequer or carpet."""
    floor_colours: tuple[Colour, Colour]
    plank: tuple[float, float]
    """Width and length of a board or tile, in metres."""
    turned: bool
    """Boards run to the side, not ahead."""
    rug: Rectangle | None
    rug_colours: tuple[Colour, Colour]
    ceiling_colours: tuple[Colour, Colour]
    beams: float
    """Metres from beam to beam; 0: none."""


def paint(canvas: np.ndarray, camera: Camera, room: Room, light: Light) -> None:
    """Paint walls, floor and ceiling over the whole canvas (H, W, 4)."""
    place, is_side, is_level, is_floor = _meet(camera, room)
    is_wall = ~is_level
    material, tone = np.full(canvas.shape[:2], 8, np.uint8), np.ones(canvas.shape[:2], np.float32)
    material[is_wall], tone[is_wall] = _wall(room, place[:, is_wall], is_side[is_wall])
    material[is_floor], tone[is_floor] = _floor(room, place[0, is_floor], place[2, is_floor])
    if room.beams:
        material[is_level & ~is_floor & (place[2] % room.beams < 0.16)] = 9
    away = np.abs(np.array(light.source, np.float32)[:, None, None] - place)
    rise = np.where(is_side, away[0], np.where(is_level, away[1], away[2]))
    tone *= _corners(room, place) * light.falling(np.square(away).sum(0), rise)
    inks = np.array(
        (*room.wall_colours, room.skirting[1], *room.floor_colours, *room.rug_colours, *room.ceiling_colours)
    )
    canvas[..., :3] = np.clip(inks.astype(np.float32)[material] * tone[..., None], 0, 255)
    canvas[..., 3] = np.where(
        is_wall, np.uint8(Label.WALL), np.where(is_floor, np.uint8(Label.FLOOR), np.uint8(Label.CEILING))
    )


def _meet(camera: Camera, room: Room) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Where each pixel's ray meets the room: places (3, H, W); and (H, W): is it a side wall, floor or ceiling, floor?"""
    rays = camera.rays()
    rays[np.abs(rays) < 1e-6] = 1e-6
    eye = camera.eye.astype(np.float32)[:, None, None]
    reach = (np.where(rays > 0, np.array(room.size, np.float32)[:, None, None], 0) - eye) / rays
    is_side = (reach[0] <= reach[1]) & (reach[0] <= reach[2])
    is_level = ~is_side & (reach[1] <= reach[2])
    return eye + rays * reach.min(0), is_side, is_level, is_level & (rays[1] < 0)


def _wall(room: Room, place: np.ndarray, is_side: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices of colours and brightness factors of places (3, N) on the walls."""
    x, y, z = place
    along, left = np.where(is_side, z, x), x < 0.5 * room.size[0]
    accent = (is_side & left, is_side & ~left, ~is_side, np.zeros_like(is_side))[room.accent]
    index, tone = np.where(accent, np.uint8(2), np.uint8(0)), np.ones_like(y)
    if room.wall == "stripes":
        index[~accent & (along % room.period < 0.5 * room.period)] = 1
    elif room.wall == "wainscot":
        panel = y < room.period
        index[panel] = 1
        tone -= 0.25 * (np.abs(y - room.period) < 0.03) + 0.12 * (panel & (along % 0.3 < 0.03))
    elif room.wall == "brick":
        course = np.floor(y / 0.12)
        shifted = along + 0.13 * (course % 2)
        tone += 0.05 * ((course * 5 + np.floor(shifted / 0.26) * 3) % 4) - 0.08
        index[~accent & ((y % 0.12 < 0.022) | (shifted % 0.26 < 0.02))] = 1
    index[y < room.skirting[0]] = 3
    return index, tone


def _floor(room: Room, x: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices of colours and brightness factors of places (N,) on the floor."""
    across, along = (z, x) if room.turned else (x, z)
    index, tone = np.full(x.shape, 4, np.uint8), np.ones_like(x)
    (wide, long), row = room.plank, np.floor(across / room.plank[0])
    if room.floor == "boards":
        along = along + (row * 0.37 % 1) * long
        joint = (across % wide < 0.1 * wide) | (along % long < 0.02)
        tone = 0.86 + 0.07 * ((row * 3 + np.floor(along / long) * 5) % 5) - 0.18 * joint
    elif room.floor != "carpet":
        column = np.floor(along / wide)
        joint = (across % wide < 0.06 * wide) | (along % wide < 0.06 * wide)
        tone = 1 - 0.2 * joint + 0.03 * ((row * 7 + column * 13) % 3)
        if room.floor == "chequer":
            index[(row + column) % 2 > 0] = 5
    if room.rug is not None:
        west, south, east, north = room.rug
        inside = np.minimum(np.minimum(x - west, east - x), np.minimum(z - south, north - z))
        index[inside > 0], index[inside > 0.15], tone[inside > 0] = 7, 6, 1
    return index, tone


def _corners(room: Room, place: np.ndarray) -> np.ndarray:
    """Brightness: less where two surfaces meet. Every place lies on one surface, which darkens nothing by itself."""
    darkness = -np.ones(place.shape[1:], np.float32)
    for coordinate, size in zip(place, room.size, strict=True):
        darkness += np.exp(np.minimum(coordinate, size - coordinate) * np.float32(-5))
    return 1 - np.float32(0.22) * darkness


def cast_shadows(canvas: np.ndarray, camera: Camera, footprints: list[Rectangle], light: Light) -> None:
    """Darken the floor beneath and beside what stands on it, softly; the canvas holds the bare room."""
    shade = np.zeros(canvas.shape[:2], np.uint8)
    for west, south, east, north in footprints:
        aside = 0.12 * np.array((0.5 * (west + east) - light.source[0], 0.5 * (south + north) - light.source[2]))
        x, z = aside / max(float(np.hypot(*aside)) / 0.18, 1.0)  # away from the light, at most so many metres
        corners = np.array(((west, 0.0, south), (east, 0.0, south), (east, 0.0, north), (west, 0.0, north)))
        spread = np.array(((-0.08, 0, -0.08), (0.08, 0, -0.08), (0.08, 0, 0.08), (-0.08, 0, 0.08)))
        outline = camera.outline(camera.view(corners + spread + (x, 0.0, z)))
        if len(outline):
            cv2.fillConvexPoly(shade, (outline * (1 << SHIFT)).astype(np.int32), 255, cv2.LINE_8, SHIFT)
    soft = cv2.GaussianBlur(shade, (0, 0), max(canvas.shape[0] / 60, 0.3))
    dark = (0.45 / 255) * soft * (canvas[..., 3] == Label.FLOOR)
    canvas[..., :3] = canvas[..., :3] * (1 - dark)[..., None]
