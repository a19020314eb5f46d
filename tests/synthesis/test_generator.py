"""A generator as a source, by itself: whose images are drawn, from which numbers, and what stays as it was."""

import copy
from contextlib import contextmanager
from functools import partial

import torch
from torch import nn

from segkd.foundation.rng import seed_for
from segkd.players.player import Player
from segkd.synthesis.augment import Augment
from segkd.synthesis.generator import Generator, Live
from segkd.synthesis.source import Move


class Painter(nn.Module):
    """Latents (N,2) to images (N,3,H,W), with a BatchNorm and dropout on the way."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Dropout(0.5))

    def forward(self, z, size):
        return self.layers(z)[:, :, None, None].expand(-1, -1, *size)


SGD = partial(torch.optim.SGD, fused=True)


def painted(network, move, size):
    torch.manual_seed(seed_for(move.seed, move.step, move.index, "latent"))
    z = torch.randn(4, 2)
    torch.manual_seed(seed_for(move.seed, move.step, move.index, "synthesis"))
    with torch.no_grad():
        return z, copy.deepcopy(network).train()(z, size)


def averaged(network):
    return Player("source", network, partial(SGD, lr=0.5, momentum=0.9), ema_decay=0.9)


def test_images_are_those_of_the_average_where_there_is_one():
    torch.manual_seed(0)
    network, move = Painter(), Move(5, 3, 1)
    for player in (None, Player("source", network, partial(SGD, lr=0.1)), averaged(network)):
        if player is not None and player.average is not None:
            network.layers[0].weight.data += 1
        source, before = Generator(network, 2, player), copy.deepcopy(network.state_dict())
        found = source.eval().draw(4, (2, 3), move)
        z, wanted = painted(network if player is None else player.ema_or_live, move, (2, 3))
        assert torch.equal(found.images, wanted) and torch.equal(found.latents, z) and found.labels is None
        assert not found.images.requires_grad and all(
            torch.equal(before[k], v) for k, v in network.state_dict().items()
        )


def test_the_live_one_is_shown_beside_its_average():
    torch.manual_seed(0)
    network, move = Painter(), Move(5, 3, 1)
    source = Generator(network, 2, averaged(network))
    network.layers[0].weight.data += 1
    live, before = Live(source), copy.deepcopy(network.state_dict())
    found = live.eval().draw(4, (2, 3), move).images
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert torch.equal(found, painted(network, move, (2, 3))[1]) and not torch.equal(
        found, source.draw(4, (2, 3), move).images
    )
    assert not found.requires_grad


class Judge:
    """Keeps what is asked of it, and makes no move."""

    move, batch = Move(5, 3, 1, 0.5), None

    def __call__(self, batch):
        self.batch = batch
        return batch.images.sum()

    def update(self, player, loss):
        self.player, self.loss = player, loss()


def test_an_update_is_of_the_live_network_which_draws_with_a_graph():
    torch.manual_seed(0)
    network, judge = Painter(), Judge()
    player = averaged(network)
    network.layers[0].weight.data += 1
    wanted = painted(network, judge.move, (2, 3))[1]
    made = Generator(network, 2, player).improve(4, (2, 3), judge)
    assert made is judge.batch and judge.player is player and torch.equal(made.images, wanted)
    assert torch.autograd.grad(judge.loss, network.layers[0].weight)[0].shape == (3, 2)


def test_images_are_changed_and_computed_as_asked():
    network, seen = Painter(), []

    class Passes:
        @contextmanager
        def through(self, module):
            seen.append(module)
            yield

    low = torch.full((3,), -100.0)
    plain, changed = (
        Generator(network, 2, passes=Passes()),
        Generator(network, 2, augment=Augment(("noise",), low, -low)),
    )
    move = Move(0, 0, 0, 0.5)
    assert not torch.equal(plain.draw(4, (2, 3), move).images, changed.draw(4, (2, 3), move).images)
    assert seen == [network] and changed.passes is not None
