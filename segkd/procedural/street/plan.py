"""What is where in a procedural street, and under what sky: everything that chance decides before drawing starts."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from segkd.procedural.materials import Colour, swatch
from segkd.procedural.street.camera import Brush, Camera
from segkd.procedural.street.figures import (
    Facade,
    draw_building,
    draw_bush,
    draw_car,
    draw_fence,
    draw_furniture,
    draw_person,
    draw_tree,
    draw_wall,
)


@dataclass(frozen=True)
class Thing:
    """Something that stands on the ground: where, how far for the painter's order, its shadow, and how to draw it."""

    x: float
    z: float
    far: float
    """The painter draws large ``far`` first."""
    shadow: tuple[float, float, float]
    """Half width, half depth and height in metres of the caster; height 0 casts none."""
    draw: Callable[[Brush, np.random.Generator], None]


@dataclass(frozen=True)
class Weather:
    """Season, sky and light of one scene."""

    zenith: Colour
    haze: Colour
    """The sky's colour at the horizon, into which distance fades."""
    density: float
    cloud: float
    sun: float
    """-1 (from the left) to 1 (from the right)."""
    shadow: float
    gain: Colour
    lit: float
    foliage: tuple[str, ...]


@dataclass(frozen=True)
class Street:
    """The ground plan: kerbs and house fronts as ``x``, left and right."""

    kerbs: tuple[float, float]
    fronts: tuple[float, float]
    verges: tuple[float, float]
    """Width of the grass between kerb and pavement."""
    junction: tuple[float, float] | None
    """Near and far ``z`` of a crossing street."""
    park: tuple[bool, bool]
    end: float
    """Where the street is closed by houses."""


def choose_camera(rng: np.random.Generator, size: tuple[int, int]) -> Camera:
    """Where the camera stands and looks; a third of the streets are straight."""
    unit = min(size[0] / 96, size[1] / 128)
    bend = 0.0 if rng.random() < 0.33 else rng.uniform(-0.006, 0.006)
    return Camera(
        size=size,
        unit=unit,
        focal=96 * unit * rng.uniform(0.8, 1.2),
        height=rng.uniform(1.4, 2.5),
        horizon=size[0] * rng.uniform(0.32, 0.54),
        vanish=size[1] * rng.uniform(0.28, 0.72),
        roll=float(np.clip(rng.normal(0, 0.03), -0.08, 0.08)),
        bend=bend,
    )


def choose_weather(rng: np.random.Generator) -> Weather:
    """Clear, overcast, golden or late, in one of the seasons."""
    kinds = {
        "clear": ((96, 148, 212), (190, 212, 230), 0.25, (0.3, 0.5), (0.9, 1.08)),
        "overcast": ((172, 176, 182), (206, 206, 204), 0.6, (0.05, 0.2), (0.75, 1.0)),
        "golden": ((142, 150, 186), (240, 196, 146), 0.4, (0.25, 0.45), (0.75, 1.0)),
        "late": ((66, 78, 118), (150, 132, 142), 0.4, (0.05, 0.2), (0.6, 0.8)),
    }
    kind = rng.choice(list(kinds), p=(0.4, 0.35, 0.13, 0.12))
    zenith, haze, cloud, shadow, exposure = kinds[kind]
    seasons = (("leaf",), ("leaf",), ("leaf",), ("leaf",), ("leaf", "autumn"))
    warmth = rng.normal(0, 0.05)
    return Weather(
        zenith=np.clip(np.array(zenith) + rng.normal(0, 14) + rng.normal(0, 6, 3), 0, 255),
        haze=np.clip(np.array(haze) + rng.normal(0, 10) + rng.normal(0, 6, 3), 0, 255),
        density=rng.choice((0.002, 0.004, 0.01)) * rng.uniform(0.6, 1.2),
        cloud=cloud,
        sun=rng.uniform(-1, 1),
        shadow=rng.uniform(*shadow),
        gain=rng.uniform(*exposure) * (1 + np.array((warmth, rng.normal(0, 0.02), -warmth))),
        lit=rng.uniform(0.3, 0.6) if kind == "late" else 0.03,
        foliage=seasons[rng.integers(len(seasons))],
    )


