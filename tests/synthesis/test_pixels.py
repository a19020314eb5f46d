"""Refining: images go down their loss, a little, inside their range."""

import numpy as np
import pytest
import torch

from segkd.machine.snapshot import Snapshot
from segkd.synthesis.noise import Noise
from segkd.synthesis.pixels import PACE, Pixels
from segkd.synthesis.source import Batch, Move

LOW, HIGH = torch.tensor([-1.0, -2.0, 0.0]), torch.tensor([1.0, 2.0, 4.0])
REACH = (HIGH - LOW).view(1, 3, 1, 1)


class Judge:
    """A loss of images alone."""

    def __init__(self, loss):
        self.loss, self.verdicts = loss, []

    def __call__(self, batch):
        return self.loss(batch.images)

    def update(self, player, loss):
        self.verdicts.append(player.update(loss(), 0, Snapshot([])))


def refined(steps, x, loss):
    return Pixels(Noise(LOW, HIGH), steps, LOW, HIGH).refined(Batch(x), Judge(loss)).images


def images():
    torch.manual_seed(0)
    return torch.rand(2, 3, 5, 7) * REACH + LOW.view(1, 3, 1, 1)


def test_every_pixel_goes_down_its_own_gradient():
    x, pull = images(), torch.randn(2, 3, 5, 7)
    found = refined(3, x, lambda x: (pull * x).sum())
    assert ((found - x) * pull < 0).float().mean() > 0.97  # all but those that stood at the ends
    assert (found - x).abs().max() < 3 * PACE / 4 * REACH.max() + 0.01 * REACH.max()


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
    found = refined(steps, x, lambda x: (x - aim).square().mean())
    wanted = torch.tensor(1 / (1 + np.exp(-logits)) * span + low, dtype=torch.float32)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_each_process_moves_its_own_images_at_one_pace():
    class Watching(Judge):
        def update(self, player, loss):
            self.player = player
            super().update(player, loss)

    judge = Watching(lambda x: x.sum())
    Pixels(Noise(LOW, HIGH), 2, LOW, HIGH).refined(Batch(images()), judge)
    player = judge.player
    assert (player.name, player.schedule.name, player.shared, player.average) == ("pixels", "constant", False, None)


def test_what_they_begin_with_learns():
    class Learning(Noise):
        def improve(self, *given):
            self.given = given

    start = Learning(LOW, HIGH)
    assert Pixels(start, 2, LOW, HIGH).improve(4, (5, 7), "judge") is None and start.given == (4, (5, 7), "judge")


def test_it_has_no_state():
    assert not Pixels(Noise(LOW, HIGH), 3, LOW, HIGH).state()


def test_only_what_is_to_be_kept_follows_its_judge():
    source, move = Pixels(Noise(LOW, HIGH), 2, LOW, HIGH), Move(0, 3, 1)
    raw = source.draw(2, (5, 7), move).images
    assert torch.equal(raw, Noise(LOW, HIGH).draw(2, (5, 7), move).images)
    kept = source.draw(2, (5, 7), move, Judge(lambda x: x.square().sum())).images
    assert kept.square().sum() < raw.square().sum()


def test_a_loss_falls():
    x, aim = images(), images().flip(0)
    found = refined(40, x, lambda x: (x - aim).square().mean())
    assert (found - aim).square().mean() < 0.3 * (x - aim).square().mean()


def test_images_stay_in_their_range():
    found = refined(200, images(), lambda x: -x.sum())
    high = HIGH.view(1, 3, 1, 1)
    assert (found <= high).all() and (high - found).max() < 0.02 * REACH.max()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_step_whose_gradient_is_not_finite_is_refused(bad):
    x, judge = images(), Judge(lambda x: (x * bad).sum())
    found = Pixels(Noise(LOW, HIGH), 2, LOW, HIGH).refined(Batch(x), judge).images
    assert [bool(verdict.refused) for verdict in judge.verdicts] == [True, True]
    torch.testing.assert_close(
        found, x.clamp(LOW.view(1, 3, 1, 1) + 0.01 * REACH, HIGH.view(1, 3, 1, 1) - 0.01 * REACH)
    )


def test_what_an_image_was_made_from_stays_with_it():
    drawn = Batch(images(), labels=torch.ones(2, 5, 7, dtype=torch.int64), latents=torch.zeros(2, 4))
    seen = []

    class Seeing(Judge):
        def __call__(self, batch):
            seen.append(batch)
            return super().__call__(batch)

    judge = Seeing(lambda x: x.sum())
    found = Pixels(Noise(LOW, HIGH), 1, LOW, HIGH).refined(drawn, judge)
    assert all(b.labels is drawn.labels and b.latents is drawn.latents for b in (*seen, found))


def test_it_works_where_gradients_are_off_and_leaves_none_behind():
    x = images()
    with torch.no_grad():
        found = refined(2, x, lambda x: x.square().sum())
    assert not found.requires_grad and x.grad is None and not torch.equal(found, x)
