"""Row T1-3: whatever is played, the teacher stays as it is, each term reaches its own player, and no hook is left."""

from __future__ import annotations

import pytest
import torch

from segkd.foundation.files import sha256
from segkd.players.player import Player
from segkd.players.refusals import Verdict
from segkd.recipe import further_terms, method_terms
from segkd.synthesis.mixed import Mixed
from segkd.synthesis.pixels import Pixels
from tests.methods.conftest import inverts, tiers
from tests.methods.test_common import modules, only, players

KEEPING = ("synth.replay=2", "game.keep_moves=1")


def refines(case):
    return ("synth.refine=1",) if method_terms()[case.partition(".")[0]].pixels and not inverts(case) else ()


def spoil(game):
    """Every move is refused: its first term is NaN."""
    for player in (*players(game), *(["pixels"] if isinstance(game.source, Pixels) else [])):
        name = game.method.terms(player)[0]
        true = getattr(game.method, name)
        setattr(game.method, name, lambda view, f=true: f(view) * float("nan"))


def break_down(game, step):
    """The first term of every player raises in its move."""

    def broken(view):
        raise ArithmeticError("on purpose")

    for player in players(game):
        setattr(game.method, game.method.terms(player)[0], broken)
    for player in players(game):
        with pytest.raises(ArithmeticError, match="on purpose"):
            game.moves[player](step, 0)


@pytest.mark.parametrize("case", tiers())
@pytest.mark.row("T1-3", 4)
def test_the_teacher_is_not_touched(row, tiny, case):
    file = tiny.folder / "teacher.safetensors"
    game = tiny.game(case, "run.max_bad=99", *KEEPING, *refines(case))
    before, bytes_before = tiny.hash(game.teacher), sha256(file)

    def untouched():
        assert tiny.hash(game.teacher) == before and sha256(file) == bytes_before
        assert not any(module.training for module in game.teacher.modules())
        assert all(p.grad is None and not p.requires_grad for p in game.teacher.parameters())
        row.count()

    for step in range(2):
        game.play(step)
    untouched()
    for headline in ("ema", "last"):
        game.monitor.agreement(game.monitor.measured(headline), 1)
        game.monitor.masks(next(game.monitor.held_out(1)), game.monitor.measured(headline))
    game.teacher.train()
    untouched()
    spoil(game)
    game.play(2)
    assert game.refusals.total
    untouched()
    break_down(game, 3)
    untouched()


@pytest.mark.parametrize("case", tiers())
@pytest.mark.row("T1-3")
def test_each_term_reaches_only_its_own_player(row, tiny, case, monkeypatch):
    moved = []

    def backward(player, loss, *_):
        moved.append(player.network)  # of a source maybe a copy of its generator
        loss.backward()
        return Verdict(torch.tensor(False), str)

    monkeypatch.setattr(Player, "update", backward)
    terms = method_terms()[case.partition(".")[0]]
    images = [f"weights.{terms.pixels[0]}=1.0"] if inverts(case) else []  # no such method plays without a term for them
    for owner, names in (("student", (*terms.student, *further_terms())), ("source", terms.source)):
        for name in names:
            game = tiny.game(case, *only(case, name), *images)
            sides = {"teacher": game.teacher, "student": game.student.network, "source": game.source}
            moved.clear()
            for step in (2, 3):  # some terms wait, or need images that were made before
                game.moves[owner](step, 0)
            sides[owner] = torch.nn.ModuleList(moved)
            reached = {side: [p for p in net.parameters() if p.grad is not None] for side, net in sides.items()}
            assert any(p.grad.abs().max() > 0 for p in reached.pop(owner)), name
            assert not any(reached.values()), name
            row.count()


@pytest.mark.parametrize("case", [case for case in tiers(variants=True) if refines(case.values[0])])
@pytest.mark.row("T1-3", 1)
def test_terms_of_refining_reach_the_images_alone(row, tiny, case):
    names = method_terms()[case.partition(".")[0]].pixels
    game = tiny.game(case, *(f"weights.{name}=1.0" for name in names), *KEEPING, "synth.refine=1")
    pixels = game.source.main if isinstance(game.source, Mixed) else game.source
    refined, seen = pixels.refined, []

    def watched(drawn, judge):
        look = judge.networks.teacher_outputs
        judge.networks.teacher_outputs = lambda images, *given: seen.append(images) or look(images, *given)
        try:
            return refined(drawn, judge)
        finally:
            judge.networks.teacher_outputs = look

    pixels.refined = watched
    game.moves["keep"](0, 0)
    assert len(seen) == 1 and seen[0].requires_grad
    assert all(p.grad is None for network in modules(game) for p in network.parameters())
    row.count()


@pytest.mark.parametrize("case", tiers())
@pytest.mark.row("T1-3", 4)
def test_no_hook_is_left_behind(row, tiny, case):
    game = tiny.game(case, "run.max_bad=99", *KEEPING, *refines(case))

    def clean():
        assert tiny.hooks(*modules(game)) == 0
        assert all(p.requires_grad for p in game.student.network.parameters())
        assert all(m.track_running_stats for m in game.student.network.modules() if hasattr(m, "track_running_stats"))
        row.count()

    clean()
    game.play(0)
    game.monitor.agreement(game.monitor.measured("ema"), 1)
    clean()
    spoil(game)
    game.play(1)
    clean()
    break_down(game, 0)
    clean()
    assert not torch.is_inference_mode_enabled() and torch.is_grad_enabled()