def choose_street(rng: np.random.Generator) -> Street:
    """Widths, the camera's place across the road (now and then on the pavement), and what lies to either side."""
    road = rng.uniform(6.0, 10.5)
    left = -road * rng.uniform(0.12, 0.88) if rng.random() < 0.75 else rng.choice((0.8, -road - 0.8))
    kerbs = (left, left + road)
    verges = tuple(rng.uniform(0.9, 1.8) if rng.random() < 0.3 else 0.0 for _ in range(2))
    walks = tuple(verge + rng.uniform(2.2, 4.5) for verge in verges)
    near = rng.uniform(9, 22)
    return Street(
        kerbs=kerbs,
        fronts=(kerbs[0] - walks[0], kerbs[1] + walks[1]),
        verges=verges,
        junction=(near, near + rng.uniform(6, 9)) if rng.random() < 0.35 else None,
        park=(rng.random() < 0.28, rng.random() < 0.28),
        end=rng.uniform(45, 90),
    )


def choose_facade(rng: np.random.Generator, weather: Weather) -> Facade:
    """The look of one house."""
    return Facade(
        height=rng.uniform(4.5, 15),
        colour=swatch(rng, "brick", "brick", "brick", "brick", "cream", "cream"),
        window=swatch(rng, "dark", "glass", "cream"),
        lit=weather.lit,
        bay=rng.uniform(1.8, 3.6),
        glazed=(rng.uniform(0.35, 0.65), rng.uniform(0.4, 0.65)),
        courses=rng.random() < 0.6,
        shop=swatch(rng, "paint", "wood") if rng.random() < 0.12 else None,
        roof=swatch(rng, "brick", "dark", "stone") if rng.random() < 0.7 else None,
    )


def houses(rng: np.random.Generator, street: Street, weather: Weather) -> list[Thing]:
    """Rows of houses on both sides, with gaps and no row along a park, and the houses that close the street."""
    found = []
    for side, x in enumerate(street.fronts):
        facing = 1 + 0.16 * weather.sun * (1 if side == 0 else -1)
        z, joined = rng.uniform(1.0, 3.0), False
        while z < street.end and not street.park[side]:
            length = rng.uniform(6, 14)
            blocked = street.junction is not None and z < street.junction[1] and z + length > street.junction[0]
            if blocked and z < street.junction[0] - 3:
                length, blocked = street.junction[0] - z, False
            built = not blocked and rng.random() < 0.88
            if built:
                look = choose_facade(rng, weather)
                draw = partial(draw_building, x=x, span=(z, z + length), look=look, joined=joined, shade=facing)
                found.append(Thing(x, z, z + length, (0, 0, 0), draw))
            gap = 2.5 if rng.random() < 0.3 else 0.0
            z = street.junction[1] if blocked else z + length + gap
            joined = built and gap == 0
    x = -60.0
    while x < 60:
        width = rng.uniform(9, 20)
        look, a, b = choose_facade(rng, weather), (x, street.end), (x + width, street.end)
        if rng.random() < 0.85:
            draw = partial(draw_wall, a=a, b=b, look=look, shade=0.92)
            found.append(Thing(x, street.end, street.end + 1, (0, 0, 0), draw))
        x += width
    return found


def fences(rng: np.random.Generator, street: Street) -> list[Thing]:
    """Along parks, and before some houses."""
    found = []
    for side, x in enumerate(street.fronts):
        colour, height = swatch(rng, "wood"), rng.uniform(1.3, 1.9)
        if rng.random() < (0.85 if street.park[side] else 0.3):
            inset = 0.0 if street.park[side] else math.copysign(0.35, -x)
            for z in np.arange(2.0, 32.0, 6.0):
                crossed = street.junction is not None and z < street.junction[1] and z + 6 > street.junction[0]
                if not crossed:
                    draw = partial(draw_fence, a=(x + inset, z), b=(x + inset, z + 6), height=height, colour=colour)
                    found.append(Thing(x, z, z + 5.5, (0, 0, 0), draw))
    return found


