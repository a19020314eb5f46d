"""Procedural rooms with exact labels: a picture from a seed, without any file (numpy and cv2 only).

Light, surfaces, furniture, measures and viewpoint vary; the classes share their colours, so that shape, texture and
place must be learnt.
"""

from __future__ import annotations

import numpy as np

from segkd.procedural.exposure import expose
from segkd.procedural.room import shell
from segkd.procedural.room.blocks import draw
from segkd.procedural.room.camera import Label
from segkd.procedural.room.furnish import furnish
from segkd.procedural.room.setting import choose_camera, choose_day, choose_light, choose_room

ROOM_NAMES: tuple[str, ...] = tuple(label.name.lower() for label in Label)
ROOM_PALETTE: tuple[tuple[int, int, int], ...] = (
    (205, 195, 175),
    (150, 110, 75),
    (235, 235, 240),
    (100, 185, 235),
    (215, 80, 150),
    (70, 100, 190),
    (60, 150, 90),
    (235, 145, 50),
    (170, 60, 50),
    (115, 80, 140),
    (240, 215, 70),
)

TEXTURE = np.zeros((len(Label), 3), np.float32)
TEXTURE[Label.WALL] = (0.025, 0.01, 0.05)
TEXTURE[Label.FLOOR] = (0.04, 0.03, 0.07)
TEXTURE[Label.CEILING] = (0.015, 0.0, 0.04)
TEXTURE[Label.PICTURE] = (0.03, 0.08, 0.08)
TEXTURE[Label.BED] = (0.03, 0.05, 0.05)
TEXTURE[Label.SOFA] = (0.05, 0.06, 0.04)
TEXTURE[Label.CHAIR] = (0.03, 0.02, 0.03)
TEXTURE[Label.TABLE] = (0.03, 0.02, 0.05)
TEXTURE[Label.CABINET] = (0.03, 0.02, 0.05)
TEXTURE[Label.OBJECTS] = (0.03, 0.06, 0.03)


def render(seed: int, size: tuple[int, int] = (96, 128)) -> tuple[np.ndarray, np.ndarray]:
    """One room.

    Args:
        seed: any integer >= 0; the same seed and size give the same bytes.
        size: height and width in pixels.

    Returns:
        The image (H, W, 3) uint8 RGB and the mask (H, W) uint8 of indices into ``ROOM_NAMES``, without void.
    """
    rng = np.random.default_rng(seed)
    room = choose_room(rng)
    camera = choose_camera(rng, size, room)
    day = choose_day(rng)
    plan = furnish(rng, room, camera, day)
    light = choose_light(rng, room, plan.blocks, day)
    canvas = np.empty((*size, 4), np.uint8)
    shell.paint(canvas, camera, room, light)
    shell.cast_shadows(canvas, camera, plan.standing, light)
    draw(canvas, camera, plan.blocks, light)
    warmth = rng.normal(0.03 if day > 0.3 else 0.1, 0.05)
    gain = rng.uniform(0.75, 1.1) * (1 + np.array((warmth, rng.normal(0, 0.015), -warmth)))
    return expose(canvas, rng, TEXTURE, gain)
