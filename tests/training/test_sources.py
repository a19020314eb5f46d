"""Kinds of sources that no shipped method has yet fit: each is played, refused, stopped within a move, and resumed."""

import copy
import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import nn

from segkd.foundation.errors import NumbersError
from segkd.players.player import Player
from segkd.synthesis.architectures import dcgan
from segkd.synthesis.generator import Generator
from segkd.synthesis.pixels import Descent, Pixels
from segkd.synthesis.source import Batch, Source
from segkd.training.distiller import Distiller
from segkd.training.signals import Interrupted

STILL = "student.options.decoder_aspp_dropout=0"

ADAM = partial(torch.optim.Adam, lr=0.01, fused=True)


class Restarts(Source):
    """A generator that begins anew in each move, and latents that learn with it (as arXiv:2105.08584 does)."""

    updates = 4
    learns = True

    def __init__(self, start: Generator):
        super().__init__()
        self.start = start
        self.register_buffer("made", torch.zeros(()))

    def draw(self, batch, size, move, judge=None):
        return self.start.draw(batch, size, move)

    def improve(self, batch, size, judge):
        network = copy.deepcopy(self.start.network).train()
        network.z = nn.Parameter(judge.move.latents(batch, self.start.latent))
        player = Player("source", network, ADAM)
        for _ in range(self.updates):
            judge.update(player, lambda: judge(Batch(network(network.z, size), latents=network.z)))
            self.made += 1
        return Batch(network(network.z, size).detach())


class Meta(Source):
    """A generator whose weights step towards where a few updates of a copy lead (Reptile, arXiv:1803.02999)."""

    updates = 4

    def __init__(self, start: Generator, learning: Callable[..., torch.optim.Optimizer]):
        super().__init__()
        self.start, self.learning = start, learning

    @property
    def player(self):
        return self.start.player

    def draw(self, batch, size, move, judge=None):
        return self.start.draw(batch, size, move)

    def improve(self, batch, size, judge):
        inner = copy.deepcopy(self.start.network)
        player = Player("source", inner, self.learning)
        made = []
        for _ in range(3):
            judge.update(
                player, lambda: judge(made.append(self.start.generate(inner, batch, size, judge.move)) or made[-1])
            )
        pairs = list(zip(self.start.network.parameters(), inner.parameters(), strict=True))
        judge.update(self.player, lambda: sum((a - b.detach()).square().sum() for a, b in pairs) / 2)
        return made[-1]


BUILT = {
    "unet": ("synth.kind=unet", "synth.pictures=[leaves, streets, rooms]"),
    "conditional": ("synth.kind=conditional", "synth.labels=[noise, teacher, scenes]"),
}


def kinds(game):
    """A source of each further kind, around the generator of `game`."""
    start = game.source
    low, high = start.network.range(torch.tensor([-1.0, 1.0]).view(1, 1, 1, 2).expand(1, 3, 1, 2)).view(3, 2).unbind(1)
    return {
        "pixels": lambda: Pixels(start, Descent(3), low, high),
        "restarts": lambda: Restarts(start),
        "meta": lambda: Meta(start, ADAM),
    }


def played(tiny, kind, *overrides) -> Distiller:
    overrides = (*BUILT.get(kind, ()), *overrides)
    game = tiny.game("ddad.segkd", "synth.replay=6", "run.batch=4", "game.keep_moves=1", *overrides)
    if kind in BUILT:
        return game
    if kind == "pixels":
        game.method.pixels = ("bn", "adv")  # adversarial, as adaptive DeepInversion is (arXiv:1912.08795)
    source = kinds(game)[kind]()
    return Distiller(
        game.method, game.networks, game.student, source, bank=game.bank, sampling=game.sampling, refusals=game.refusals
    )


KINDS = ("pixels", "restarts", "meta", *BUILT)


@pytest.mark.parametrize("kind", KINDS)
def test_it_plays_and_resumes_to_the_same_bytes(tiny, kind):
    whole, first, again = (played(tiny, kind) for _ in range(3))
    before = tiny.hash(first.source.state())
    for step in range(4):
        values = whole.play(step)
    assert all(math.isfinite(value) for value in values.values()) and not whole.notes and len(whole.bank)
    for step in range(2):
        first.play(step)
    assert tiny.hash(first.source.state()) != before
    again.restore(copy.deepcopy(first.state()))
    for step in range(2, 4):
        again.play(step)
    assert tiny.hash(again.state()) == tiny.hash(whole.state())


def remembering(game):
    """Terms that count in a buffer of the method's how often they were asked."""
    game.method.register_buffer("memory", torch.zeros(()))
    bn = game.method.bn

    def counted(view):
        game.method.memory += 1
        return bn(view)

    game.method.bn = counted
    return game


