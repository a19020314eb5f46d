"""What all sources share: batches, the place of a move and its random numbers, and what of a source goes on with a run."""

import copy
from dataclasses import FrozenInstanceError, replace
from functools import partial

import pytest
import torch
from torch import nn

from segkd.foundation.rng import seed_for
from segkd.machine import ranks
from segkd.players.player import Player
from segkd.synthesis.augment import Augment
from segkd.synthesis.generator import Generator
from segkd.synthesis.source import Batch, Move, Sampling, Source


def test_a_batch_names_what_there_is_of_it():
    x, labels, z = (torch.full((1,), number) for number in range(3))
    assert Batch(x).named() == {"x": x}
    assert Batch(x, labels).named() == {"x": x, "labels": labels}
    assert Batch(x, latents=z).named() == {"x": x, "z": z}


@pytest.mark.parametrize(
    ("value", "field"),
    [(Batch(torch.ones(1)), "images"), (Sampling(2, ((1, 1),), 0), "batch"), (Move(0, 0, 0), "step")],
)
def test_they_stay_as_they_were_made(value, field):
    with pytest.raises(FrozenInstanceError):
        setattr(value, field, 1)


def test_sizes_come_in_turn():
    sizes = ((8, 16), (4, 8), (2, 4))
    assert [Sampling(2, sizes, 0).size(step) for step in range(5)] == [*sizes, *sizes[:2]]


def numbers(move, stream="x"):
    move.begin(stream)
    return torch.initial_seed()


def test_the_random_numbers_of_a_move_are_those_of_its_place():
    move = Move(5, 3, 2, 0.5)
    assert numbers(move) == seed_for(5, 3, 2, "x") == numbers(replace(move, progress=None))
    assert numbers(move.next()) == seed_for(5, 3, 2, "x.1") and numbers(move.next().next()) == seed_for(5, 3, 2, "x.2")
    assert numbers(move.of("noise")) == seed_for(5, 3, 2, "x@noise")
    assert numbers(move.of("noise").next()) == seed_for(5, 3, 2, "x.1@noise")
    assert move.next() == Move(5, 3, 2, 0.5, part=1) and move.of("noise") == Move(5, 3, 2, 0.5, source="noise")


def test_latents_are_this_process_s_share_of_those_of_the_batch(monkeypatch):
    monkeypatch.setattr(ranks, "size", lambda: 2)
    monkeypatch.setattr(ranks, "rank", lambda: 1)
    torch.manual_seed(seed_for(0, 1, 2, "latent"))
    whole = torch.randn(4, 3)
    assert torch.equal(Move(0, 1, 2, 0.0).latents(4, 3), whole[2:]) and Move(0, 1, 2, 0.0).share(4) == 2
    assert torch.equal(Move(0, 1, 2).latents(4, 3), whole) and Move(0, 1, 2).share(4) == 4


class Own(Source):
    """A buffer and a parameter that no player moves, and one that is not to be kept."""

    def __init__(self, player=None):
        super().__init__()
        self.register_buffer("held", torch.zeros(2))
        self.register_buffer("constant", torch.zeros(2), persistent=False)
        self.free = nn.Parameter(torch.zeros(2))
        if player is not None:
            self.moved, self.player = player.network, player


def learner():
    return Player("source", nn.BatchNorm1d(2), partial(torch.optim.Adam, lr=0.1, fused=True))


def test_a_source_that_is_nothing_special():
    bare = Source()
    assert (bare.real, bare.updates, bare.learns, bare.player, bare.state()) == (0, 1, False, None, {})
    for ask in (lambda: bare.draw(1, (1, 1), Move(0, 0, 0)), lambda: bare.improve(1, (1, 1), None)):
        with pytest.raises(NotImplementedError):
            ask()
    bare.restore({})
    assert Own(learner()).learns


def test_images_are_changed_for_moves_alone_and_lie_channels_last():
    black, images = torch.zeros(3), torch.rand(2, 3, 8, 8)
    plain, changing = Source(), Source(Augment(("noise",), black, black + 1))
    for done, changes in ((None, False), (0.5, True)):
        found = changing.augmented(images, Move(0, 0, 0, done))
        assert torch.equal(found, images) != changes and torch.equal(
            plain.augmented(images, Move(0, 0, 0, done)), images
        )
        assert found.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("learns", [False, True])
def test_what_goes_on_with_a_run(learns):
    source, other = (Own(learner() if learns else None) for _ in range(2))
    for value in (source.held, source.free, *(source.moved.parameters() if learns else ())):
        value.data += 3
    state = copy.deepcopy(source.state())
    assert set(state) == {"own", *(("network", "optimizer", "average") if learns else ())}
    assert set(state["own"]) == {"held", "free"} and all(
        torch.equal(v, torch.full((2,), 3.0)) for v in state["own"].values()
    )
    other.restore(state)
    assert all(
        torch.equal(a, b) for a, b in zip(source.state_dict().values(), other.state_dict().values(), strict=True)
    )
    assert other.free.requires_grad and isinstance(other.free, nn.Parameter)


def test_nothing_is_left_for_a_source_whose_player_moves_it_all():
    player = learner()
    assert set(Generator(player.network, 2, player).state()) == {"network", "optimizer", "average"}
