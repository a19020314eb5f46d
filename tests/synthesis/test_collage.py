"""Collages: every pixel is an image of the batch at its own place, or a material; shapes lie above each other."""

import pytest
import torch

from segkd.synthesis import collage as module
from segkd.synthesis.collage import LEAVES, collage, leaves, material

CPU = torch.device("cpu")


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
    assert 0.3 < share < 0.7, "half of the leaves show images, half a material of their own"


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
    top = leaves(64, 24, 32, CPU)
    assert top.min() >= 0 and top.max() <= LEAVES
    assert all((top == leaf).any() for leaf in range(LEAVES + 1))
    assert not torch.equal(top[0], top[1])
    low, high = ((top == leaf).float().mean((1, 2)).quantile(0.6) for leaf in (3, LEAVES))
    assert low > 2 * high > 0, "large leaves lie below, small ones above"


def test_a_material_belongs_to_its_leaf():
    torch.manual_seed(1)
    shown = leaves(8, 24, 32, CPU)
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