@pytest.mark.parametrize("after", [0, 1, 2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_a_signal_between_two_updates_undoes_the_move_and_it_is_played_again(tiny, kind, after):
    whole, stopped, again = (remembering(played(tiny, kind, "game.synth_moves=2")) for _ in range(3))
    for game in (whole, stopped):
        game.play(0)
    told = whole.play(1)
    asked = iter([False] * after + [True])
    stopped.stopping = lambda: next(asked)
    with pytest.raises(Interrupted):
        stopped.play(1)
    state = copy.deepcopy(stopped.state())
    assert "begun" in state
    again.restore(state)
    values = again.play(1)
    assert {name: float(value) for name, value in values.items()} == pytest.approx(
        {name: float(value) for name, value in told.items()}
    )
    assert tiny.hash(again.state()) == tiny.hash(whole.state())


def test_each_call_plays_a_move_at_least(tiny):
    """A signal that came before it is the loop's affair."""
    game, moves = played(tiny, "conditional", "game.synth_moves=2"), []
    true = dict(game.moves)
    game.moves = {name: lambda *at, name=name: moves.append(name) or true[name](*at) for name in true}
    game.stopping = lambda: True
    for done in range(1, 6):
        if done < 5:
            with pytest.raises(Interrupted):
                game.play(0)
        else:
            game.play(0)
        assert len(moves) == done
    assert moves == game.method.moves(0)


def test_after_an_error_within_a_step_it_is_played_as_a_whole(tiny):
    game, moves = played(tiny, "conditional"), []
    true = dict(game.moves)

    def broken(*at):
        raise NumbersError("on purpose")

    game.moves["student"] = broken
    with pytest.raises(NumbersError):
        game.play(0)
    game.moves = {name: lambda *at, name=name: moves.append(name) or true[name](*at) for name in true}
    game.play(0)
    assert moves == game.method.moves(0)


def test_a_step_that_was_begun_one_by_one_goes_on_so(tiny):
    """Also where moves overlap once the bank holds something, and the one that is done told nothing."""
    overrides = ("synth.replay=4", "game.keep_moves=2", "game.overlap=true", "run.batch=4", STILL)
    whole, stopped = (tiny.game("noise", *overrides) for _ in range(2))
    whole.play(0)
    asked = iter([False, True, *[False] * 9])
    stopped.stopping = lambda: next(asked)
    with pytest.raises(Interrupted):
        stopped.play(0)
    stopped.play(0)
    assert tiny.hash(stopped.state()) == tiny.hash(whole.state())


@pytest.mark.parametrize("kind", ["restarts", "meta"])
def test_an_update_that_is_refused_within_a_move_is_one_and_keeps_its_images_out_of_the_bank(tiny, kind):
    game = played(tiny, kind, "run.max_bad=9")
    game.play(0)
    held, true, seen = len(game.bank), game.method.bn, []

    def second_is_none(view):
        seen.append(view)
        return true(view) * (math.nan if len(seen) == 2 else 1)

    game.method.bn = second_is_none
    game.moves["source"](1, 0)
    assert len(seen) >= 3 and len(game.bank) == held and game.refusals.total == 1
    assert [note.partition(" (")[0] for note in game.notes] == ["step 1: source loss is nan"]


def test_labels_reach_the_terms_and_the_bank(tiny):
    game, seen = played(tiny, "conditional"), []
    kd = game.method.kd
    game.method.kd = lambda view: seen.append(view.labels) or kd(view)
    game.play(0)
    labels = torch.cat(game.bank.labels)
    assert labels.shape == (8, 32, 64) and all(map(lambda one: one.shape == (4, 32, 64), seen)) and seen
    rows = {tiny.hash(one) for one in (*labels, *labels.flip(-1))}
    assert all(tiny.hash(one) in rows for one in torch.cat(seen))


def test_a_meta_step_goes_towards_where_the_copy_went(tiny):
    game = played(tiny, "meta", "synth.optimizer={name: sgd, lr: 1.0, momentum: 0.0}", "synth.schedule.name=constant")
    before = [p.detach().clone() for p in game.source.player.network.parameters()]
    inner, build = [], Player.__post_init__

    def watched(player):
        inner.append(player.network)
        build(player)

    Player.__post_init__ = watched
    try:
        game.moves["source"](0, 0)
    finally:
        Player.__post_init__ = build
    after = list(game.source.player.network.parameters())
    for b, c in zip(after, inner[0].parameters(), strict=True):
        torch.testing.assert_close(b, c, rtol=1e-4, atol=1e-5)
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_inner_updates_have_latents_of_their_own(tiny):
    game = played(tiny, "meta")
    with tiny.calls(game.teacher) as taught:
        game.moves["source"](0, 0)
    assert len({tiny.hash(images) for images in taught}) == 3


def test_a_source_without_a_player_of_its_own_needs_none(tiny):
    game = tiny.game("ddad.segkd")
    network = dcgan(8, (32, 64), 4, -torch.ones(3), torch.ones(3))
    fixed = Generator(network, 8)
    assert fixed.player is None and set(fixed.state()) == {"own"}
    other = Generator(copy.deepcopy(network), 8)
    for parameter in other.network.parameters():
        parameter.data.zero_()
    other.restore(fixed.state())
    assert tiny.hash(other.state()) == tiny.hash(fixed.state()) and game.source.player is not None
