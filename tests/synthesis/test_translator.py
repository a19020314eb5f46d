"""A generator of pictures: it begins with them as they are, and learns what a judge misses in them."""

import pytest
import torch

from segkd.players.player import Optimizer, Player, Schedule
from segkd.synthesis.pictures import Pictures
from segkd.synthesis.source import Move
from segkd.synthesis.translator import Translator, Unet

LOW, HIGH = torch.tensor([-1.0, -2.0, 0.0]), torch.tensor([1.0, 2.0, 4.0])


@pytest.mark.parametrize("size", [(24, 32), (21, 30), (23, 33)])
def test_untaught_it_changes_nothing(size):
    torch.manual_seed(0)
    low, span = LOW.view(1, 3, 1, 1), (HIGH - LOW).view(1, 3, 1, 1)
    pictures = torch.rand(2, 3, *size) * span + low
    made = Unet(4, LOW, HIGH)(pictures)
    assert made.shape == pictures.shape
    torch.testing.assert_close(made, ((pictures - low) / span).clamp(0.01, 0.99) * span + low)


def test_it_leaves_the_range_nowhere_and_every_weight_has_a_gradient():
    torch.manual_seed(0)
    network = Unet(4, LOW, HIGH)
    torch.nn.init.normal_(network.last.weight, 0, 5)
    made = network(torch.rand(2, 3, 24, 32) * 4 - 2)
    assert (made >= LOW.view(1, 3, 1, 1)).all() and (made <= HIGH.view(1, 3, 1, 1)).all()
    made.square().mean().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in network.parameters())


class Judge:
    """Wants dark images, without any red."""

    move, batch = Move(5, 3, 1, 0.5), None

    def __call__(self, batch):
        self.batch = batch
        unit = (batch.images - LOW.view(1, 3, 1, 1)) / (HIGH - LOW).view(1, 3, 1, 1)
        return (unit.mean((0, 2, 3)) - torch.tensor([0.05, 0.2, 0.2])).square().sum()

    def update(self, player, loss):
        player.optimizer.zero_grad()
        self.loss = loss()
        self.loss.backward()
        player.optimizer.step()


def test_it_learns_how_pictures_should_look():
    torch.manual_seed(0)
    network, judge = Unet(4, LOW, HIGH), Judge()
    player = Player("source", network, Optimizer("adam", 3e-2), Schedule("constant"), 99)
    pictures = Pictures(("streets",), LOW, HIGH)
    source = Translator(network, pictures, player)
    before = source.draw(4, (24, 32), judge.move)
    assert before.latents is None and not before.images.requires_grad
    for _ in range(40):
        made = source.improve(4, (24, 32), judge)
    after = source.draw(4, (24, 32), judge.move)
    assert made is judge.batch and judge.loss < 0.01
    assert not torch.allclose(after.images, before.images, atol=0.5)


def test_to_draw_changes_no_buffer():
    network = Unet(4, LOW, HIGH)
    kept = {name: value.clone() for name, value in network.state_dict().items()}
    Translator(network, Pictures(("streets",), LOW, HIGH)).draw(4, (24, 32), Move(0, 0, 0))
    assert all(torch.equal(kept[name], value) for name, value in network.state_dict().items())
