"""A generator of pictures: it begins with them as they are, and learns what a judge misses in them."""

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from segkd.foundation.rng import seed_for
from segkd.machine.passes import Passes
from segkd.players.player import Player
from segkd.synthesis import pictures
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


def reference(weights, pictures, low, span):
    """The same by plain functions; BatchNorm with the statistics of the batch."""

    def block(name, x, stride=1):
        x = F.conv2d(x, weights[f"{name}.0.weight"], stride=stride, padding=1)
        x = F.batch_norm(x, None, None, weights[f"{name}.1.weight"], weights[f"{name}.1.bias"], training=True)
        return torch.where(x > 0, x, 0.2 * x)

    def doubled(x, like):
        return x.repeat_interleave(2, 2).repeat_interleave(2, 3)[..., : like.shape[2], : like.shape[3]]

    unit = ((pictures - low) / span).clamp(0.01, 0.99)
    x = (unit / (1 - unit)).log()
    full = block("at_full", x)
    half = block("at_half", full, 2)
    half = half + block("to_half", doubled(block("at_quarter.1", block("at_quarter.0", half, 2)), half))
    full = full + block("to_full", doubled(half, full))
    change = F.conv2d(full, weights["last.weight"], weights["last.bias"], padding=1)
    colours = torch.einsum("ij,njhw->nihw", weights["colours.weight"][..., 0, 0], x) + weights["colours.bias"].view(
        1, -1, 1, 1
    )
    return span / (1 + (-colours - change).exp()) + low


def test_it_computes_what_it_says():
    torch.manual_seed(0)
    network, low, span = Unet(4, LOW, HIGH), LOW.view(1, 3, 1, 1), (HIGH - LOW).view(1, 3, 1, 1)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, 0, 0.3)
    pictures = torch.rand(2, 3, 16, 24) * span + low
    weights = network.state_dict()
    torch.testing.assert_close(network(pictures), reference(weights, pictures, low, span), rtol=1e-4, atol=1e-4)
    shapes = {name: value.shape[:2] for name, value in weights.items() if value.dim() == 4}
    assert shapes == {
        "at_full.0.weight": (4, 3), "at_half.0.weight": (8, 4), "at_quarter.0.0.weight": (16, 8), "to_half.0.weight": (8, 16),
        "at_quarter.1.0.weight": (16, 16), "to_full.0.weight": (4, 8), "last.weight": (3, 4), "colours.weight": (3, 3),
    }  # fmt: skip
    assert {"low", "span", "at_full.0.bias"}.isdisjoint(weights)


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

    move, batch, refused = Move(5, 3, 1, 0.5), None, torch.tensor(False)

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
    player = Player("source", network, partial(torch.optim.Adam, lr=3e-2, fused=True))
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


class Rough(nn.Module):
    """Hides half of the pixels, and tells in which precision it multiplies."""

    def __init__(self):
        super().__init__()
        self.mix = nn.Conv2d(3, 3, 1)

    def forward(self, pictures):
        self.seen = self.mix(pictures).dtype
        return F.dropout(pictures, 0.5, self.training)


@pytest.mark.parametrize("bf16", [False, True])
def test_it_draws_in_training_mode_by_the_moves_own_numbers_and_in_the_runs_precision(bf16):
    network, pictures, move = Rough().eval(), Pictures(("rooms",), LOW, HIGH), Move(5, 3, 1)
    made = Translator(network, pictures, passes=Passes(bf16)).draw(2, (8, 8), move).images
    given = pictures.draw(2, (8, 8), move).images
    torch.manual_seed(seed_for(5, 3, 1, "synthesis"))
    assert torch.equal(made, F.dropout(given, 0.5)) and network.seen == (torch.bfloat16 if bf16 else torch.float32)


class Preferring:
    """Judges images by how red they are; black ones cannot be judged."""

    def __init__(self):
        self.seen, self.batch, self.index = [], None, 0

    @property
    def move(self):
        return Move(5, 3, self.index, 0.5)

    def __call__(self, batch):
        self.batch = batch
        self.seen.append(round(float(batch.images[:, 0].mean()), 3))
        return batch.images[:, 0].mean() if self.seen[-1] > 0 else batch.images.mean() * float("nan")

    def update(self, player, loss):
        self.refused = ~loss().isfinite()
        self.index += 1


@pytest.fixture
def kinds(monkeypatch):
    """Flat pictures, which the network leaves as they are."""
    flat = {name: lambda seed, size, red=red: np.full((*size, 3), (red, 9, 9), np.uint8)
            for name, red in (("black", 0), ("dull", 51), ("red", 204))}  # fmt: skip
    monkeypatch.setattr(pictures, "KINDS", flat)
    network = Rough()
    network.forward = lambda x: x
    return lambda *names: Translator(network, Pictures(names, torch.zeros(3), torch.ones(3)))


def test_kinds_take_turns_and_the_student_is_shown_what_the_judge_likes(kinds):
    source, judge = kinds("red", "dull"), Preferring()
    torch.testing.assert_close(source.shares, torch.tensor([0.5, 0.5]))
    for _ in range(5):
        assert source.improve(4, (4, 6), judge) is judge.batch
    assert judge.seen == [0.8, 0.2, 0.8, 0.2, 0.8] and source.judged.tolist() == [3, 2]
    torch.testing.assert_close(source.losses, torch.tensor([0.8, 0.2]))
    torch.testing.assert_close(source.shares, (-torch.tensor([0.8, 0.2]) / 0.05).softmax(0))
    assert source.draw(32, (4, 6), Move(0, 0, 0)).images[:, 0, 0, 0].tolist() == pytest.approx([0.2] * 32)


def test_a_loss_follows_and_what_is_refused_changes_none(kinds):
    source, judge = kinds("red"), Preferring()
    source.improve(4, (4, 6), judge)
    source.losses[0] = 0.3
    source.improve(4, (4, 6), judge)
    assert float(source.losses[0]) == pytest.approx(0.3 + 0.2 * 0.5)
    source = kinds("black", "dull")
    for _ in range(3):
        source.improve(4, (4, 6), judge)
    assert source.losses.tolist() == [0.0, 0.0] and source.judged.tolist() == [0, 0]


def test_what_it_knows_of_kinds_goes_on_with_a_run(kinds):
    source, again, judge = kinds("red", "dull"), kinds("red", "dull"), Preferring()
    for _ in range(3):
        source.improve(4, (4, 6), judge)
    again.restore(source.state())
    assert torch.equal(again.shares, source.shares) and torch.equal(again.judged, source.judged)
