"""Procedural street scenes with exact labels: a picture from a seed, without any file (numpy and cv2 only).

Light, weather, season, textures, viewpoint and layout vary; the classes share their colours, so that shape, texture and
place must be learnt.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from segkd.procedural.exposure import expose
from segkd.procedural.materials import swatch
from segkd.procedural.street.camera import Brush, Label
from segkd.procedural.street.plan import (
    Street,
    Thing,
    Weather,
    cars,
    choose_camera,
    choose_street,
    choose_weather,
    fences,
    furniture,
    houses,
    people,
    trees,
)

STREET_NAMES: tuple[str, ...] = tuple(label.name.lower() for label in Label)
STREET_PALETTE: tuple[tuple[int, int, int], ...] = (
    (120, 180, 230),
    (110, 75, 70),
    (105, 65, 130),
    (235, 120, 200),
    (95, 150, 60),
    (200, 160, 110),
    (245, 210, 40),
    (30, 60, 190),
    (220, 30, 60),
)


def render(seed: int, size: tuple[int, int] = (96, 128)) -> tuple[np.ndarray, np.ndarray]:
    """One street scene.

    Args:
        seed: any integer >= 0; the same seed and size give the same bytes.
        size: height and width in pixels.

    Returns:
        The image (H, W, 3) uint8 RGB and the mask (H, W) uint8 of indices into ``STREET_NAMES``, without void.
    """
    rng = np.random.default_rng(seed)
    camera, weather, street = choose_camera(rng, size), choose_weather(rng), choose_street(rng)
    brush = Brush(camera, weather.haze, weather.density)
    things = [
        *houses(rng, street, weather),
        *fences(rng, street),
        *trees(rng, street, weather),
        *furniture(rng, street),
        *(traffic := cars(rng, street)),
        *people(rng, street, traffic),
    ]
    paint_sky(brush, rng, weather)
    paint_ground(brush, rng, street, weather)
    cast_shadows(brush, things, weather)
    for thing in sorted(things, key=lambda thing: -thing.far):
        thing.draw(brush, rng)
    return expose(brush.canvas, rng, TEXTURE, weather.gain)


def paint_sky(brush: Brush, rng: np.random.Generator, weather: Weather) -> None:
    """A gradient from zenith to horizon, and soft clouds."""
    height, width = brush.camera.size
    down = np.clip(np.arange(height, dtype=np.float32) / max(brush.camera.horizon, 1), 0, 1)[:, None]
    field = cv2.resize(rng.random((5, 6), np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    cover = np.clip((field - 1 + weather.cloud) * 2.5, 0, 0.75)
    white = np.minimum(weather.haze * 0.5 + 125, 250) * rng.uniform(0.82, 1.0)
    for channel in range(3):
        zenith, haze, cloud = float(weather.zenith[channel]), float(weather.haze[channel]), float(white[channel])
        sky = zenith + (haze - zenith) * down
        brush.canvas[..., channel] = sky + (cloud - sky) * cover
    brush.canvas[..., 3] = Label.SKY


def ground_labels(street: Street, x: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Labels, of the shape of ``x``, of the bare ground."""
    (left, right), (west, east) = street.kerbs, street.fronts
    label = np.full(x.shape, Label.PAVEMENT, np.uint8)
    label[((x < west) & street.park[0]) | ((x > east) & street.park[1])] = Label.VEGETATION
    label[(x < left - 0.3) & (x > left - 0.3 - street.verges[0])] = Label.VEGETATION
    label[(x > right + 0.3) & (x < right + 0.3 + street.verges[1])] = Label.VEGETATION
    label[(x > left) & (x < right)] = Label.ROAD
    if street.junction is not None:
        label[(z > street.junction[0]) & (z < street.junction[1])] = Label.ROAD
    return label


