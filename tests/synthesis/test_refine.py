"""Refining: images go down their loss, a little, inside their range."""

import pytest
import torch

from segkd.synthesis.refine import PACE, Refine

LOW, HIGH = torch.tensor([-1.0, -2.0, 0.0]), torch.tensor([1.0, 2.0, 4.0])
REACH = (HIGH - LOW).view(1, 3, 1, 1)


def images():
    torch.manual_seed(0)
    return torch.rand(2, 3, 5, 7) * REACH + LOW.view(1, 3, 1, 1)


def test_no_step_no_change():
    x = images()
    assert torch.equal(Refine(0, LOW, HIGH)(x, lambda x: x.sum()), x)


def test_every_pixel_goes_down_its_own_gradient():
    x, pull = images(), torch.randn(2, 3, 5, 7)
    refined = Refine(3, LOW, HIGH)(x, lambda x: (pull * x).sum())
    assert ((refined - x) * pull < 0).float().mean() > 0.97  # all but those that stood at the ends
    assert (refined - x).abs().max() < 3 * PACE / 4 * REACH.max() + 0.01 * REACH.max()


def test_a_loss_falls():
    x, aim = images(), images().flip(0)
    refined = Refine(40, LOW, HIGH)(x, lambda x: (x - aim).square().mean())
    assert (refined - aim).square().mean() < 0.3 * (x - aim).square().mean()


def test_images_stay_in_their_range():
    refined = Refine(200, LOW, HIGH)(images(), lambda x: -x.sum())
    high = HIGH.view(1, 3, 1, 1)
    assert (refined <= high).all() and (high - refined).max() < 0.02 * REACH.max()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_shows(bad):
    """Whoever would keep such images must see it."""
    assert not Refine(2, LOW, HIGH)(images(), lambda x: (x * bad).sum()).isfinite().all()


def test_it_works_where_gradients_are_off_and_leaves_none_behind():
    x = images()
    with torch.no_grad():
        refined = Refine(2, LOW, HIGH)(x, lambda x: x.square().sum())
    assert not refined.requires_grad and x.grad is None and not torch.equal(refined, x)
