"""Panels are looked at by people; what can be wrong without being seen is tested here."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from segkd.data import catalogue
from segkd.data.classes import IGNORE, listed
from segkd.data.sets.camvid import CAMVID
from segkd.evaluation import visualize
from segkd.evaluation.visualize import (
    colourise,
    difference_colour,
    disagreement,
    legend,
    overlay,
    panel,
    sample_grid,
    save_png,
)
from segkd.foundation.errors import StorageError
from segkd.recipe.datasets import class_lists

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (96, 128, 3)).astype(np.uint8)
MASK = RNG.integers(0, 11, (96, 128)).astype(np.uint8)
RED = np.array(difference_colour(CAMVID))


def test_colours_are_the_palette_and_ignored_is_black() -> None:
    mask = np.array([[0, 4, IGNORE]], np.uint8)
    assert colourise(mask, CAMVID).tolist() == [[[128, 128, 128], [60, 40, 222], [0, 0, 0]]]


def test_overlay_mixes_by_alpha_and_keeps_ignored_pixels() -> None:
    mask = MASK.copy()
    mask[:10] = IGNORE
    assert np.array_equal(overlay(IMAGE, mask, CAMVID)[:10], IMAGE[:10])
    assert np.array_equal(overlay(IMAGE, mask, CAMVID, alpha=1.0)[10:], colourise(mask, CAMVID)[10:])
    half = (IMAGE[10:].astype(int) + colourise(mask, CAMVID)[10:]) / 2
    assert np.abs(overlay(IMAGE, mask, CAMVID)[10:] - half).max() <= 0.5


def test_disagreement_leaves_ignored_pixels_out() -> None:
    first, second = np.array([[0, 1, IGNORE, 3]]), np.array([[0, 2, 1, IGNORE]])
    assert disagreement(first, second).tolist() == [[False, True, False, False]]


@pytest.mark.parametrize("height", [40, 96, 256, 1080])
@pytest.mark.parametrize("classes", [CAMVID, listed("many", [f"furniture {index}" for index in range(100)])])
def test_the_legend_shows_every_colour_at_any_height(height: int, classes) -> None:
    strip = legend(classes, height, [("ignored", (0, 0, 0)), ("other", (1, 2, 3))])
    assert strip.shape[0] == height and strip.dtype == np.uint8
    packed = np.unique(strip.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32))
    assert {red << 16 | green << 8 | blue for red, green, blue in (*classes.palette, (0, 0, 0), (1, 2, 3))} <= set(
        packed.tolist()
    )


@pytest.mark.parametrize("classes", [*(catalogue.classes_of(name) for name in class_lists()), listed("two", ["a", "b"]), listed("many", [str(i) for i in range(60)])], ids=lambda c: c.name)  # fmt: skip
def test_no_class_looks_like_disagreement(classes) -> None:
    """The person of the street scenes was drawn in nearly its red."""
    distances = np.linalg.norm(np.array(classes.palette, float) - difference_colour(classes), axis=1)
    assert distances.min() > 60


def test_the_legend_names_what_is_shown() -> None:
    """Swatches of the legend: black only where something is ignored, the colour of disagreement only beside a comparison."""

    def swatches(sheet: np.ndarray) -> set[tuple[int, ...]]:
        return {tuple(colour) for colour in sheet[:, -200:].reshape(-1, 3).tolist()}

    ignored = MASK.copy()
    ignored[:5] = IGNORE
    alone = panel(IMAGE // 4 + 100, student=MASK, classes=CAMVID)
    assert not swatches(alone) & {(0, 0, 0), tuple(RED)}
    compared = panel(IMAGE // 4 + 100, truth=MASK, student=MASK, classes=CAMVID)
    assert tuple(RED) in swatches(compared) and (0, 0, 0) not in swatches(compared)
    assert (0, 0, 0) in swatches(panel(IMAGE // 4 + 100, truth=ignored, student=MASK, classes=CAMVID))
    assert (0, 0, 0) not in swatches(sample_grid([IMAGE], [MASK], [MASK], CAMVID))


def test_a_small_mask_is_enlarged_by_a_whole_factor_without_new_colours() -> None:
    shown = visualize.shown_mask(colourise(MASK, CAMVID))
    assert shown.shape == (288, 384, 3)
    assert np.array_equal(shown[::3, ::3], colourise(MASK, CAMVID))
    assert np.array_equal(shown, colourise(MASK, CAMVID).repeat(3, 0).repeat(3, 1))


def test_a_large_image_is_reduced() -> None:
    assert max(visualize.shown(np.zeros((1080, 1920, 3), np.uint8)).shape) == visualize.LARGEST


@pytest.mark.parametrize("size", [(1, 1), (32, 32), (96, 128), (256, 341), (1080, 1920), (20, 2000)])
def test_panels_fit_any_size(size: tuple[int, int]) -> None:
    image, mask = np.zeros((*size, 3), np.uint8), np.zeros(size, np.uint8)
    drawn = panel(image, mask, mask, mask, classes=CAMVID)
    assert drawn.dtype == np.uint8 and drawn.ndim == 3
    assert drawn.shape[1] > panel(image, student=mask, classes=CAMVID).shape[1]


def test_the_panel_marks_where_student_and_teacher_differ() -> None:
    student = MASK.copy()
    swatch = (panel(IMAGE // 2, MASK, MASK, student, classes=CAMVID) == RED).all(2).sum()
    assert swatch < 1000  # of the legend
    student[:48] = (student[:48] + 1) % 11
    marked = (panel(IMAGE // 2, MASK, MASK, student, classes=CAMVID) == RED).all(2)
    assert 0.95 < (marked.sum() - swatch) / (48 * 128 * 9) <= 1.0


def test_with_one_network_the_panel_compares_it_with_the_truth() -> None:
    student = (MASK + 1) % 11
    marked = (panel(IMAGE // 2, truth=MASK, student=student, classes=CAMVID) == RED).all(2)
    assert marked.sum() > 96 * 128 * 8


def test_the_grid_has_a_row_for_each_image() -> None:
    one, three = (sample_grid([IMAGE] * count, [MASK] * count, [MASK] * count, CAMVID) for count in (1, 3))
    assert three.shape[0] - one.shape[0] == 2 * (288 + visualize.GAP)


def test_inputs_are_left_alone() -> None:
    image, mask = IMAGE.copy(), MASK.copy()
    panel(image, mask, mask, (mask + 1) % 11, classes=CAMVID)
    overlay(image, mask, CAMVID)
    assert np.array_equal(image, IMAGE) and np.array_equal(mask, MASK)


def test_png_keeps_the_order_of_colours(tmp_path: Path) -> None:
    save_png(tmp_path / "a.png", IMAGE)
    assert np.array_equal(cv2.imread(str(tmp_path / "a.png"))[..., ::-1], IMAGE)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_png_into_nowhere_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        save_png(tmp_path / "missing" / "a.png", IMAGE)
