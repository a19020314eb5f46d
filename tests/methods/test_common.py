"""What every method owes: the suite collects them by file name, so that a new one falls under it by itself."""

import math

import pytest
import torch

from segkd.methods.finding import term_class
from segkd.recipe import further_terms, method_terms
from tests.methods.conftest import tiers


def players(game):
    return {"student": game.student, **({"source": game.source.player} if game.source.player is not None else {})}


def modules(game):
    averages = [p.average for p in players(game).values() if p.average is not None]
    return [game.teacher, game.student.network, game.source, *averages]


def only(case, term):
    """Overrides that leave a synthesiser one term, and the student one: its own, or its first where a judge is asked."""
    terms = method_terms()[case.partition(".")[0]]
    kept = {term} if term in (*terms.student, *further_terms()) else {term, terms.student[0]}
    weights = [f"weights.{name}={float(name in kept)}" for name in terms.names]
    return [*weights, *(f"terms.{name}={float(name in kept)}" for name in further_terms())]


def judges(case):
    return method_terms()[case.partition(".")[0]].source


def test_terms_read_without_torch_are_those_of_the_class(tiny, case):
    method = tiny.game(case).method
    terms = method_terms()[case.partition(".")[0]]
    own = type(method)
    assert (own.student, own.source, own.pixels) == (terms.student, terms.source, terms.pixels)
    assert own.weights == terms.weights and own.options == {name: o.default for name, o in terms.options.items()}
    assert set(terms.weights) == set(terms.names)


@pytest.mark.parametrize("name", further_terms())
def test_further_terms_read_without_torch_are_those_of_the_class(tiny, name):
    term = further_terms()[name]
    assert term_class(name)().options == {key: option.default for key, option in term.options.items()}
    assert term.doc and all(option.doc for option in term.options.values())
    game = tiny.game("noise", f"terms.{name}=1.0")
    assert math.isfinite(game.play(0)[name]) and not game.notes


def test_terms_are_finite_and_steps_change_the_players(tiny, case):
    game = tiny.game(case)
    before = {name: tiny.hash(player.network) for name, player in players(game).items()}
    for step in range(2):
        values = game.play(step)
        assert set(values) == {"lr", *game.method.terms("student"), *game.method.terms("source")}
        assert all(math.isfinite(value) for value in values.values())
    assert not game.notes
    assert all(tiny.hash(player.network) != before[name] for name, player in players(game).items())


def test_a_move_of_the_synthesiser_leaves_the_student_alone(tiny, case):
    game = tiny.game(case)
    if game.source.player is None:
        assert "source" not in game.method.moves(0)
        return
    game.play(0)
    before = tiny.hash(game.student.state())
    game.moves["source"](1, 0)
    assert tiny.hash(game.student.state()) == before
    assert all(p.grad is None and p.requires_grad for p in game.student.network.parameters())
    normalisations = [m for m in game.student.network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert normalisations and all(m.track_running_stats for m in normalisations)


@pytest.mark.parametrize("case", tiers())
def test_a_step_in_bf16(tiny, case):
    game = tiny.game(case, bf16=True)
    before = tiny.hash(game.teacher)
    values = game.play(0)
    assert all(math.isfinite(value) for value in values.values()) and not game.notes
    assert all(p.dtype == torch.float32 for net in modules(game) for p in net.parameters())
    assert tiny.hash(game.teacher) == before


@pytest.mark.parametrize("case", tiers())
def test_a_term_without_weight_costs_nothing(tiny, case):
    """Each judge alone says what it looks at; without its weight, nobody makes what it alone looked at."""
    alone = {name: tiny.game(case, *only(case, name)).needs["source"] for name in judges(case)}
    for silent in alone:
        others = [name for name in alone if name != silent]
        if not others:
            continue
        weights = [f"weights.{name}={float(name != silent)}" for name in alone]
        game = tiny.game(case, *weights)
        assert silent not in game.method.terms("source")
        assert game.needs["source"] == set().union(*(alone[name] for name in others))
        first = next(iter(game.networks.statistics.layers.values()))
        listeners = []
        watch = first.register_forward_hook(lambda m, *_, heard=listeners: heard.append(len(m._forward_pre_hooks)))
        with tiny.calls(game.student.network) as studied, tiny.calls(game.teacher) as taught:
            assert silent not in game.moves["source"](0, 0)
        watch.remove()
        assert 1 <= len(taught) <= game.source.updates
        assert len(studied) == len(taught) * ("s" in game.needs["source"]), silent
        assert listeners == len(taught) * [int("statistics" in game.needs["source"])], silent


@pytest.mark.parametrize("case", tiers())
def test_without_any_judge_no_synthesiser_moves(tiny, case):
    if not judges(case):
        return
    game = tiny.game(case, *(f"weights.{name}=0.0" for name in judges(case)))
    before = tiny.hash(dict(game.source.named_parameters()))
    values = game.play(0)
    assert game.source.player is None and "source" not in game.method.moves(0) and not set(values) & set(judges(case))
    assert tiny.hash(dict(game.source.named_parameters())) == before
