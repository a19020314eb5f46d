"""The sums of methods whose generator is the recipe's, against the losses that they are made of."""

import math

import pytest
import torch

from segkd.foundation.errors import UsageError
from segkd.losses.discrepancy import kl
from segkd.losses.features import sameness
from segkd.losses.priors import balance, one_hot
from segkd.losses.statistics import batchnorm_distance
from segkd.methods.base import Rules, View
from segkd.methods.dafl import DAFL
from segkd.methods.dfq import DFQ
from segkd.methods.rdskd import RDSKD
from segkd.methods.zskt import ZSKT
from segkd.runs import Options, costs
from segkd.runs.distill import planned
from tests.losses.test_statistics import Layer

S, T, MAPS = (torch.randn(shape, generator=torch.Generator().manual_seed(9)) for shape in [(4, 5, 6, 7)] * 2 + [(4, 3, 6, 7)])  # fmt: skip
T = T.flip(0)
LAYERS = [Layer(*torch.rand(4, 6, generator=torch.Generator().manual_seed(i))) for i in range(3)]
VIEW = View({"s": S, "t": T, "t_features": [S, MAPS], "statistics": LAYERS}, None, None)
SUMS = {
    DAFL: {
        "student": kl(S, T),
        "source": 0.05 * one_hot(T) + 5 / math.log(10) * balance(T) - 0.01 * MAPS.abs().mean(),
    },
    DFQ: {
        "student": kl(S, T, 20),
        "source": -kl(S, T, 20) + batchnorm_distance(LAYERS, "sum") + one_hot(T) + 20 * balance(T),
    },
    ZSKT: {"student": kl(S, T), "source": -kl(S, T)},
    RDSKD: {"student": kl(S, T, 10), "source": 1 + 1 + sameness(MAPS, T)},
}


@pytest.mark.parametrize(
    ("method", "player"), [(method, player) for method in SUMS for player in ("student", "source")]
)
def test_what_is_minimised(method, player):
    assert method(Rules(9)).loss(player, VIEW, 0)[0].item() == pytest.approx(SUMS[method][player].item(), rel=2e-3)


def test_rises_are_punished_and_references_taken_anew():
    method = RDSKD(Rules(99), {"diversity": 0.0}, {"every": 2})

    def look(logits, step):
        return {
            name: value.item()
            for name, value in method.loss("source", View({"t": logits}, None, None), step)[1].items()
        }

    def rise(logits, before, loss):
        return pytest.approx(math.exp(loss(logits) - loss(before)), rel=1e-5)

    assert look(T, 0) == {"one_hot": 1, "balance": 1}
    assert look(2 * S, 1) == {"one_hot": rise(2 * S, T, one_hot), "balance": rise(2 * S, T, balance)}
    assert method.loss("student", View({"s": S, "t": S}, None, None), 2)[0] == pytest.approx(0, abs=1e-5)
    assert look(T, 1) == {"one_hot": 1, "balance": 1}, "the student's moves take none"
    look(2 * S, 2)
    assert look(2 * S, 3) == pytest.approx({"one_hot": 1, "balance": 1})
    sure = torch.nn.functional.one_hot(torch.zeros(4, 1, 1, dtype=torch.int64), 1000).movedim(3, 1) * 99.0
    look(sure, 4)
    worst = (torch.randn(4, 1000, 1, 1) * 1e-6).requires_grad_()
    value = method.loss("source", View({"t": worst}, None, None), 5)[1]["one_hot"]
    assert value.item() == pytest.approx(1000, rel=1e-3), "the largest rise there is, of log C"
    assert torch.autograd.grad(value, worst)[0].abs().sum() > 0, "and the worst batch is still pulled back"


def test_the_student_learns_on_a_generator_that_stands_still(tiny):
    game = tiny.game("rdskd", "options.ahead=0.5", "synth.replay=2", "game.keep_moves=1")
    assert [game.method.moves(step) for step in range(4)] == [["source"]] * 2 + [["keep", "student", "student"]] * 2
    game.play(0), game.play(1)
    before = tiny.hash(game.source.player.network)
    assert set(game.play(2)) == {"kd", "lr"} and tiny.hash(game.source.player.network) == before
    alone = tiny.game("rdskd", "options.ahead=0.5", *(f"weights.{name}=0" for name in RDSKD.source))
    assert alone.method.moves(0) == ["keep", "student", "student"], "where nothing learns to make images, nobody waits"


def test_a_budget_and_its_forecast_know_of_two_stages(tiny):
    game, seen = tiny.game("rdskd", "options.ahead=0.5", f"run.steps={costs.TRIALS + 1}"), []
    costs.steps_for(1.0, lambda step: seen.append(game.method.moves(step)))
    assert seen == [["source"]] * 2 + [["keep", "student", "student"]] * 2
    plan = planned(tiny.recipe("rdskd", "options.ahead=0.5"), Options(quiet=True))
    assert any(
        line.endswith("not counted; nor is a later stage, of each batch for the image bank and student update")
        for line in plan
    )
    assert not any("stage" in line for line in planned(tiny.recipe("rdskd"), Options(quiet=True)))


def test_a_step_is_of_one_batch_of_latents(tiny):
    game = tiny.game("zskt", "synth.optimizer.lr=0.01")

    def drawn(step, index):
        return game.source.draw(2, (32, 64), game.move(step, index))

    first, images = drawn(0, 0), []
    game.networks.student_outputs = lambda x, *given, f=game.networks.student_outputs, **named: (
        images.append(x.detach()) or f(x, *given, **named)
    )
    game.play(0)
    assert len(images) == 3 and torch.equal(images[1], images[2]) and torch.equal(images[0], first.images)
    assert 0 < (images[1] - images[0]).abs().max() and torch.equal(drawn(0, 4).latents, first.latents)
    assert not torch.equal(drawn(1, 0).latents, first.latents)
    assert not torch.equal(*game.monitor.held_out(2))


def test_half_of_a_batch_is_by_the_average(tiny):
    game = tiny.game(
        "mad", "run.batch=4", "synth.optimizer.lr=0.1", "synth.replay=0", "game.keep_moves=0", "synth.augment=[]"
    )
    for step in range(2):
        game.play(step)
    live, average = (network.train() for network in (game.source.player.network, game.source.player.ema_or_live))
    lesson = game.student_batch(2, 1)["x"]
    move = game.move(2, 1)
    for images, network, place in ((lesson[:2], average, move), (lesson[2:], live, move.of("live"))):
        with torch.no_grad():
            z = place.latents(2, game.source.main.latent)
            assert torch.allclose(images, network(z, (32, 64)), atol=1e-5)
    assert tiny.game("mad", "weights.adv=0", "synth.ema=0").source.player is None
    with pytest.raises(UsageError, match=r"there is none; set synth\.ema=0\.95"):
        tiny.game("mad", "synth.ema=0")
