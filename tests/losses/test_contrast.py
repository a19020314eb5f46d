"""The contrastive loss and what it is made of against sums in float64: value and gradient."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from segkd.losses.contrast import contrast, pooled


def vectors(*shapes: tuple[int, int], seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape) * 3 for shape in shapes]


def reference(images: np.ndarray, views: np.ndarray, others: np.ndarray, tau: float) -> tuple[float, np.ndarray]:
    """Image by image; the value, and the gradient with respect to the images."""
    total, gradient = 0.0, np.zeros_like(images)
    for n, (a, v) in enumerate(zip(images, views, strict=True)):
        length = math.sqrt(sum(a * a))
        a, shown = a / length, [row / math.sqrt(sum(row * row)) for row in (v, *others)]
        odds = [math.exp(float(a @ row) / tau) for row in shown]
        shares = [odd / sum(odds) for odd in odds]
        total -= math.log(shares[0]) / len(images)
        slope = (sum(p * row for p, row in zip(shares, shown, strict=True)) - shown[0]) / tau / len(images)
        gradient[n] = (slope - (slope @ a) * a) / length  # of what lies on the sphere
    return total, gradient


@pytest.mark.parametrize(("n", "m", "d", "tau"), [(1, 1, 2, 1.0), (3, 5, 7, 0.1), (2, 0, 4, 0.5), (4, 2, 1, 0.2)])
def test_contrast(n, m, d, tau):
    images, views, others = vectors((n, d), (n, d), (m, d))
    x = torch.tensor(images, dtype=torch.float32, requires_grad=True)
    value = contrast(x, *(torch.tensor(rows, dtype=torch.float32) for rows in (views, others)), tau)
    wanted, slope = reference(images, views, others, tau)
    assert value.item() == pytest.approx(wanted, rel=1e-5, abs=1e-7)
    [found] = torch.autograd.grad(value, x)
    np.testing.assert_allclose(found.numpy(), slope, rtol=1e-4, atol=1e-6)


def test_views_learn_too():
    images, views, others = (torch.tensor(rows) for rows in vectors((2, 3), (2, 3), (4, 3)))
    assert torch.autograd.gradcheck(
        lambda a, v: contrast(a, v, others, 0.5), (images.requires_grad_(), views.requires_grad_())
    )


def test_all_alike_is_the_logarithm_of_how_many_there_are_and_no_length_counts():
    rows = torch.ones(2, 3)
    assert contrast(rows, 5 * rows, rows.repeat(4, 1)).item() == pytest.approx(math.log(9))


def test_places_that_hold_no_image_yet_are_none():
    images, views, others = (torch.tensor(rows) for rows in vectors((2, 3), (2, 3), (4, 3)))
    with_places = torch.cat([others, torch.zeros(5, 3)])
    torch.testing.assert_close(contrast(images, views, with_places), contrast(images, views, others))
    assert contrast(images, views, torch.zeros(5, 3).double()).item() == 0


@pytest.mark.parametrize("shape", [(2, 3, 4, 6), (1, 2, 5, 7), (3, 1, 1, 1)])
def test_pooled(shape):
    maps = torch.tensor(np.random.default_rng(0).standard_normal(shape))
    torch.testing.assert_close(pooled(maps), F.adaptive_avg_pool2d(maps, 1).flatten(1))
    high, wide = -(-shape[2] // 2), -(-shape[3] // 2)
    ends = {
        0.0: (slice(None, high), slice(None, wide)),
        0.999: (slice(-high, None), slice(-wide, None)),
        1.0: (slice(-high, None), slice(-wide, None)),
    }
    for place, (rows, columns) in ends.items():
        found = pooled(maps, torch.full((2, shape[0]), place))
        torch.testing.assert_close(found, maps[:, :, rows, columns].mean((2, 3)))
    assert torch.autograd.gradcheck(lambda x: pooled(x, torch.full((2, shape[0]), 0.4)), maps.requires_grad_())
