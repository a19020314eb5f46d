"""A generator that begins anew for each batch, or at a learnt beginning: what its moves do, to the number."""

import copy
import math

import pytest
import torch

from segkd.foundation.errors import UsageError
from segkd.players.player import Player
from segkd.synthesis.restarts import Restarts, _WithLatents
from segkd.synthesis.source import Move
from segkd.training.signals import Interrupted

PLAIN = ("synth.optimizer={name: sgd, lr: 1.0, momentum: 0.0}", "synth.schedule.name=constant")
CASES = {"cmi": (), "fomaml": ("options.meta=fomaml",), "reptile": ("options.meta=reptile",)}


def played(tiny, case, *overrides):
    return tiny.game("cmi" if case == "cmi" else "fastdfkd", *CASES[case], *overrides)


def copies(move):
    """The copies that the players of a move have moved, as they are after it."""
    found, build = [], Player.__post_init__

    def watched(player):
        found.append(player.network)
        build(player)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Player, "__post_init__", watched)
        move()
    return found


def weights(network):
    return [parameter.detach().clone() for parameter in network.parameters()]


def test_fresh_weights_are_spread_as_the_first_were_and_others_in_each_move(tiny):
    source = tiny.game("cmi").source
    start = source.start
    made = []
    for move in (Move(0, 3, 0, 0.5), Move(0, 3, 0, 0.5), Move(0, 4, 0, 0.5)):
        copied = _WithLatents(start, 2, move, 1.0)
        copied.begin_anew(source.first, move)
        made.append(weights(copied.network))
    assert all(torch.equal(a, b) for a, b in zip(*made[:2], strict=True))
    for first, fresh, other in zip(start.network.parameters(), made[0], made[2], strict=True):
        assert fresh.mean().item() == pytest.approx(
            first.mean().item(), abs=5 * float(first.std()) / math.sqrt(first.numel()) + 1e-6
        )
        if first.std() > 0:
            assert not torch.equal(fresh, first) and not torch.equal(fresh, other)
            assert first.numel() < 99 or 0.8 < float(fresh.std() / first.std()) < 1.25
        else:
            assert torch.equal(fresh, first)  # a BatchNorm's ones and zeros
    assert not torch.equal(start.network.project.weight, made[0][0])


def test_after_a_move_the_generator_is_the_copy_and_its_latents_have_learnt(tiny):
    game = tiny.game("cmi")
    [copied] = copies(lambda: game.moves["source"](0, 0))
    assert all(
        torch.equal(a, b) for a, b in zip(weights(game.source.start.network), weights(copied.network), strict=True)
    )
    move = Move(game.seed, 0, 0)
    assert not torch.equal(copied.latents, move.latents(2, 8)) and copied.latents.shape == (2, 8)
    images = game.bank.images[0]
    with torch.no_grad():
        assert not torch.equal(images, game.source.draw(2, (32, 64), move).images)


@pytest.mark.parametrize("pace", [1.0, 3.0])
def test_latents_move_so_many_times_faster(tiny, pace):
    game = tiny.game("fastdfkd", f"options.pace={pace}", "options.updates=1", "options.learning=0.01")
    [copied] = copies(lambda: game.moves["source"](0, 0))
    moved = copied.latents.detach() * pace - Move(game.seed, 0, 0).latents(2, 8)
    assert float(moved.abs().max()) == pytest.approx(0.01 * pace, rel=1e-3)  # Adam's first step is its learning rate


def test_reptile_goes_to_where_the_copy_went(tiny):
    game = played(tiny, "reptile", *PLAIN, "options.learning=0.01")
    before = weights(game.source.start.network)
    [copied] = copies(lambda: game.moves["source"](0, 0))
    for new, there in zip(weights(game.source.start.network), weights(copied.network), strict=True):
        torch.testing.assert_close(new, there, rtol=1e-4, atol=1e-6)
    assert any(not torch.equal(a, b) for a, b in zip(before, weights(copied.network), strict=True))