def paving(rng: np.random.Generator, x: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Brightness factors of flagstones: joints between slabs of slightly different tones, fading with distance."""
    slab = rng.uniform(0.6, 1.3)
    across, along = x / slab, z / (slab * rng.uniform(0.8, 1.6))
    joint = (np.abs(across - np.rint(across)) < 0.09) | (np.abs(along - np.rint(along)) < 0.07)
    mottle = (np.floor(across) * 7 + np.floor(along) * 13) % 5
    return 1 + np.exp(z * (-1 / 14)) * (0.04 * mottle - 0.08 - 0.3 * joint)


def markings(rng: np.random.Generator, street: Street, x: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Where the road is marked: centre line, edge lines, a zebra before the junction."""
    (left, right), middle = street.kerbs, 0.5 * sum(street.kerbs)
    mark = (np.abs(x - middle) < 0.11) & (z % 6 < (2.5 if rng.random() < 0.5 else 6.0))
    if rng.random() < 0.5:
        mark |= (np.abs(x - left - 0.5) < 0.08) | (np.abs(x - right + 0.5) < 0.08)
    if street.junction is not None:
        start = street.junction[0]
        mark &= z < start - 3
        mark |= (z > start - 3) & (z < start - 0.5) & ((x - left) % 1.1 < 0.55)
    return mark


def paint_ground(brush: Brush, rng: np.random.Generator, street: Street, weather: Weather) -> None:
    """Road with markings, paved walks with joints and kerbs, grass; all fading into the haze."""
    x, z, below = (field[brush.camera.first_ground_row :] for field in brush.camera.ground())
    label = ground_labels(street, x, z)
    inks = np.zeros((len(Label) + 2, 3))  # the last two: kerb and marking
    inks[Label.ROAD] = swatch(rng, "asphalt")
    inks[Label.PAVEMENT] = swatch(rng, "stone")
    inks[Label.VEGETATION] = swatch(rng, *weather.foliage)
    inks[-2] = 0.35 * inks[Label.PAVEMENT] + 0.65 * swatch(rng, "stone", "cream")
    inks[-1] = swatch(rng, "cream")

    (left, right), paved, road = street.kerbs, label == Label.PAVEMENT, label == Label.ROAD
    material = label.copy()
    material[paved & (((x > left - 0.3) & (x <= left)) | ((x >= right) & (x < right + 0.3)))] = len(Label)
    material[road & markings(rng, street, x, z)] = len(Label) + 1
    light = np.where(paved, paving(rng, x, z), np.float32(1))
    reach, park = 7.0 * weather.sun, street.park
    shaded = ((x < street.fronts[0] - reach) & (not park[0])) | ((x > street.fronts[1] - reach) & (not park[1]))
    clear = np.exp(z * np.float32(-weather.density))
    light *= clear * (1 - np.float32(weather.shadow) * shaded)
    ground = brush.canvas[brush.camera.first_ground_row :]
    for channel in range(3):
        ink = inks[:, channel].astype(np.float32)[material] * light + np.float32(weather.haze[channel]) * (1 - clear)
        np.copyto(ground[..., channel], np.clip(ink, 0, 255).astype(np.uint8), where=below)
    np.copyto(ground[..., 3], label, where=below)


def cast_shadows(brush: Brush, things: list[Thing], weather: Weather) -> None:
    """Darken the ground beneath and beside what stands on it; labels stay."""
    casters = [(thing.x, thing.z, *thing.shadow) for thing in things if thing.shadow[2] > 0]
    if not casters:
        return
    x, z, wide, deep, tall = (column[:, None] for column in np.array(casters).T)
    away = -0.8 * weather.sun * tall if weather.shadow > 0.2 else 0 * tall
    turn = np.arange(8) * (math.pi / 4)
    x, z = x + wide * np.cos(turn), z + deep * np.sin(turn)
    pixels = brush.camera.project(np.hstack((x, x + away)), np.float64(0), np.hstack((z, z + 0.2 * tall)))
    shade = np.zeros(brush.camera.size, np.uint8)
    for outline in pixels.astype(np.int32):
        cv2.fillConvexPoly(shade, cv2.convexHull(outline), 255)
    ground = (shade > 0) & (brush.canvas[..., 3] != Label.SKY)
    brush.canvas[ground, :3] = brush.canvas[ground, :3] * (1 - max(weather.shadow, 0.15))


TEXTURE = np.zeros((len(Label), 3), np.float32)
TEXTURE[Label.BUILDING] = (0.03, 0.02, 0.07)
TEXTURE[Label.ROAD] = (0.07, 0.03, 0.10)
TEXTURE[Label.PAVEMENT] = (0.04, 0.02, 0.08)
TEXTURE[Label.VEGETATION] = (0.08, 0.20, 0.06)
TEXTURE[Label.FENCE] = (0.03, 0.0, 0.04)
TEXTURE[Label.CAR] = (0.0, 0.0, 0.05)
