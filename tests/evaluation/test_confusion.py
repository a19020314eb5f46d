"""The picture of a confusion matrix: what its colours, names and bars say is what the matrix says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from segkd.data.images import read_image
from segkd.data.sets.camvid import CAMVID
from segkd.evaluation.confusion import confusion_picture, save_confusion

FORTY = [f"piece of furniture {index}" for index in range(40)]


def reddish(picture: np.ndarray) -> np.ndarray:
    return picture[..., 0].astype(int) - picture[..., 2] > 20


def bluish(picture: np.ndarray) -> np.ndarray:
    return picture[..., 2].astype(int) - picture[..., 0] > 20


def dark(picture: np.ndarray) -> np.ndarray:
    return picture.max(-1) < 120


def cells_of(picture: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The first rows and columns (count + 1) of the heat map's cells, whose frame is the longest lines of grey 228."""
    grid = (picture == 228).all(-1)
    rows = np.flatnonzero(grid.sum(1) > 0.9 * grid.sum(1).max())
    columns = np.flatnonzero(grid.sum(0) > 0.9 * grid.sum(0).max())
    assert len(rows) == len(columns) == count + 1
    return rows, columns


def perfect(names: list[str] | tuple[str, ...]) -> tuple[np.ndarray, dict[str, float]]:
    return np.eye(len(names), dtype=np.int64) * 100, dict.fromkeys(names, 1.0)


def test_a_confusion_is_red_in_the_row_of_its_label_and_the_column_of_its_prediction() -> None:
    matrix, ious = perfect(CAMVID.names)
    matrix[2, 7] = 60
    picture = confusion_picture(matrix, ious, 1.0)
    rows, columns = cells_of(picture, 11)
    red, blue = reddish(picture), bluish(picture)
    assert red[rows[2] : rows[3], columns[7] : columns[8]].mean() > 0.7
    assert red.sum() == red[rows[2] : rows[3], columns[7] : columns[8]].sum()
    for i in range(11):
        assert blue[rows[i] : rows[i + 1], columns[i] : columns[i + 1]].mean() > 0.7
    assert blue[rows[0] : rows[-1], columns[0] : columns[-1]].mean() < 1 / 10


def test_names_stand_at_their_rows_and_columns() -> None:
    names = ["i", "l", "a very long name of a class", "j"]
    picture = confusion_picture(*perfect(names), 1.0)
    rows, columns = cells_of(picture, 4)
    beside = [dark(picture)[rows[i] : rows[i + 1], : columns[0]].sum() for i in range(4)]
    above = [dark(picture)[48 : rows[0], columns[i] : columns[i + 1]] for i in range(4)]
    assert np.argmax(beside) == 2
    assert np.argmax([strip.sum() for strip in above]) == 2  # below the title


def test_a_row_is_divided_by_its_sum() -> None:
    matrix = np.array([[30, 70, 0], [5, 90, 5], [0, 50, 50]])
    ious = dict.fromkeys("abc", 0.5)
    picture, other = (confusion_picture(m, ious, 0.5) for m in (matrix, matrix * [[1], [1000], [7]]))
    rows, columns = cells_of(picture, 3)
    heat = (slice(rows[0], rows[-1]), slice(columns[0], columns[-1]))
    assert np.array_equal(picture[heat], other[heat])
    assert not np.array_equal(picture, other)  # the classes' shares of the pixels have changed


def test_a_stronger_confusion_is_darker_and_one_without_pixels_is_grey() -> None:
    matrix = np.array([[80, 4, 16, 0], [0, 100, 0, 0], [64, 0, 36, 0], [0, 0, 0, 0]])
    picture = confusion_picture(matrix, {"a": 0.5, "b": 0.5, "c": 0.5, "d": None}, 0.5)
    rows, columns = cells_of(picture, 4)
    corner = picture[rows[:-1] + 3][:, columns[:-1] + 3].astype(int)
    assert corner[2, 0].sum() < corner[0, 2].sum() < corner[0, 1].sum() < corner[1, 0].sum() == 3 * 255
    assert (corner[3] == corner[3, 0, 0]).all() and corner[3, 0, 0] < 250


def test_bars_are_as_long_as_the_iou() -> None:
    ious = {"a": 1.0, "b": 0.5, "c": 0.25, "d": 0.0, "e": None}
    picture = confusion_picture(np.eye(5, dtype=int), ious, 0.4375)
    rows, columns = cells_of(picture, 5)
    middle = (rows[:-1] + rows[1:]) // 2
    long = bluish(picture)[middle][:, columns[-1] + 1 :].sum(1)
    assert long[0] > 100 and abs(long[1] - long[0] / 2) <= 2 and abs(long[2] - long[0] / 4) <= 2
    assert long[3] == long[4] == 0


@pytest.mark.parametrize("names", [["a", "b"], CAMVID.names, FORTY, [str(i) for i in range(254)]])
def test_any_number_of_classes_fits(names: list[str]) -> None:
    rng = np.random.default_rng(0)
    matrix = rng.integers(0, 9, (len(names), len(names)))
    picture = confusion_picture(matrix, dict.fromkeys(names, 0.5), 0.5)
    assert picture.dtype == np.uint8 and max(picture.shape) < 4600
    border = np.concatenate([picture[:4].reshape(-1, 3), picture[-4:].reshape(-1, 3), picture[:, :4].reshape(-1, 3),
                             picture[:, -4:].reshape(-1, 3)])  # fmt: skip
    assert (border == 255).all()  # nothing is cut off
    rows, columns = cells_of(picture, len(names))
    assert np.ptp(rows) == np.ptp(columns)


@pytest.mark.parametrize("names", [CAMVID.names, CAMVID.names + ("curtain", "towel"), FORTY])
def test_percentages_are_written_where_they_are_legible(names: tuple[str, ...]) -> None:
    """The same colours with a share of 0.4 % (no number) and of 0.6 % (1): the digit is the difference."""
    matrix, ious = perfect(names)
    cells = []
    for part in (40, 60):
        matrix[0, :2] = (10_000 - part, part)
        picture = confusion_picture(matrix, ious, 1.0)
        rows, columns = cells_of(picture, len(names))
        cells.append(dark(picture)[rows[0] : rows[1], columns[1] : columns[2]])
    assert not cells[0].any() and np.ptp(np.flatnonzero(cells[1].any(1))) >= 6  # a digit of 7 pixels or more


def test_nothing_measured() -> None:
    picture = confusion_picture(np.zeros((2, 2), int), {"a": None, "b": None}, None)
    assert not reddish(picture).any() and not bluish(picture).any()


def test_it_is_saved_as_a_png(tmp_path: Path) -> None:
    matrix, ious = perfect(("a", "b", "c"))
    save_confusion(tmp_path / "c.png", {"confusion": matrix.tolist(), "per_class": ious, "miou": 1.0})
    assert np.array_equal(read_image(tmp_path / "c.png"), confusion_picture(matrix, ious, 1.0))
