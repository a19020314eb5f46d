"""Refining: images go down their loss, a little, inside their range."""

import numpy as np
import pytest
import torch

from segkd.machine.snapshot import Snapshot
from segkd.synthesis.noise import Noise
from segkd.synthesis.pixels import PACE, Descent, Pixels
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
    return Pixels(Noise(LOW, HIGH), Descent(steps), LOW, HIGH).refined(Batch(x), Judge(loss)).images


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
    Pixels(Noise(LOW, HIGH), Descent(2), LOW, HIGH).refined(Batch(images()), judge)
    player = judge.player
    assert (player.name, player.lr_factor(1), player.shared, player.average) == ("pixels", 1.0, False, None)


def test_what_they_begin_with_learns():
    class Learning(Noise):
        def improve(self, *given):
            self.given = given

    start = Learning(LOW, HIGH)
    assert Pixels(start, Descent(2), LOW, HIGH).improve(4, (5, 7), "judge") is None and start.given == (
        4,
        (5, 7),
        "judge",
    )


def test_it_has_no_state():
    assert not Pixels(Noise(LOW, HIGH), Descent(3), LOW, HIGH).state()


def test_only_what_is_to_be_kept_follows_its_judge():
    source, move = Pixels(Noise(LOW, HIGH), Descent(2), LOW, HIGH), Move(0, 3, 1)
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
    found = Pixels(Noise(LOW, HIGH), Descent(2), LOW, HIGH).refined(Batch(x), judge).images
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
    found = Pixels(Noise(LOW, HIGH), Descent(1), LOW, HIGH).refined(drawn, judge)
    assert all(b.labels is drawn.labels and b.latents is drawn.latents for b in (*seen, found))


def test_it_works_where_gradients_are_off_and_leaves_none_behind():
    x = images()
    with torch.no_grad():
        found = refined(2, x, lambda x: x.square().sum())
    assert not found.requires_grad and x.grad is None and not torch.equal(found, x)


class Placed(Judge):
    """One whose moves have a place, and which keeps what it is shown."""

    def __init__(self, loss):
        super().__init__(loss)
        self.move, self.seen = Move(3, 5, 1, 0.5), []

    def __call__(self, batch):
        self.seen.append(batch)
        return super().__call__(batch)

    def update(self, player, loss):
        self.lr, self.betas = (player.optimizer.defaults[name] for name in ("lr", "betas"))
        super().update(player, loss)
        self.move = self.move.next()


def labelled(count=2, size=(8, 12)):
    """Images whose first channel shows their ids."""
    ids = torch.randint(2, (count, *size), generator=torch.Generator().manual_seed(1))
    return Batch((0.3 + 0.4 * ids)[:, None] * REACH + LOW.view(1, 3, 1, 1), ids, torch.zeros(count, 4))


def followed(how, drawn, loss=lambda x: x.square().mean()):
    judge = Placed(loss)
    return Pixels(Noise(LOW, HIGH), how, LOW, HIGH).refined(drawn, judge), judge


def test_a_share_of_the_steps_is_made_at_half_the_size():
    drawn = labelled(size=(9, 13))
    found, judge = followed(Descent(10, half=0.66), drawn)
    sizes = [tuple(seen.images.shape[2:]) for seen in judge.seen]
    assert sizes == [(4, 6)] * 7 + [(9, 13)] * 3 and all(
        seen.labels.shape[1:] == seen.images.shape[2:] for seen in judge.seen
    )
    assert found.images.shape == drawn.images.shape and found.labels is drawn.labels and found.latents is drawn.latents
    assert found.images.square().mean() < drawn.images.square().mean() and not found.images.requires_grad
    assert torch.equal(judge.seen[0].labels, drawn.labels[:, [0, 2, 4, 6]][..., [0, 2, 4, 6, 8, 10]])


@pytest.mark.parametrize(("half", "size"), [(1.0, (4, 6)), (0.0, (8, 12))])
def test_all_or_none_of_them_may_be(half, size):
    found, judge = followed(Descent(3, half=half), labelled())
    assert {tuple(seen.images.shape[2:]) for seen in judge.seen} == {size} and found.images.shape[2:] == (8, 12)


def test_images_are_rolled_and_mirrored_with_their_maps_and_kept_as_they_were():
    drawn = labelled()
    found, judge = followed(Descent(24, pace=1e-6, jitter=5, flip=True), drawn)
    ways = [(mirrored, down, right) for mirrored in (False, True) for down in range(-5, 6) for right in range(-5, 6)]
    told = []
    for seen in judge.seen:
        unit = (seen.images[:, 0] - LOW[0]) / (HIGH - LOW)[0]
        assert torch.equal((unit > 0.5).long(), seen.labels)
        for mirrored, *by in ways:
            rolled = drawn.labels.roll(by, (1, 2))
            if torch.equal(seen.labels, rolled.flip(-1) if mirrored else rolled):
                told.append((mirrored, *by))
                break
    assert len(told) == 24 and len(set(told)) > 15 and {mirrored for mirrored, *_ in told} == {False, True}
    assert found.labels is drawn.labels
    torch.testing.assert_close(found.images, drawn.images, rtol=1e-3, atol=1e-3)


def test_how_they_are_shaken_follows_the_move_and_half_size_is_shaken_half_as_far():
    drawn = labelled(size=(16, 24))
    first, again = (followed(Descent(8, half=0.5, jitter=3, flip=True), drawn)[1] for _ in range(2))
    assert all(torch.equal(a.images, b.images) for a, b in zip(first.seen, again.seen, strict=True))
    still = followed(Descent(8, half=0.5, jitter=1), drawn)[1]
    assert len({tuple(s.labels.flatten().tolist()) for s in still.seen[:4]}) == 1, "half of 1 is none"
    assert len({tuple(s.labels.flatten().tolist()) for s in still.seen[4:]}) > 1


def test_the_roll_is_drawn_from_a_stream_of_its_own():
    drawn = labelled(size=(16, 24))
    judge = followed(Descent(1, jitter=5), drawn)[1]
    Move(3, 5, 1, 0.5).begin("jitter")
    assert torch.equal(judge.seen[0].labels, drawn.labels.roll(torch.randint(-5, 6, (2,)).tolist(), (1, 2)))


def test_half_of_two_pixels_is_one():
    judge = followed(Descent(8, half=1.0, jitter=2), labelled(size=(16, 24)))[1]
    assert len({tuple(seen.labels.flatten().tolist()) for seen in judge.seen}) > 1


def test_half_of_a_line_is_a_line():
    judge = followed(Descent(1, half=1.0), labelled(size=(1, 12)))[1]
    assert judge.seen[0].images.shape[2:] == (1, 6)


def test_images_without_maps_are_halved_and_shaken_too():
    found, judge = followed(Descent(4, half=0.5, jitter=2, flip=True), Batch(labelled().images))
    assert found.labels is None and all(seen.labels is None for seen in judge.seen) and len(judge.seen) == 4


def test_images_are_inverted_where_nobody_learns_to_make_what_they_begin_with():
    start = Noise(LOW, HIGH)
    assert Pixels(start, Descent(1), LOW, HIGH).inverts
    start.player = "one who learns"
    assert not Pixels(start, Descent(1), LOW, HIGH).inverts


def test_pace_and_momentum_are_as_asked():
    assert [followed(how, labelled())[1].__dict__[key] for how in (Descent(1, 0.2, (0.5, 0.9)), Descent(1)) for key in ("lr", "betas")] == [
        0.2, (0.5, 0.9), PACE, (0.9, 0.999)]  # fmt: skip
