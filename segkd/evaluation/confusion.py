"""The confusion matrix as a picture: what the pixels of each class were taken for, and the IoU of each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from segkd.evaluation.visualize import BOLD, PLAIN, save_png, text_scale, text_width

_INK, _FAINT, _EMPTY = (34, 34, 34), (120, 120, 120), (242, 242, 242)
_RIGHT, _WRONG = (8, 70, 140), (178, 42, 12)  # full cells on the diagonal and off it; both fade to white
_MARGIN, _BAR = 16, 150


def save_confusion(path: str | Path, scores: Mapping[str, Any]) -> None:
    """Write the picture of what `evaluate` returned as a PNG; raises `StorageError`."""
    save_png(path, confusion_picture(scores["confusion"], scores["per_class"], scores["miou"]))


def confusion_picture(
    matrix: Sequence[Sequence[int]] | np.ndarray, per_class: Mapping[str, float | None], miou: float | None
) -> np.ndarray:
    """A heat map of the matrix with names and percentages, and bars of IoU beside it: (H,W,3) uint8 RGB.

    Args:
        matrix: (C,C) pixels, a row for each label and a column for each prediction.
        per_class: the IoU in [0,1] of each class by name, None where there was nothing to measure.
        miou: their mean.

    Each row is divided by its sum; one without pixels is grey. A cell of less than half a percent shows no number.
    """
    counts = np.asarray(matrix, np.float64)
    names, ious = list(per_class), list(per_class.values())
    cell = int(np.clip(1280 // len(names), 15, 52))
    text = int(np.clip(cell * 0.44, 9, 15))
    sums = counts.sum(1, keepdims=True)
    shares = np.divide(counts, sums, out=np.full_like(counts, np.nan), where=sums > 0)
    heat = _heat(shares, cell, text)
    rows = _names(names, cell, text)
    columns = np.rot90(_names(names, cell, text, "left"))
    bars = _bars(ious, (sums[:, 0] / max(sums.sum(), 1)).tolist(), cell, text)
    return _sheet(heat, rows, columns, bars, text, miou)


def _heat(shares: np.ndarray, cell: int, text: int) -> np.ndarray:
    """(C*cell, C*cell, 3): blue for the share that is right, red for what it is confused with, with percentages."""
    depth = np.sqrt(np.nan_to_num(shares))[..., None]  # the root, so that small confusions show
    full = np.where(np.eye(len(shares), dtype=bool)[..., None], _RIGHT, _WRONG)
    colours = np.where(np.isnan(shares)[..., None], _EMPTY, 255 + depth * (full - 255)).astype(np.uint8)
    picture = colours.repeat(cell, 0).repeat(cell, 1)
    picture[::cell] = picture[:, ::cell] = 228
    numbered = cell >= 22  # smaller cells hold no legible number
    for row, column in np.argwhere(np.nan_to_num(shares) >= 0.005) if numbered else ():
        ink = (255, 255, 255) if depth[row, column] > 0.62 else _INK
        centre = (column * cell + cell // 2, row * cell + cell // 2)
        _write(picture, f"{100 * shares[row, column]:.0f}", centre, min(text, cell * 0.4), ink, "middle")
    return picture


def _names(names: Sequence[str], cell: int, text: int, side: str = "right") -> np.ndarray:
    """A strip with a name on every line of `cell` pixels, set to the `side` that touches the heat map."""
    width = max(round(text_width(name, PLAIN, text_scale(PLAIN, text))) for name in (*names, "label ")) + text
    strip = np.full((len(names) * cell, width, 3), 255, np.uint8)
    for index, name in enumerate(names):
        x = width - text // 2 if side == "right" else text // 2
        _write(strip, name, (x, index * cell + cell // 2), text, _INK, side)
    return strip


def _bars(ious: Sequence[float | None], shares: Sequence[float], cell: int, text: int) -> np.ndarray:
    """A bar of IoU for each class with its number, and the class's share of the labelled pixels."""
    number = round(text_width("0.000", PLAIN, text_scale(PLAIN, text))) + text
    strip = np.full((len(ious) * cell, number + _BAR + number, 3), 255, np.uint8)
    for index, (iou, share) in enumerate(zip(ious, shares, strict=True)):
        middle, half = index * cell + cell // 2, max(cell // 4, 4)
        _write(strip, "-" if iou is None else f"{iou:.3f}", (number - text // 2, middle), text, _INK, "right")
        bar = strip[middle - half : middle + half + 1, number : number + _BAR]
        bar[:] = _EMPTY
        bar[:, : round(_BAR * (iou or 0))] = _RIGHT
        _write(strip, _percent(share), (strip.shape[1] - 1, middle), text, _FAINT, "right")
    return strip


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%" if share >= 0.0005 or not share else "<0.1%"


def _sheet(
    heat: np.ndarray, rows: np.ndarray, columns: np.ndarray, bars: np.ndarray, text: int, miou: float | None
) -> np.ndarray:
    """Everything in its place: names left and above, bars right, what the axes are, a white margin."""
    title, side = max(text + 4, 15), len(heat)
    head = 2 * title
    top, left = _MARGIN + head + columns.shape[0], _MARGIN + rows.shape[1]
    right = left + side + 2 * text
    sheet = np.full((top + side + head + _MARGIN, right + bars.shape[1] + _MARGIN, 3), 255, np.uint8)
    for part, y, x in (
        (rows, top, _MARGIN),
        (columns, top - len(columns), left),
        (heat, top, left),
        (bars, top, right),
    ):
        sheet[y : y + part.shape[0], x : x + part.shape[1]] = part
    sheet[top + side, left : left + side] = sheet[top : top + side, left + side] = 228
    shown = "-" if miou is None else f"{miou:.3f}"
    _write(sheet, "predicted as", (left + side // 2, _MARGIN + title // 2), title, _INK, "middle", BOLD)
    _write(sheet, "label", (left - text // 2, top - title), title, _INK, "right", BOLD)
    _write(sheet, f"IoU, mean {shown}", (right + text, top - title), title, _INK, "left", BOLD)
    _write(sheet, "of pixels", (sheet.shape[1] - _MARGIN, top - title), text, _FAINT, "right")
    note = "percent of a label's pixels; less than 0.5 is left blank"
    _write(sheet, note, (left, top + side + title), text, _FAINT, "left")
    return sheet


def _write(
    canvas: np.ndarray, words: str, at: tuple[int, int], height: float, ink: tuple[int, int, int], side: str,
    font: int = PLAIN,
) -> None:  # fmt: skip
    """Text centred on a line, from (`left`), to (`right`) or around (`middle`) the column `at`."""
    scale = text_scale(font, height)
    left = at[0] - {"left": 0, "middle": 0.5, "right": 1}[side] * text_width(words, font, scale)
    place = (round(left), round(at[1] + 0.36 * height))
    cv2.putText(canvas, words, place, font, scale, ink, 1, cv2.LINE_AA)
