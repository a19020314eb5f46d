"""The furniture of a procedural room: beds, sofas, chairs, tables, cabinets."""

from __future__ import annotations

import numpy as np

from segkd.procedural.materials import BLACK, swatch
from segkd.procedural.room.camera import Label
from segkd.procedural.room.piece import BLANKET, BOARD, COVER, FRONT, SEAT, SHEET, TRIFLE, Piece, Span, even


def bed(rng: np.random.Generator) -> Piece:
    """Frame, headboard, mattress, pillows, and a blanket that is folded back and may have a stripe."""
    wide, long, top = rng.uniform(0.95, 1.8), rng.uniform(1.95, 2.15), rng.uniform(0.45, 0.6)
    piece, side = Piece(Label.BED, wide, long, rng.uniform(0.8, 1.25)), 0.5 * wide
    frame, sheet, cover = swatch(rng, *BOARD), swatch(rng, *SHEET), swatch(rng, *BLANKET)
    band = swatch(rng, *BLANKET) if rng.random() < 0.4 else cover
    folded, stripe = rng.uniform(0.85, 1.05), rng.uniform(1.2, 1.6)
    whole = (-side, side)
    piece.add(whole, (0.0, piece.high), (0.0, 0.07), frame)
    piece.add(whole, (0.08, 0.2), (0.07, long), frame * 0.85)
    piece.add(whole, (0.2, top), (0.07, 0.75), sheet)
    piece.add(whole, (0.2, top + 0.03), (0.75, folded), sheet * 0.94)
    piece.add(whole, (0.2, top + 0.02), (folded, stripe), cover)
    piece.add(whole, (0.2, top + 0.02), (stripe, stripe + 0.35), band)
    piece.add(whole, (0.2, top + 0.02), (stripe + 0.35, long - 0.02), cover)
    pillow = swatch(rng, *SHEET, "paint")
    for across in even(0.08 - side, side - 0.08, 2 if wide > 1.3 else 1, 0.1):
        piece.add(across, (top, top + 0.13), (0.14, 0.55), pillow)
    return piece


def sofa(rng: np.random.Generator) -> Piece:
    """Base, back, arms, seat and back cushions of one fabric, and a few loose ones."""
    wide, deep, high = rng.uniform(1.35, 2.3), rng.uniform(0.8, 0.95), rng.uniform(0.72, 0.92)
    piece, side = Piece(Label.SOFA, wide, deep, high), 0.5 * wide
    arm, rest, seat, cover = (
        rng.uniform(0.12, 0.24),
        rng.uniform(0.55, 0.66),
        rng.uniform(0.4, 0.46),
        swatch(rng, *COVER),
    )
    inner = side - arm
    piece.add((-side, side), (0.06, high), (0.0, 0.18), cover * 0.95)
    for across in ((-side, -inner), (inner, side)):
        piece.add(across, (0.06, rest), (0.18, deep), cover)
    piece.add((-inner, inner), (0.06, seat - 0.14), (0.18, deep - 0.03), cover * 0.8)
    for across in even(-inner, inner, 3 if wide > 1.9 else 2, 0.02):
        piece.add(across, (seat - 0.13, seat), (0.38, deep), cover * 1.06)
        piece.add(across, (seat - 0.13, high + 0.04), (0.18, 0.36), cover * 1.02)
    for middle in (0.2 - inner, inner - 0.2, rng.uniform(-0.3, 0.3))[: rng.integers(0, 4)]:
        piece.add((middle - 0.19, middle + 0.19), (seat, seat + 0.36), (0.38, 0.5), swatch(rng, *BLANKET))
    return piece


def chair(rng: np.random.Generator) -> Piece:
    """Four legs or a pedestal, a seat, a back of slats or upholstery, perhaps arms."""
    wide, deep, seat = rng.uniform(0.42, 0.54), rng.uniform(0.44, 0.54), rng.uniform(0.43, 0.5)
    piece, side = Piece(Label.CHAIR, wide, deep, rng.uniform(0.82, 1.02)), 0.5 * wide
    frame, middle, high = swatch(rng, *SEAT), 0.5 * deep, piece.high
    cushion = swatch(rng, *SEAT) if rng.random() < 0.5 else frame
    piece.add((-side, side), (seat - 0.07, seat), (0.0, deep), cushion)
    if rng.random() < 0.2:
        piece.add((-0.04, 0.04), (0.08, seat - 0.07), (middle - 0.04, middle + 0.04), BLACK, "post")
        piece.add((-0.25, 0.25), (0.02, 0.08), (middle - 0.04, middle + 0.04), BLACK)
        piece.add((-0.04, 0.04), (0.02, 0.08), (middle + 0.04, deep), BLACK)
    else:
        for across in ((-side, 0.05 - side), (side - 0.05, side)):
            for out in ((0.0, 0.05), (deep - 0.05, deep)):
                piece.add(across, (0.0, seat - 0.07), out, frame * 0.9, "post")
    slats = rng.choice((0, 2, 4))
    if slats:
        piece.add((-side, side), (high - 0.12, high), (0.0, 0.05), frame)
        for place in np.linspace(0.03 - side, side - 0.03, slats):
            piece.add((place - 0.03, place + 0.03), (seat, high - 0.12), (0.0, 0.05), frame * 0.95, "post")
    else:
        piece.add((-side, side), (seat + 0.08, high), (0.0, 0.06), cushion)
        piece.add((-0.1, 0.1), (seat, seat + 0.08), (0.0, 0.05), frame * 0.9)
    if rng.random() < 0.2:
        for across in ((-side - 0.05, -side), (side, side + 0.05)):
            piece.add(across, (0.6, 0.66), (0.02, deep - 0.06), frame)
            piece.add(across, (seat - 0.07, 0.6), (deep - 0.14, deep - 0.08), frame, "post")
    return piece


