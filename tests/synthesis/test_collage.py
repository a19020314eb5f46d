"""Collages: every pixel is an image of the batch at its own place, or a material; shapes lie above each other."""

import numpy as np
import pytest
import torch

from segkd.synthesis import collage as module
from segkd.synthesis.collage import LEAVES, SHAPES, collage, horizon, leaves, material, textures


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


def test_images_are_shown_at_their_own_place():
    x = batch()
    torch.manual_seed(1)
    share = from_the_batch(x, collage(x))[4:].float().mean()
    assert 0.75 < share < 0.97, "most leaves show images, a tenth has a material of its own"


def test_without_material_every_pixel_is_an_image(monkeypatch):
    monkeypatch.setattr(module, "OWN", 0.0)
    x = batch()
    torch.manual_seed(1)
    assert from_the_batch(x, collage(x)).all()


def test_the_gradient_counts_where_an_image_is_shown(monkeypatch):
    monkeypatch.setattr(module, "OWN", 0.0)
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


def test_a_material_belongs_to_its_leaf():
    torch.manual_seed(1)
    shown = leaves(8, 24, 32)
    colour = material(shown)
    assert colour.shape == (8, 3, 24, 32)
    inside = torch.stack(
        [colour[0, 0][shown[0] == leaf].std() for leaf in shown[0].unique() if (shown[0] == leaf).sum() > 9]
    )
    assert inside.mean() < colour[:, 0].std(), "a leaf is more uniform than a picture of many"


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


def test_textures_have_the_spectra_that_they_are_said_to_have():
    torch.manual_seed(0)
    size = 128
    fields = textures(6, size, size, torch.device("cpu"))
    torch.testing.assert_close(fields.std(dim=(2, 3), correction=0), torch.ones(6, fields.shape[1]))
    assert fields.mean(dim=(2, 3)).abs().max() < 1e-4
    power = torch.fft.fft2(fields).abs().square().mean(dim=0)
    (near, far) = ((power[:, k, 0] + power[:, 0, k]) / 2 for k in (4, 32))
    slopes = ((near / far).log() / np.log(32 / 4) / 2).tolist()
    assert [round(slope) for slope in slopes] == [0, 1, 1, 1, 2], "amplitude over frequency, of each texture"
    wide, high = fields[:, 2], fields[:, 3]
    for field, along, across in ((wide, 2, 1), (high, 1, 2)):
        assert field.diff(dim=along).std() < 0.7 * field.diff(dim=across).std(), "grain is longer one way"