def test_fomaml_goes_down_the_gradient_at_the_copy(tiny):
    game = played(tiny, "fomaml", *PLAIN, "options.learning=0.01")
    before = weights(game.source.start.network)
    [copied] = copies(lambda: game.moves["source"](0, 0))
    again = played(tiny, "fomaml", *PLAIN)
    judge = again.judge("source", 0, 0)
    for _ in range(2):
        judge.move = judge.move.next()
    network = copied.network
    with torch.enable_grad():
        loss = judge(copied.generate((32, 64), judge.move))
    slopes = torch.autograd.grad(loss, list(network.parameters()))
    for old, new, slope in zip(before, weights(game.source.start.network), slopes, strict=True):
        torch.testing.assert_close(old - new, slope, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_it_resumes_to_the_same_bytes_also_from_within_a_move(tiny, case):
    whole, stopped, again = (played(tiny, case, "game.synth_moves=2") for _ in range(3))
    for game in (whole, stopped):
        game.play(0)
    whole.play(1)
    asked = iter([False, False, True])  # after the first move, and in the second after its first update
    stopped.stopping = lambda: next(asked)
    with pytest.raises(Interrupted):
        stopped.play(1)
    state = copy.deepcopy(stopped.state())
    assert state["begun"]["moves"] == 1 if "begun" in state else False
    again.restore(state)
    again.play(1)
    for game in (whole, again):
        game.play(2)
    assert tiny.hash(again.state()) == tiny.hash(whole.state())


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("bad", [1, 2])
def test_a_refused_update_leaves_the_beginning_the_memory_and_the_bank_alone(tiny, case, bad):
    game = played(tiny, case, "run.max_bad=9")
    game.play(0)
    before, held, true, seen = tiny.hash(dict(game.method.state_dict())), len(game.bank), game.method.one_hot, []
    network = tiny.hash(game.source.start.network)

    def spoilt(view):
        seen.append(view)
        return true(view) * (math.nan if len(seen) == bad else 1)

    game.method.one_hot = spoilt
    game.moves["source"](1, 0)
    assert game.refusals.total == 1 and len(game.bank) == held and tiny.hash(dict(game.method.state_dict())) == before
    assert (tiny.hash(game.source.start.network) == network) == (case == "cmi")


def test_the_memory_holds_the_images_of_past_moves_the_newest_first(tiny):
    game = tiny.game("cmi")
    assert not game.method.memory.any() and game.method.memory.shape[0] == 5
    rows = []
    for step in range(3):
        game.moves["source"](step, 0)
        rows = [*game.method.seen.flip(0), *rows][:5]
        torch.testing.assert_close(game.method.memory[: len(rows)], torch.stack(rows))
    assert game.method.memory.any(1).all()


def test_the_statistics_that_are_compared_follow_the_batches(tiny):
    game = tiny.game("fastdfkd")
    assert not game.method.past.any()
    kept = []
    for step in range(2):
        game.moves["source"](step, 0)
        kept.append(game.method.past.clone())
    assert int(game.method.batches) == 2 and torch.equal(kept[1], game.method.seen)
    assert 0 < float((kept[1] - kept[0]).norm() / kept[0].norm()) < 0.2  # a tenth of the way to the second batch


def test_the_adversary_of_fastdfkd_waits(tiny):
    method = tiny.game("fastdfkd", "run.steps=10", "options.warmup=0.3").method
    assert [method.weight("adv", step) for step in (0, 2, 3, 9)] == [0, 0, 1.1, 1.1] and method.weight("bn", 0) == 10


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("synth.kind=unet",), "generator is one of latents: set synth.kind=resize or dcgan, synth.refine=0"),
        (("synth.mix={noise: 0.5}",), "set synth.kind=resize or dcgan, synth.refine=0, synth.mix={}"),
        (("synth.ema=0.5",), "synth.ema: a generator that begins anew for each batch has no average; set synth.ema=0"),
    ],
)
def test_sources_that_cannot_begin_anew_are_told(tiny, overrides, words):
    with pytest.raises(UsageError) as caught:
        tiny.game("cmi", *overrides)
    assert words in str(caught.value)


def test_drawing_learns_nothing(tiny):
    source = tiny.game("fastdfkd").source
    before = tiny.hash(source.state())
    source.draw(2, (32, 64), Move(0, 0, 0))
    assert tiny.hash(source.state()) == before and isinstance(source, Restarts) and source.updates == 3
