"""Collages: every pixel is an image of the batch at its own place; shapes lie above each other."""

import numpy as np
import pytest
import torch

from segkd.synthesis import collage as module
from segkd.synthesis.collage import LEAVES, RADII, SHAPES, collage, gathered, horizon, indexed, leaves, pose, taken


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


def test_pixels_are_picked_one_by_one():
    """By the seed: the leaves, then which image each shows; what none covers is the image that was there."""
    x = batch(6)
    torch.manual_seed(5)
    y = collage(x)
    torch.manual_seed(5)
    top = leaves(5, 24, 32)
    shown = torch.randint(6, (5, LEAVES + 1))
    assert torch.equal(y[0], x[0]) and (top == 0).any() and (top == LEAVES).any()
    for n, i, j in np.ndindex(5, 24, 32):
        image = shown[n, top[n, i, j]] if top[n, i, j] else n + 1
        assert torch.equal(y[n + 1, :, i, j], x[image, :, i, j])


def test_both_ways_to_pick_pixels_are_one():
    """A CPU and a GPU have their own, each with one order in which gradients are added up."""
    picks, slope = torch.randint(5, (4, 6, 7)), torch.randn(4, 3, 6, 7)
    found = []
    for way in (gathered, indexed):
        x = batch(5, 6, 7).requires_grad_()
        y = way(x, picks)
        found.append((y.detach(), torch.autograd.grad(y, x, slope)[0]))
    assert torch.equal(found[0][0], found[1][0])
    torch.testing.assert_close(found[0][1], found[1][1])


@pytest.mark.parametrize(("device", "way"), [("cpu", "Gather"), ("meta", "Permute")])
def test_pixels_are_picked_as_the_device_adds_gradients_up_in_order(device, way):
    images, picks = torch.empty(5, 3, 6, 7, device=device), torch.zeros(4, 6, 7, dtype=torch.long, device=device)
    assert taken(images.requires_grad_(), picks).grad_fn.name().startswith(way)


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


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("radius", [0.3, 8, 150])
def test_ellipses_are_whole_and_never_less_than_a_pixel(seed, radius):
    canvas = np.zeros((300, 420), np.uint8)
    module.ellipse(canvas, np.random.default_rng(seed), 1, radius)
    (x, y), stretch, angle = pose(canvas, np.random.default_rng(seed))
    turn = np.radians(round(angle))  # as OpenCV turns it
    rows, columns = np.mgrid[:300, :420]
    along = (columns - x) * np.cos(turn) + (rows - y) * np.sin(turn)
    across = (rows - y) * np.cos(turn) - (columns - x) * np.sin(turn)
    wide, high = max(radius * stretch, 1), max(radius / stretch, 1)

    def within(margin):
        return (along / (wide + margin)) ** 2 + (across / (high + margin)) ** 2 <= 1

    assert not (canvas != 0)[~within(2)].any()
    assert min(wide, high) < 4 or (canvas != 0)[within(-2.5)].all()


def test_horizons_fall_by_8_degrees_more_or_less(monkeypatch):
    lines, rng = [], np.random.default_rng(3)
    monkeypatch.setattr(module, "fill", lambda canvas, leaf, corners: lines.append(corners[:2]))
    for _ in range(4000):
        horizon(np.zeros((90, 120), np.uint8), rng, 1, 0)
    (left, start), (right, end) = np.array(lines).transpose(1, 2, 0)
    assert (left == 0).all() and (right == 120).all()
    assert np.degrees(np.arctan2(end - start, 120)).std() == pytest.approx(8, abs=0.3)
    middle = (start + end) / 2
    assert 9 < middle.min() < 10 and 80 < middle.max() < 81


def test_leaves_stand_as_they_always_did():
    """Centre, stretch and angle: the sixth is one of those that lean as they like."""
    rng = np.random.default_rng(11)
    poses = [pose(np.zeros((100, 200), np.uint8), rng) for _ in range(8)]
    assert [(*centre, stretch, angle) for centre, stretch, angle in poses] == [
        pytest.approx(wanted, abs=2e-3)
        for wanted in (
            (10.857, 49.913, 0.8117, -3.062),
            (202.771, -1.550, 0.2744, 4.481),
            (68.558, 51.367, 0.7669, -0.819),
            (169.130, 70.443, 1.6161, -0.917),
            (215.419, 14.541, 0.2607, -4.023),
            (121.983, 18.236, 1.0260, 156.120),
            (92.098, 23.257, 1.6521, 2.310),
            (15.446, 70.803, 0.5658, -1.242),
        )
    ]


DRAWN = {  # area, mean and spread of the rows and columns, their correlation, and where early and late canvases differ
    ("horizon", 20): (289489, 56.84, 69.48, 27.82, 40.41, 0.008, 92.43, -23.0),
    ("box", 20): (42351, 49.41, 65.33, 27.98, 41.1, 0.178, -51.62, -119.83),
    ("box", 40): (136220, 48.91, 67.79, 26.34, 38.58, 0.1, -52.16, -72.22),
    ("ellipse", 20): (32941, 57.12, 70.19, 28.9, 37.88, 0.146, 223.86, 140.38),
    ("ellipse", 40): (109533, 55.66, 70.3, 27.96, 37.91, 0.013, 151.29, 105.14),
    ("shrub", 20): (33332, 47.01, 72.13, 29.33, 37.63, 0.334, -52.08, -11.93),
    ("shrub", 40): (108200, 49.59, 68.64, 28.72, 37.95, 0.159, 7.91, -81.31),
    ("grid", 20): (8559, 60.19, 75.88, 25.95, 40.69, 0.018, 201.71, 163.8),
    ("grid", 40): (17421, 61.04, 82.55, 26.89, 38.59, 0.092, 245.0, 344.99),
}


@pytest.mark.parametrize(("name", "radius"), DRAWN)
def test_shapes_are_drawn_as_they_always_were(name, radius):
    """Forty of each by one seed; another version of OpenCV may set some pixels of their edges otherwise."""
    rng = np.random.default_rng(7)
    canvases = np.zeros((40, 100, 140), np.uint8)
    for canvas in canvases:
        getattr(module, name)(canvas, rng, 1, radius)
    n, y, x = canvases.nonzero()
    area, *places, bend, early, late = DRAWN[name, radius]
    assert len(n) == pytest.approx(area, rel=0.01)
    assert (y.mean(), x.mean(), y.std(), x.std()) == pytest.approx(places, abs=0.2)
    assert np.corrcoef(y, x)[0, 1] == pytest.approx(bend, abs=0.01)
    assert ((n * (y - 50)).mean(), (n * (x - 70)).mean()) == pytest.approx((early, late), abs=4)


def test_leaves_lie_as_they_always_did():
    torch.manual_seed(1)
    top = leaves(3, 24, 32).double()
    assert (LEAVES, RADII) == (60, (0.01, 0.6))
    assert top.mean((1, 2)).tolist() == pytest.approx([25.211, 20.579, 27.904], rel=0.02)
    assert top[:, :12].mean((1, 2)).tolist() == pytest.approx([26.531, 19.729, 28.214], rel=0.02)
    assert top[..., :16].mean((1, 2)).tolist() == pytest.approx([26.258, 22.406, 28.875], rel=0.02)


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
