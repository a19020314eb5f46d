"""Kinds of rooms: which furniture belongs together, and how it stands to one another."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from segkd.procedural.room.camera import Camera
from segkd.procedural.room.furniture import bed, bookcase, cabinet, chair, sofa, table
from segkd.procedural.room.hangings import picture, window
from segkd.procedural.room.objects import floor_lamp, pendant, plant, put_on
from segkd.procedural.room.piece import Piece
from segkd.procedural.room.plan import BACK, FRONT, LEFT, RIGHT, Plan
from segkd.procedural.room.shell import Room

CLEAR = 0.56
"""Metres from a table's edge to the back of a chair that faces it."""


def furnish(rng: np.random.Generator, room: Room, camera: Camera, day: float) -> Plan:
    """A bedroom, a living room, a dining room or a study, with windows first and pictures last."""
    plan = Plan(room, camera, rng)
    for _ in range(1 + (rng.random() < 0.25)):
        plan.against(window(rng, day), (BACK, BACK, LEFT, RIGHT))
    KINDS[int(rng.choice(4, p=(0.36, 0.34, 0.14, 0.16)))](plan)
    for make, chance in ((plant, 0.35), (floor_lamp, 0.3), (chair, 0.3), (_storage, 0.5)):
        if rng.random() < chance:
            plan.against(make(rng))
    for _ in range(1 + (rng.random() < 0.4)):
        plan.against(picture(rng))
    if rng.random() < 0.45:
        lamp = pendant(rng, room.size[1])
        x, z = room.size[0] * rng.uniform(0.4, 0.6), room.size[2] * rng.uniform(0.5, 0.7)
        plan.blocks += lamp.placed(x, z, BACK)
    return plan


def bedroom(plan: Plan) -> None:
    """A bed with nightstands, a wardrobe or a chest of drawers, perhaps a chair."""
    rng = plan.rng
    plan.against(bed(rng), tries=16)
    for _ in range(int(rng.integers(0, 3))):
        stand = cabinet(rng, (0.4, 0.5), (0.36, 0.42), (0.45, 0.6))
        put_on(rng, stand, ("lamp", "lamp", "books", "vase"), 1)
        plan.against(stand)
    plan.against(_storage(rng))
    if rng.random() < 0.4:
        plan.against(chair(rng))
    if rng.random() < 0.3:
        _desk(plan)


def living_room(plan: Plan) -> None:
    """Sofas around a low table, and a screen or shelves."""
    rng = plan.rng
    for _ in range(1 + (rng.random() < 0.4)):
        plan.against(sofa(rng), tries=16)
    low = table(rng, (0.7, 1.2), (0.45, 0.6), (0.36, 0.48))
    put_on(rng, low, ("books", "vase", "plant"), int(rng.integers(0, 3)))
    plan.free(low)
    if rng.random() < 0.6:
        bench = cabinet(rng, (1.1, 1.8), (0.36, 0.45), (0.42, 0.6))
        put_on(rng, bench, ("screen",), 1)
        plan.against(bench)
    if rng.random() < 0.5:
        plan.against(bookcase(rng))
    if rng.random() < 0.35:
        plan.free(chair(rng))


def dining_room(plan: Plan) -> None:
    """A table with chairs around it, and a sideboard."""
    rng = plan.rng
    board = table(rng, (1.1, 1.8), (0.75, 1.0), (0.7, 0.78))
    put_on(rng, board, ("vase", "plant", "books"), int(rng.integers(0, 3)))
    spot = plan.free(board)
    if spot is not None:
        west, south, east, north = spot
        sides = [
            (x, z, turn) for z, turn in ((north + CLEAR, BACK), (south - CLEAR, FRONT)) for x in _seats(west, east)
        ]
        sides += [
            (x, z, turn) for x, turn in ((west - CLEAR, LEFT), (east + CLEAR, RIGHT)) for z in _seats(south, north)
        ]
        for seat in sides:
            if rng.random() < 0.7:
                plan.stand(chair(rng), *seat)
    plan.against(_storage(rng))
    if rng.random() < 0.4:
        plan.against(sofa(rng))


def study(plan: Plan) -> None:
    """A desk or two with chairs, shelves, perhaps a bed or a sofa."""
    rng = plan.rng
    for _ in range(1 + (rng.random() < 0.3)):
        _desk(plan)
    plan.against(bookcase(rng))
    if rng.random() < 0.9:
        plan.against(bed(rng) if rng.random() < 0.5 else sofa(rng))


KINDS: tuple[Callable[[Plan], None], ...] = (bedroom, living_room, dining_room, study)


def _seats(start: float, stop: float) -> list[float]:
    """Places for chairs along a table's side."""
    count = 2 if stop - start > 1.2 else 1
    return [start + (stop - start) * (i + 0.5) / count for i in range(count)]


def _desk(plan: Plan) -> None:
    """A table at a wall with things on it and a chair before it."""
    rng = plan.rng
    desk = table(rng, (1.0, 1.5), (0.55, 0.7), (0.7, 0.78))
    put_on(rng, desk, ("screen", "lamp", "books", "vase"), int(rng.integers(1, 4)))
    if plan.against(desk, tries=12):
        west, south, east, north = plan.standing[-1]
        x, z = 0.5 * (west + east), 0.5 * (south + north)
        seats = {BACK: (x, south - CLEAR, FRONT), LEFT: (east + CLEAR, z, RIGHT), RIGHT: (west - CLEAR, z, LEFT)}
        plan.stand(chair(rng), *seats[plan.along[-1][0]])


def _storage(rng: np.random.Generator) -> Piece:
    """A wardrobe, a chest of drawers with things on it, or a bookcase."""
    kind = rng.random()
    if kind < 0.35:
        return cabinet(rng, (0.8, 1.8), (0.5, 0.62), (1.8, 2.2))
    if kind < 0.6:
        return bookcase(rng)
    chest = cabinet(rng, (0.7, 1.4), (0.4, 0.5), (0.7, 1.0))
    put_on(rng, chest, ("lamp", "vase", "books", "plant", "screen"), int(rng.integers(0, 4)))
    return chest
