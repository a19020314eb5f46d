"""Procedural rooms: the same from a seed at any size, varied, in right perspective."""

from __future__ import annotations

import numpy as np
import pytest

from segkd.procedural.rooms import NEAR, Room, Surface, render


@pytest.fixture(scope="module")
def rooms() -> np.ndarray:
    """Images (200, 96, 128, 3)."""
    return np.stack([render(seed)[0] for seed in range(200)])


def room(**changed) -> Room:
    values = {
        "rng": np.random.default_rng(0), "size": (100, 200), "width": 4.0, "height": 3.0, "depth": 6.0, "eye": (2.0, 1.5, 0.0),
        "yaw": 0.0, "pitch": 0.0, "focal": 100.0, "light": (2.0, 3.0, 1.0),
    }  # fmt: skip
    return Room(**values | changed)


def test_a_seed_gives_the_same_bytes_and_others_another_room(rooms) -> None:
    for seed in (199, 3):
        assert render(seed)[0].tobytes() == rooms[seed].tobytes()
    assert len({image.tobytes() for image in rooms}) == len(rooms)


@pytest.mark.parametrize("size", [(96, 128), (97, 131), (33, 250), (200, 41), (7, 9), (1, 1), (480, 640)])
def test_any_size(size: tuple[int, int]) -> None:
    for seed in range(3):
        image, surfaces = render(seed, size)
        assert image.shape == (*size, 3) and image.dtype == np.uint8 and image.flags.c_contiguous
        assert surfaces.shape == size and surfaces.dtype == np.uint8 and surfaces.max() < len(Surface)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_larger_size_shows_the_same_room(seed: int) -> None:
    small, large = render(seed, (96, 128))[1], render(seed, (384, 512))[1]
    assert (small == large[2::4, 2::4]).mean() > 0.9


def test_rooms_are_light_and_dark_and_full(rooms) -> None:
    means, spreads = rooms.mean((1, 2, 3)), rooms.std((1, 2)).mean(1)
    assert means.min() < 70 and means.max() > 150
    assert np.median(spreads) > 25 and (spreads > 8).mean() > 0.95


def test_points_are_where_a_pinhole_shows_them() -> None:
    square = np.array([(1.0, 0.5, 2.0), (3.0, 0.5, 2.0), (3.0, 2.5, 2.0), (1.0, 2.5, 2.0)])
    np.testing.assert_allclose(room().seen(square), [(50, 100), (150, 100), (150, 0), (50, 0)])
    turned = room(yaw=np.pi / 2).seen(np.array([(5.0, 1.5, 0.0), (5.0, 1.5, -3.0), (5.0, 4.5, 0.0)]))
    np.testing.assert_allclose(turned, [(100, 50), (200, 50), (100, -50)], atol=1e-9)  # looks along x


def test_what_lies_behind_the_camera_is_cut_off() -> None:
    floor = np.array([(1.0, 0.0, -4.0), (3.0, 0.0, -4.0), (3.0, 0.0, 6.0), (1.0, 0.0, 6.0)])
    pixels = room().seen(floor)
    assert len(pixels) == 4 and np.isclose(pixels[:, 1].max(), 50 + 100 * 1.5 / NEAR)
    assert len(room().seen(floor - (0, 0, 9))) == 0


def test_near_things_hide_far_ones() -> None:
    here = room()
    for z, colour in ((2.0, 250.0), (4.0, 100.0), (3.0, 30.0)):
        here.box((1.5, 1.0, z), (2.5, 2.0, z + 0.1), np.full(3, colour), Surface.SMOOTH)
    canvas = here.painted()
    assert canvas[50, 100, 0] > 130 and canvas[50, 100, 3] == Surface.SMOOTH and not canvas[0, 0].any()
