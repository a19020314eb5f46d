"""Procedural scenes: exact, varied, balanced, and not to be solved by colour."""

from __future__ import annotations

import math

import numpy as np
import pytest

from segkd.procedural.exposure import expose
from segkd.procedural.materials import WHITE
from segkd.procedural.scenes import STREET_NAMES, STREET_PALETTE, TEXTURE, render
from segkd.procedural.street.camera import Brush, Camera, Label
from segkd.procedural.street.figures import draw_furniture
from segkd.procedural.street.plan import choose_weather

CLASSES = len(STREET_NAMES)


@pytest.fixture(scope="module")
def scenes() -> tuple[np.ndarray, np.ndarray]:
    """Images (500, 96, 128, 3) and masks (500, 96, 128)."""
    images, masks = zip(*(render(seed) for seed in range(500)), strict=True)
    return np.stack(images), np.stack(masks)


def level_camera(size: tuple[int, int], roll: float = 0.0) -> Camera:
    """A camera in the middle of a straight street."""
    return Camera(size, size[0] / 96, float(size[0]), 1.6, size[0] / 2, size[1] / 2, roll, 0.0)


def test_names_and_palette_are_distinct() -> None:
    assert len(set(STREET_NAMES)) == len(set(STREET_PALETTE)) == len(STREET_NAMES) == len(STREET_PALETTE)
    assert (0, 0, 0) not in STREET_PALETTE  # black is void


def test_a_seed_gives_the_same_bytes(scenes: tuple[np.ndarray, np.ndarray]) -> None:
    for seed in (499, 3, 120):  # in another order than the fixture
        image, mask = render(seed)
        assert image.tobytes() == scenes[0][seed].tobytes() and mask.tobytes() == scenes[1][seed].tobytes()


def test_seeds_give_different_scenes(scenes: tuple[np.ndarray, np.ndarray]) -> None:
    assert len({image.tobytes() for image in scenes[0]}) == len({mask.tobytes() for mask in scenes[1]}) == 500


@pytest.mark.parametrize("size", [(96, 128), (97, 131), (33, 250), (200, 41), (7, 9), (1, 1), (480, 640)])
def test_any_size(size: tuple[int, int]) -> None:
    for seed in range(3):
        image, mask = render(seed, size)
        assert image.shape == (*size, 3) and image.dtype == np.uint8 and image.flags.c_contiguous
        assert mask.shape == size and mask.dtype == np.uint8 and mask.flags.c_contiguous and mask.max() < CLASSES


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_larger_size_shows_the_same_scene(seed: int) -> None:
    small, large = render(seed, (96, 128))[1], render(seed, (384, 512))[1]
    assert (small == large[2::4, 2::4]).mean() > 0.9


def test_class_shares(scenes: tuple[np.ndarray, np.ndarray]) -> None:
    shares = np.bincount(scenes[1].ravel(), minlength=CLASSES) / scenes[1].size
    assert 0.003 <= shares.min() <= 0.02
    assert shares.max() < 0.4


def test_every_class_is_often_there(scenes: tuple[np.ndarray, np.ndarray]) -> None:
    seen = np.stack([np.bincount(mask.ravel(), minlength=CLASSES) >= 30 for mask in scenes[1]])
    assert seen.mean(0).min() > 0.4


def test_light_and_viewpoint_vary(scenes: tuple[np.ndarray, np.ndarray]) -> None:
    images, masks = scenes
    low, high = np.percentile(images.mean((1, 2, 3)), (10, 90))
    assert high - low > 50
    warmth = (images[..., 0].astype(float) - images[..., 2]).mean((1, 2))
    assert warmth.std() > 8
    road = masks == Label.ROAD
    columns = (road * np.arange(128)).sum((1, 2)) / road.sum((1, 2))
    tops = road.any(2).argmax(1)
    assert columns.std() > 6 and tops.std() > 5


def test_colour_alone_does_not_give_the_classes_away(scenes: tuple[np.ndarray, np.ndarray]) -> None:
    """A Bayes classifier on a 16x16x16 colour histogram, fitted on 300 scenes, judged on 200 others."""
    red, green, blue = np.moveaxis(scenes[0].astype(np.int64) >> 4, -1, 0)
    colours, masks = (red * 16 + green) * 16 + blue, scenes[1].astype(np.int64)
    counts = np.bincount((colours * CLASSES + masks)[:300].ravel(), minlength=4096 * CLASSES).reshape(4096, CLASSES)
    for scores in (counts, counts / counts.sum(0)):  # with and without the classes' frequencies
        guess = scores.argmax(1)[colours[300:]]
        matrix = np.bincount((masks[300:] * CLASSES + guess).ravel(), minlength=CLASSES**2).reshape(CLASSES, CLASSES)
        hits = np.diag(matrix)
        assert (hits / (matrix.sum(0) + matrix.sum(1) - hits)).mean() <= 0.40


def test_a_shape_and_its_label_cover_the_same_pixels() -> None:
    brush = Brush(level_camera((96, 128)), np.zeros(3), 0.01)
    brush.fill(np.array(((10.3, 12.8), (70.6, 20.1), (40.2, 80.9))), WHITE, Label.CAR, 9.0)
    painted = brush.canvas[..., :3].any(-1)
    assert painted.sum() > 1500
    assert np.array_equal(painted, brush.canvas[..., 3] == Label.CAR)


def test_exposure_leaves_the_labels() -> None:
    canvas = np.random.default_rng(0).integers(0, CLASSES, (40, 50, 4), np.uint8)
    before = canvas.copy()
    _, mask = expose(canvas, np.random.default_rng(1), TEXTURE, choose_weather(np.random.default_rng(2)).gain)
    assert np.array_equal(mask, before[..., 3]) and np.array_equal(canvas, before)


@pytest.mark.parametrize("kind", ["lamp", "light", "sign"])
def test_posts_are_three_pixels_wide(kind: str) -> None:
    brush = Brush(level_camera((96, 128)), np.zeros(3), 0.0)
    draw_furniture(brush, np.random.default_rng(0), 2.0, 17.0, kind, WHITE, WHITE)
    widths = (brush.canvas[..., 3] == Label.POLE).sum(1)
    assert widths[widths > 0][:-1].min() >= 3  # the last row may be a corner of the foot


@pytest.mark.parametrize("roll", [0.0, 0.07])
def test_camera_and_ground_agree(roll: float) -> None:
    """The ground seen at a pixel projects back to that pixel, also in a bend and with a rolled camera."""
    camera = Camera((96, 128), 1.0, 100.0, 1.8, 40.0, 70.0, roll, 0.004)
    x, z, below = camera.ground()
    rows, columns = np.nonzero(below & (z > 0.8) & (z < 60))
    pixels = camera.project(x[rows, columns], np.zeros(len(rows)), z[rows, columns])
    assert np.abs(pixels - np.stack((columns, rows), -1)).max() < 0.02
    assert not below[: camera.first_ground_row].any()


def test_things_shrink_with_distance() -> None:
    camera = level_camera((96, 128))
    heights = []
    for z in (5.0, 10.0):
        foot, head = camera.project(np.zeros(2), np.array((0.0, 1.75)), np.full(2, z))
        heights.append(foot[1] - head[1])
    assert math.isclose(heights[0], 2 * heights[1]) and math.isclose(heights[0], 96 * 1.75 / 5)
