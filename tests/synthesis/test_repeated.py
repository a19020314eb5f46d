"""One batch of latents for all draws of a step."""

import torch

from segkd.synthesis.noise import Noise
from segkd.synthesis.repeated import Repeated
from segkd.synthesis.source import Move


def test_a_step_has_the_images_of_its_first_move_and_what_teaches_nobody_has_its_own():
    noise = Noise(-torch.ones(3), torch.ones(3))
    source = Repeated(noise)

    def drawn(step, index, done=0.5):
        return source.draw(2, (4, 6), Move(1, step, index, done)).images

    first = noise.draw(2, (4, 6), Move(1, 3, 0, 0.5)).images
    assert torch.equal(drawn(3, 0), first) and torch.equal(drawn(3, 7), first) and not torch.equal(drawn(4, 0), first)
    assert not torch.equal(drawn(-1, 0, None), drawn(-1, 1, None))
    noise.real, noise.updates = 5, 3
    assert (source.real, Repeated(noise).updates, source.player) == (5, 3, None)
