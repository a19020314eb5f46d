"""What a run will take: steps for a budget, costs of moves, and the batch that fits."""

import pytest
import torch

from segkd.runs import costs


@pytest.fixture
def clocked(monkeypatch):
    """steps_for with steps that take as long as they are told to."""

    def run(budget, seconds, **options):
        now, played = [0.0], []
        monkeypatch.setattr(costs.time, "perf_counter", lambda: now[0])

        def play(step):
            played.append(step)
            now[0] += seconds[step]

        return costs.steps_for(budget, play, **options), played

    return run


@pytest.mark.parametrize(
    ("budget", "seconds", "steps"),
    [
        (10, [0.5, 0.5, 0.5, 0.5], 20),
        (10, [100, 0.5, 0.5, 0.5], 20),  # the first step warms up
        (10, [1, 0.5, 7, 0.25], 20),  # one hiccup does not halve the run
        (10, [1, 3, 3, 3], 3),  # whole steps, never over the budget
        (1, [9, 9, 9, 9], 1),  # at least one
    ],
)
def test_steps_that_fit(clocked, budget, seconds, steps):
    assert clocked(budget, seconds) == (steps, [0, 1, 2, 3])


def test_more_trials(clocked):
    assert clocked(6, [1, 1, 2, 2, 3, 3], trials=5) == (3, [0, 1, 2, 3, 4, 5])


def test_every_move_has_its_cost(tiny):
    game = tiny.game("ddad.segkd", "game.keep_moves=1")
    found = costs.costs_of(game)
    moves = game.method.moves(1)
    assert {name: cost.times for name, cost in found.items()} == {name: moves.count(name) for name in moves}
    assert all(cost.seconds > 0 and cost.mb > 0.1 for cost in found.values())


@pytest.mark.parametrize(("uint8", "pixel", "logit", "more"), [("false", 4, 4, 0), ("true", 1, 1, 2 * 2 * 14 * 4)])
def test_the_bank_once_it_is_full(tiny, uint8, pixel, logit, more):
    game = tiny.game("ddad.segkd", "synth.replay=7", f"synth.replay_uint8={uint8}")
    assert costs.bank_mb(game) == 0
    game.play(0)
    images = 2 * 3 * 32 * 64 * pixel
    logits = game.bank.logits[0].numel() * logit
    assert costs.bank_mb(game) == pytest.approx((images + logits + more) * 7 / 2**20)


@pytest.mark.parametrize(
    ("mb", "bank", "batch", "most", "found"),
    [(100, 0, 2, 1000, 20), (100, 60, 2, 1000, 12), (100, 0, 8, 98_765, 7900), (100, 0, 2, 30, 0), (1, 0, 2, -5, 0)],
)
def test_the_largest_batch(mb, bank, batch, most, found):
    each = [costs.Cost(9, 1.0, mb / 3), costs.Cost(1, 1.0, mb)]
    assert costs.largest_batch(each, bank, batch, most) == found


def seen(game):
    """MB of the moves and between them, and of the bank."""
    first = costs.FirstSteps(game)
    for step in range(2):
        game.play(step)
    return {name: cost.mb for name, cost in first.costs(2).items()}, costs.held_mb(game), costs.bank_mb(game)


def test_memory_does_not_depend_on_what_the_process_did_before(tiny):
    here = seen(tiny.game("ddad.segkd", "game.keep_moves=1"))
    used = [torch.ones(2**22) for _ in range(16)]
    del used
    freed = seen(tiny.game("ddad.segkd", "game.keep_moves=1"))
    kept = torch.ones(2**26)
    assert seen(tiny.game("ddad.segkd", "game.keep_moves=1")) == freed == here
    assert len(kept) and all(value > 0 for value in (*here[0].values(), *here[1:]))


def test_moves_take_as_much_more_as_the_batch_is_larger(tiny):
    (small, held, bank), (large, held_too, larger_bank) = (
        seen(tiny.game("ddad.segkd", "game.keep_moves=1", f"run.batch={batch}")) for batch in (4, 16)
    )
    assert held == held_too and larger_bank == pytest.approx(4 * bank)
    assert all(3 < large[name] / small[name] <= 4.01 for name in small), (small, large)


def test_a_runs_own_first_steps_tell_its_costs_and_play_as_they_would(tiny):
    game, plain = tiny.game("ddad.segkd", "game.keep_moves=1"), tiny.game("ddad.segkd", "game.keep_moves=1")
    first = costs.FirstSteps(game)
    for step in range(2):
        assert game.play(step) == plain.play(step)
    found = first.costs(2)
    moves = game.method.moves(1)
    assert {name: cost.times for name, cost in found.items()} == {name: moves.count(name) for name in moves}
    assert all(cost.seconds > 0 and cost.mb > 0.1 for cost in found.values())
    assert game.moves.keys() == plain.moves.keys() and not any(hasattr(m, "func") for m in game.moves.values())
    assert game.play(2) == plain.play(2)
