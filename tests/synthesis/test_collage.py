"""Collages: every pixel is an image of the batch at its own place; shapes lie above each other."""

import numpy as np
import pytest
import torch

from segkd.synthesis import collage as module
from segkd.synthesis.collage import LEAVES, SHAPES, collage, horizon, leaves


def batch(n=16, height=24, width=32):
    """Images whose every value is different, so that a pixel says where it comes from."""
    torch.manual_seed(0)
    return torch.rand(n, 3, height, width)


def from_the_batch(x, y):
    """Which pixels (N,H,W) of y show some image of x at the same place."""
    return torch.stack([torch.isclose(y, image[None], atol=1e-6).all(1) for image in x]).any(0)


def test_the_first_quarter_stays_and_the_rest_is_cut_up():
    x = batch()
    torch.manual_seed(1)
    y = collage(x)
    assert torch.equal(x[:4], y[:4])
    assert all(not torch.equal(a, b) for a, b in zip(x[4:], y[4:], strict=True))


def test_every_pixel_shows_an_image_at_its_own_place():
    x = batch()
    torch.manual_seed(1)
    assert from_the_batch(x, collage(x)).all()


def test_the_gradient_counts_where_an_image_is_shown():
    x = batch().requires_grad_()
    torch.manual_seed(1)
    collage(x).sum().backward()
    assert torch.equal(x.grad, x.grad.round()) and x.grad.sum() == x.numel()


@pytest.mark.parametrize("n", [1, 2, 5])
def test_small_batches_and_odd_sizes(n):
    x = batch(n, 9, 7)
    torch.manual_seed(1)
    y = collage(x)
    assert y.shape == x.shape and y.min() >= 0 and y.max() <= 1


def test_leaves_cover_each_other_and_differ_between_images():
    torch.manual_seed(1)
    top = leaves(64, 24, 32)
    assert top.min() >= 0 and top.max() <= LEAVES
    assert all((top == leaf).any() for leaf in range(LEAVES + 1))
    assert not torch.equal(top[0], top[1])


def test_large_leaves_lie_below(monkeypatch):
    monkeypatch.setattr(module, "LEAVES", 6)
    torch.manual_seed(1)
    top = leaves(200, 24, 32)
    first, last = ((top == leaf).float().mean() for leaf in (1, 6))
    assert first > 3 * last > 0


def test_the_seed_alone_decides():
    x = batch()
    made = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        made.append(collage(x))
    assert torch.equal(made[0], made[1]) and not torch.equal(made[0], made[2])


@pytest.mark.parametrize("shape", [horizon, *SHAPES])
def test_each_shape_draws_its_leaf_and_nothing_else(shape):
    rng = np.random.default_rng(0)
    areas = []
    for radius in (3, 12):
        drawn = np.zeros((40, 64, 96), np.uint8)
        for canvas in drawn:
            shape(canvas, rng, 7, radius)
        assert set(np.unique(drawn)) == {0, 7}
        areas.append((drawn == 7).mean())
    assert shape is horizon or areas[1] > 3 * areas[0], "larger radii, larger leaves"


def test_gradients_of_threads_that_meet_are_added_up_in_one_order():
    """The bytes of a run depend on it; the order of threads differs each time."""
    x = torch.rand(12, 3, 96, 128).requires_grad_()
    slope = torch.randn(12, 3, 96, 128)

    def gradient() -> torch.Tensor:
        torch.manual_seed(3)
        return torch.autograd.grad(collage(x), x, slope)[0]

    first = gradient()
    assert all(torch.equal(gradient(), first) for _ in range(20))