def table(rng: np.random.Generator, wide: Span, deep: Span, high: Span) -> Piece:
    """A top on four legs, two cheeks or a pedestal; a low one may have a shelf. Measures are drawn from the ranges."""
    piece = Piece(Label.TABLE, rng.uniform(*wide), rng.uniform(*deep), rng.uniform(*high))
    side, out, top = 0.5 * piece.wide, piece.deep, piece.high
    board = swatch(rng, *BOARD)
    leg = board * 0.85 if rng.random() < 0.7 else swatch(rng, *BOARD)
    piece.add((-side, side), (top - 0.06, top), (0.0, out), board)
    kind = rng.random()
    if kind < 0.65:
        piece.add((0.06 - side, side - 0.06), (top - 0.14, top - 0.06), (0.06, out - 0.06), leg * 0.9)
        for across in ((0.03 - side, 0.1 - side), (side - 0.1, side - 0.03)):
            for place in ((0.03, 0.1), (out - 0.1, out - 0.03)):
                piece.add(across, (0.0, top - 0.14), place, leg, "post")
    elif kind < 0.85:
        for across in ((0.04 - side, 0.1 - side), (side - 0.1, side - 0.04)):
            piece.add(across, (0.0, top - 0.06), (0.03, out - 0.03), leg)
    else:
        piece.add((-0.07, 0.07), (0.05, top - 0.06), (0.5 * out - 0.07, 0.5 * out + 0.07), leg, "post")
        piece.add((-0.4 * side, 0.4 * side), (0.0, 0.05), (0.2 * out, 0.8 * out), leg)
    if top < 0.55 and rng.random() < 0.4:
        piece.add((0.12 - side, side - 0.12), (0.12, 0.16), (0.1, out - 0.1), board * 0.9)
    return piece


def cabinet(rng: np.random.Generator, wide: Span, deep: Span, high: Span) -> Piece:
    """A body with doors or drawers and their handles. Measures are drawn from the ranges."""
    piece = Piece(Label.CABINET, rng.uniform(*wide), rng.uniform(*deep), rng.uniform(*high))
    side, out, top, body = 0.5 * piece.wide, piece.deep, piece.high, swatch(rng, *FRONT)
    front = body * 1.06 if rng.random() < 0.6 else swatch(rng, *FRONT)
    handle = BLACK if front.mean() > 110 else np.full(3, 200.0)
    piece.add((-side, side), (0.05, top), (0.0, out), body * 0.82)
    piece.add((0.03 - side, side - 0.03), (0.0, 0.05), (0.03, out - 0.04), body * 0.5)
    drawers = top < 1.3 and rng.random() < 0.65
    for across in even(0.02 - side, side - 0.02, max(round(piece.wide / 0.55), 1), 0.025):
        for up in even(0.08, top - 0.03, max(round(top / 0.24), 1) if drawers else 1, 0.025):
            piece.add(across, up, (out, out + 0.02), front)
            middle, half = 0.5 * (across[0] + across[1]), 0.5 * (up[0] + up[1])
            if drawers:
                grip = (middle - 0.08, middle + 0.08), (half - 0.015, half + 0.015)
            else:
                grip = (across[1] - 0.08, across[1] - 0.05), (half - 0.1, half + 0.1)
            piece.add(*grip, (out + 0.02, out + 0.04), handle)
    return piece


def bookcase(rng: np.random.Generator) -> Piece:
    """Open shelves with rows of books and a few gaps; all of it cabinet."""
    wide, deep, high = rng.uniform(0.6, 1.3), rng.uniform(0.26, 0.36), rng.uniform(1.2, 2.1)
    piece, side, body = Piece(Label.CABINET, wide, deep, high), 0.5 * wide, swatch(rng, *FRONT)
    inner = (0.04 - side, side - 0.04)
    piece.add((-side, side), (0.0, high), (0.0, 0.03), body * 0.6)
    for across in ((-side, inner[0]), (inner[1], side)):
        piece.add(across, (0.0, high), (0.03, deep), body)
    piece.add(inner, (high - 0.05, high), (0.03, deep), body)
    for bottom, top in even(0.0, high, max(round(high / 0.4), 2)):
        piece.add(inner, (bottom, bottom + 0.05), (0.03, deep), body)
        start = inner[0] + rng.uniform(0, 0.1)
        while start < inner[1] - 0.08:
            stop, tall = min(start + rng.uniform(0.1, 0.26), inner[1]), min(rng.uniform(0.2, 0.32), top - bottom - 0.1)
            if rng.random() < 0.8:
                books = swatch(rng, *TRIFLE, "dark")
                piece.add((start, stop), (bottom + 0.05, bottom + 0.05 + tall), (0.03, deep - 0.06), books)
            start = stop
    return piece