def trees(rng: np.random.Generator, street: Street, weather: Weather) -> list[Thing]:
    """Street trees along the kerbs; groves and bushes in the parks."""
    found = []

    def plant(x: float, z: float, behind: float) -> None:
        height, leaves, bark = rng.uniform(4, 8), swatch(rng, *weather.foliage), swatch(rng, "wood", "dark", "stone")
        draw = partial(draw_tree, x=x, z=z, height=height, leaves=leaves, bark=bark, sun=weather.sun)
        found.append(Thing(x, z, z + behind, (0.2 * height, 0.15 * height, 0.7 * height), draw))

    for side, outward in enumerate((-1, 1)):
        kerb, front = street.kerbs[side], street.fronts[side]
        if rng.random() < 0.4:
            for z in np.arange(rng.uniform(6, 11), 40, rng.uniform(8, 12)):
                plant(kerb + outward * 0.9, z, 0.0)
        if street.park[side]:
            for _ in range(rng.integers(5, 10)):
                plant(front + outward * rng.uniform(2, 16), rng.uniform(7, 38), 8.0)
            for _ in range(rng.integers(2, 6)):
                x, z = front + outward * rng.uniform(1.2, 8), rng.uniform(6, 25)
                draw = partial(draw_bush, x=x, z=z, width=rng.uniform(1.5, 4), leaves=swatch(rng, *weather.foliage))
                found.append(Thing(x, z, z + 7.0, (0.8, 0.5, 0.5), draw))
    return found


def furniture(rng: np.random.Generator, street: Street) -> list[Thing]:
    """Lamps, traffic lights and signs near the kerbs."""
    found = []
    for _ in range(rng.integers(1, 5)):
        side, z = rng.integers(2), rng.uniform(3.6, 8.0)
        x = street.kerbs[side] + (rng.uniform(0.4, 0.8) if side else -rng.uniform(0.4, 0.8))
        kind = rng.choice(("lamp", "light", "sign"))
        metal = swatch(rng, "dark")
        face = swatch(rng, "paint", "paint", "leaf", "cream")
        draw = partial(draw_furniture, x=x, z=z, kind=kind, metal=metal, face=face)
        found.append(Thing(x, z, z, (0.12, 0.12, 3.0), draw))
    return found


def cars(rng: np.random.Generator, street: Street) -> list[Thing]:
    """Parked along the kerbs, driving in the lanes, or crossing at the junction."""
    found = []

    def put(x: float, z: float, across: bool, reverse: bool) -> None:
        colour = swatch(rng, "paint")
        draw = partial(draw_car, x=x, z=z, across=across, reverse=reverse, colour=colour)
        found.append(Thing(x, z, z - 0.5, (2.2, 0.9, 0.6) if across else (0.95, 2.1, 0.6), draw))

    (left, right), parked = street.kerbs, rng.uniform(0, 0.55, 2)
    lanes = (
        (left + 1.1, parked[0]),
        (right - 1.1, parked[1]),
        (0.7 * left + 0.3 * right, 0.12),
        (0.3 * left + 0.7 * right, 0.12),
    )
    for lane, (x, chance) in enumerate(lanes):
        crowded = lane >= 2 and right - left < 8.5  # no room beside parked cars
        for z in np.arange(rng.uniform(5.5, 8.0), 27, 6.2):
            crossing = street.junction is not None and street.junction[0] - 4 < z < street.junction[1] + 3
            if rng.random() < chance and not crowded and not crossing:
                put(x, z, False, bool(lane % 2 == 0))
    if street.junction is not None and rng.random() < 0.7:
        x, z = rng.uniform(-6, 6), rng.uniform(street.junction[0] + 1.5, street.junction[1] - 1.5)
        put(x, z, True, bool(rng.random() < 0.5))
    return found


def people(rng: np.random.Generator, street: Street, traffic: list[Thing]) -> list[Thing]:
    """Walkers on the pavements, a few on the road where no car is."""
    found = []
    for _ in range(rng.integers(0, 6)):
        side, z = rng.integers(2), rng.uniform(3.6, 7.0)
        kerb, front = street.kerbs[side], street.fronts[side]
        x = kerb + (front - kerb) * rng.uniform(0.2, 0.85) if rng.random() < 0.75 else rng.uniform(*street.kerbs)
        if any(abs(x - car.x) < car.shadow[0] + 0.35 and abs(z - car.z) < car.shadow[1] + 0.35 for car in traffic):
            continue
        coat = swatch(rng, "paint", "paint", "paint", "cream")
        trousers = swatch(rng, "dark", "glass", "wood", "stone")
        colours = (coat, trousers, swatch(rng, "skin"), swatch(rng, "dark", "wood", "autumn"))
        draw = partial(draw_person, x=x, z=z, height=rng.uniform(1.55, 1.9), colours=colours)
        found.append(Thing(x, z, z, (0.3, 0.2, 1.6), draw))
    return found
