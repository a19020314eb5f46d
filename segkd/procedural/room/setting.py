"""What chance decides of a procedural room besides its furniture: measures, surfaces, viewpoint, light."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from segkd.procedural.materials import WHITE, swatch
from segkd.procedural.room.blocks import Block
from segkd.procedural.room.camera import Camera, Label, Light
from segkd.procedural.room.shell import Room


def choose_room(rng: np.random.Generator) -> Room:
    """Measures and surfaces."""
    size = (rng.uniform(3.2, 5.4), rng.uniform(2.35, 2.8), rng.uniform(3.2, 5.4))
    walls = ("plaster", "plaster", "plaster", "cream", "plaster", "cream", "plaster", "fabric")
    floors = {"boards": ("wood", "wood", "wood", "asphalt"), "tiles": ("brick", "stone", "asphalt"),
              "chequer": ("stone", "asphalt", "brick"), "carpet": ("fabric", "fabric", "asphalt", "wood")}  # fmt: skip
    floor = str(rng.choice(list(floors), p=(0.5, 0.2, 0.08, 0.22)))
    wall = str(rng.choice(("plain", "stripes", "wainscot", "brick"), p=(0.64, 0.16, 0.14, 0.06)))
    main = swatch(rng, "brick", "cream", "stone") if wall == "brick" else swatch(rng, *walls)
    second = 0.8 * main + 0.2 * swatch(rng, "cream", "paint", "wood", "dark")
    if wall == "wainscot":
        second = swatch(rng, "wood", "cream", "fabric")
    ceiling = 0.7 * WHITE + 0.3 * swatch(rng, "plaster", "cream", "stone", "wood")
    rug = None
    if rng.random() < 0.45:
        x, z = size[0] * rng.uniform(0.35, 0.65), size[2] * rng.uniform(0.35, 0.6)
        half = rng.uniform(0.7, 1.3), rng.uniform(0.6, 1.0)
        rug = (x - half[0], z - half[1], x + half[0], z + half[1])
    return Room(
        size=size,
        wall=wall,
        wall_colours=(main, second, swatch(rng, "paint", "fabric", "fabric", "brick", "leaf")),
        accent=int(rng.integers(3)) if rng.random() < 0.2 else 3,
        period=rng.uniform(0.85, 1.15) if wall == "wainscot" else rng.uniform(0.16, 0.5),
        skirting=(rng.uniform(0.06, 0.13), swatch(rng, "cream", "wood", "plaster")),
        floor=floor,
        floor_colours=(swatch(rng, *floors[floor]), swatch(rng, *floors[floor])),
        plank=(rng.uniform(0.12, 0.22), rng.uniform(0.8, 1.6)) if floor == "boards" else (rng.uniform(0.28, 0.5), 1.0),
        turned=bool(rng.random() < 0.5),
        rug=rug,
        rug_colours=(swatch(rng, "fabric", "paint", "cream", "brick"), swatch(rng, "cream", "dark", "paint")),
        ceiling_colours=(ceiling, swatch(rng, "wood") if rng.random() < 0.6 else 0.85 * ceiling),
        beams=rng.uniform(0.7, 1.1) if rng.random() < 0.12 else 0.0,
    )


def choose_camera(rng: np.random.Generator, size: tuple[int, int], room: Room) -> Camera:
    """Near the front wall or in one of its corners, looking across the room and a little down."""
    wide, _, deep = room.size
    eye = (wide * rng.uniform(0.15, 0.85), rng.uniform(1.2, 1.75), rng.uniform(0.15, 0.9))
    aim = wide * rng.uniform(0.2, 0.8), deep * rng.uniform(0.75, 1.0)
    yaw = math.atan2(aim[0] - eye[0], aim[1] - eye[2])
    pitch = rng.uniform(-0.32, -0.1)
    roll = float(np.clip(rng.normal(0, 0.025), -0.07, 0.07))
    return Camera.looking(size, rng.uniform(0.74, 1.0), eye, yaw, pitch, roll)


def choose_day(rng: np.random.Generator) -> float:
    """The light outside: 0 at night to 1 at noon."""
    return float(rng.uniform(0.5, 1.0) if rng.random() < 0.85 else rng.uniform(0.0, 0.25))


def choose_light(rng: np.random.Generator, room: Room, blocks: Sequence[Block], day: float) -> Light:
    """By day from the window, if there is one, otherwise from a lamp."""
    wide, high, deep = room.size
    panes = [block for block in blocks if block.label == Label.WINDOW]
    if day > 0.3 and panes:
        block = panes[0]
        x, z = 0.5 * (block.low[0] + block.high[0]), 0.5 * (block.low[2] + block.high[2])
        source = (float(np.clip(x, 0.5, wide - 0.5)), 1.6, float(np.clip(z, 0.5, deep - 0.5)))
        return Light(source, rng.uniform(0.5, 0.75), rng.uniform(0.5, 1.0), rng.uniform(1.5, 3.0))
    source = (wide * rng.uniform(0.35, 0.65), high - rng.uniform(0.3, 0.7), deep * rng.uniform(0.35, 0.7))
    return Light(source, rng.uniform(0.45, 0.65), rng.uniform(0.5, 0.9), rng.uniform(1.5, 3.0))
