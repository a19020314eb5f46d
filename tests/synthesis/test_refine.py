"""Refining: images go down their loss, a little, inside their range."""

import numpy as np
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


@pytest.mark.parametrize("steps", [1, 4])
def test_the_steps_are_those_of_adam_on_logits_of_the_unit_range(steps):
    x, aim = images(), images().flip(0)
    x[0, :, 0, 0], x[0, :, 0, 1] = LOW, HIGH  # the ends themselves, which have no logits
    low, span = (value.double().view(1, 3, 1, 1) for value in (LOW, HIGH - LOW))
    logits = torch.logit(((x.double() - low) / span).clamp(0.01, 0.99)).numpy()
    low, span, aimed, m, v = low.numpy(), span.numpy(), aim.double().numpy(), 0.0, 0.0
    for step in range(1, steps + 1):
        unit = 1 / (1 + np.exp(-logits))
        slope = 2 * (unit * span + low - aimed) / aimed.size * span * unit * (1 - unit)
        m, v = 0.9 * m + 0.1 * slope, 0.999 * v + 0.001 * slope**2
        logits = logits - 0.08 * (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8)
    refined = Refine(steps, LOW, HIGH)(x, lambda x: (x - aim).square().mean())
    wanted = torch.tensor(1 / (1 + np.exp(-logits)) * span + low, dtype=torch.float32)
    torch.testing.assert_close(refined, wanted, rtol=1e-4, atol=1e-4)


def test_it_has_no_state():
    assert not Refine(3, LOW, HIGH).state_dict()


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
