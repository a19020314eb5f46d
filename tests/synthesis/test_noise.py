"""Noise: over the whole of the teacher's range, a function of the move alone."""

import torch

from segkd.foundation.rng import seed_for
from segkd.synthesis.augment import Augment
from segkd.synthesis.noise import Noise
from segkd.synthesis.source import Move

LOW, HIGH = torch.tensor([-1.0, -2.0, 0.0]), torch.tensor([1.0, 2.0, 4.0])


def test_noise_fills_the_range_and_leaves_it_nowhere():
    images = Noise(LOW, HIGH).draw(4, (24, 32), Move(0, 0, 0)).images
    assert images.shape == (4, 3, 24, 32)
    torch.testing.assert_close(images.amin((0, 2, 3)), LOW)
    torch.testing.assert_close(images.amax((0, 2, 3)), HIGH)
    unit = (images - LOW.view(1, 3, 1, 1)) / (HIGH - LOW).view(1, 3, 1, 1)
    assert abs(float(unit.mean()) - 0.5) < 0.01 and 0.33 < float((unit.abs() % 1 == 0).float().mean()) + 0.02 < 0.36


def test_its_numbers_are_those_of_the_move_s_own_stream():
    images = Noise(-torch.ones(3), torch.ones(3)).draw(2, (4, 6), Move(5, 3, 2)).images
    torch.manual_seed(seed_for(5, 3, 2, "synthesis"))
    assert torch.equal(images, torch.randn(2, 3, 4, 6).clamp(-1, 1)) and not images.requires_grad


def test_noise_follows_the_move_and_learns_nothing():
    source = Noise(LOW, HIGH)
    first, again, other = (source.draw(2, (4, 4), Move(0, step, 0)).images for step in (3, 3, 4))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert not list(source.parameters()) and not source.state() and source.player is None


def test_images_that_teach_nobody_are_not_changed():
    plain, changed = Noise(LOW, HIGH), Noise(LOW, HIGH, Augment(("flip", "noise"), LOW, HIGH))
    for done, same in ((None, True), (0.5, False)):
        move = Move(0, 1, 0, done)
        assert torch.equal(plain.draw(4, (8, 8), move).images, changed.draw(4, (8, 8), move).images) == same
