"""What every method owes: the suite collects them by file name, so that a new one falls under it by itself."""

import math

import pytest
import torch

from segkd.foundation import audit
from segkd.recipe import method_terms
from segkd.recipe.loading import FURTHER_TERMS
from segkd.training import checkpoint


def players(game):
    return {"student": game.student, **({"synth": game.synth} if game.synth is not None else {})}


def modules(game):
    averages = [p.average for p in players(game).values() if p.average is not None]
    return [game.teacher, game.student.network, game.synthesiser, *averages]


def only(case, term):
    """Overrides that leave a synthesiser one term, and the student one: its own, or its first where a judge is asked."""
    terms = method_terms()[case.partition(".")[0]]
    kept = {term} if term in (*terms.student, *FURTHER_TERMS) else {term, terms.student[0]}
    weights = [f"weights.{name}={float(name in kept)}" for name in terms.names]
    return [*weights, *(f"terms.{name}={float(name in kept)}" for name in FURTHER_TERMS)]


def judges(case):
    return method_terms()[case.partition(".")[0]].synth


def test_terms_read_without_torch_are_those_of_the_class(tiny, case):
    method = tiny.game(case).method
    terms = method_terms()[case.partition(".")[0]]
    own = type(method)
    assert (own.student, own.synth, own.refine) == (terms.student, terms.synth, terms.refine)
    assert own.weights == terms.weights and own.further == FURTHER_TERMS
    assert set(terms.weights) == set(terms.names)


def test_terms_are_finite_and_steps_change_the_players(tiny, case):
    game = tiny.game(case)
    before = {name: tiny.hash(player.network) for name, player in players(game).items()}
    for step in range(2):
        values = game.play(step)
        assert set(values) == {"lr", *game.method.terms("student"), *game.method.terms("synth")}
        assert all(math.isfinite(value) for value in values.values())
    assert not game.notes
    assert all(tiny.hash(player.network) != before[name] for name, player in players(game).items())


def test_each_term_reaches_only_its_own_player(tiny, case):
    terms = method_terms()[case.partition(".")[0]]
    for owner, names in (("student", (*terms.student, *FURTHER_TERMS)), ("synth", terms.synth)):
        for name in names:
            game = tiny.game(case, *only(case, name))
            sides = {"teacher": game.teacher, "student": game.student.network, "synth": game.synthesiser}

            def backward(loss, step):
                loss.backward()

            getattr(game, owner).update = backward
            game._moves[owner](0, 0)
            reached = {side: [p for p in net.parameters() if p.grad is not None] for side, net in sides.items()}
            assert any(p.grad.abs().max() > 0 for p in reached.pop(owner)), name
            assert not any(reached.values()), name


def test_the_teacher_is_not_touched(tiny, case):
    game = tiny.game(case)
    before = tiny.hash(game.teacher)
    for step in range(2):
        game.play(step)
    game.agreement(1)
    assert tiny.hash(game.teacher) == before
    assert not any(module.training for module in game.teacher.modules())
    assert all(p.grad is None and not p.requires_grad for p in game.teacher.parameters())


def test_a_move_of_the_synthesiser_leaves_the_student_alone(tiny, case):
    game = tiny.game(case)
    if game.synth is None:
        assert "synth" not in game.method.moves(0)
        return
    game.play(0)
    before = tiny.hash(game.student.state())
    game._synth_move(1, 0)
    assert tiny.hash(game.student.state()) == before
    assert all(p.grad is None and p.requires_grad for p in game.student.network.parameters())
    normalisations = [m for m in game.student.network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert normalisations and all(m.track_running_stats for m in normalisations)


def test_the_seed_decides_every_byte(tiny, case):
    states = []
    for seed in (0, 0, 1):
        torch.manual_seed(len(states))
        game = tiny.game(case, f"run.seed={seed}")
        for step in range(2):
            torch.rand(len(states) + 1)
            game.play(step)
        states.append(tiny.hash(game.state()))
    assert states[0] == states[1] != states[2]


def test_a_resumed_game_is_the_uninterrupted_one(tiny, case, tmp_path):
    whole = tiny.game(case)
    for step in range(3):
        values = whole.play(step)

    first = tiny.game(case)
    for step in range(2):
        first.play(step)
    checkpoint.save(tmp_path, 2, {"game": first.state()}, keep=1)
    torch.manual_seed(99)
    resumed = tiny.game(case)
    found, damaged = checkpoint.newest(tmp_path)
    resumed.restore(found["game"])
    assert not damaged and tiny.hash(resumed.state()) == tiny.hash(first.state())
    torch.rand(5)
    again = resumed.play(2)
    assert again == values
    assert tiny.hash(resumed.state()) == tiny.hash(whole.state())
    assert tiny.hash(resumed.student.headline) == tiny.hash(whole.student.headline)


def test_looking_on_changes_nothing(tiny, case):
    blind, watched = tiny.game(case), tiny.game(case)
    for step in range(2):
        blind.play(step)
        watched.play(step)
        share = watched.agreement(1)
        images = next(iter(watched.held_out(1)))
        masks = watched.masks(images)
        assert 0 <= share <= 1 and masks[0].shape == masks[1].shape == (len(images), *images.shape[-2:])
    assert watched.agreement(1) == blind.agreement(1)
    assert tiny.hash(watched.state()) == tiny.hash(blind.state())
    assert tiny.hash(watched.synthesiser) == tiny.hash(blind.synthesiser)


def test_a_step_in_bf16(tiny, case):
    game = tiny.game(case, bf16=True)
    before = tiny.hash(game.teacher)
    values = game.play(0)
    assert all(math.isfinite(value) for value in values.values()) and not game.notes
    assert all(p.dtype == torch.float32 for net in modules(game) for p in net.parameters())
    assert tiny.hash(game.teacher) == before


def test_a_term_without_weight_costs_nothing(tiny, case):
    """Each judge alone says what it looks at; without its weight, nobody makes what it alone looked at."""
    alone = {name: tiny.game(case, *only(case, name)).needs["synth"] for name in judges(case)}
    for silent in alone:
        others = [name for name in alone if name != silent]
        if not others:
            continue
        weights = [f"weights.{name}={float(name != silent)}" for name in alone]
        game = tiny.game(case, *weights)
        assert silent not in game.method.terms("synth")
        assert game.needs["synth"] == set().union(*(alone[name] for name in others))
        first = next(iter(game.bn_tap.layers.values()))
        listeners = []
        watch = first.register_forward_hook(lambda m, *_, heard=listeners: heard.append(len(m._forward_pre_hooks)))
        with tiny.calls(game.student.network) as studied, tiny.calls(game.teacher) as taught:
            assert silent not in game._synth_move(0, 0)
        watch.remove()
        assert len(taught) == 1
        assert len(studied) == ("s" in game.needs["synth"]), silent
        assert listeners == [int("statistics" in game.needs["synth"])], silent


def test_without_any_judge_no_synthesiser_moves(tiny, case):
    if not judges(case):
        return
    game = tiny.game(case, *(f"weights.{name}=0.0" for name in judges(case)))
    before = tiny.hash(dict(game.synthesiser.named_parameters()))
    values = game.play(0)
    assert game.synth is None and "synth" not in game.method.moves(0) and not set(values) & set(judges(case))
    assert tiny.hash(dict(game.synthesiser.named_parameters())) == before


def test_no_hook_is_left_behind(tiny, case):
    game = tiny.game(case)
    assert tiny.hooks(*modules(game)) == 0
    game.play(0)
    game.agreement(1)
    assert tiny.hooks(*modules(game)) == 0


def test_a_term_that_fails_leaves_nothing_switched(tiny, case):
    game = tiny.game(case)

    def broken(view):
        raise ArithmeticError("on purpose")

    for owner in players(game):
        setattr(game.method, game.method.terms(owner)[-1], broken)
        with pytest.raises(ArithmeticError, match="on purpose"):
            game._moves[owner](0, 0)
    assert tiny.hooks(*modules(game)) == 0
    assert all(p.requires_grad for p in game.student.network.parameters())
    assert all(m.track_running_stats for m in game.student.network.modules() if hasattr(m, "track_running_stats"))


def test_what_it_opens_is_counted(tiny, case):
    audit.install()
    opened = [audit.count(name) for name in ("training", "rendered")]
    with audit.phase("training"):
        game = tiny.game(case)
        for step in range(2):
            game.play(step)
        game.agreement(1)
    opened = [audit.count(name) - before for name, before in zip(("training", "rendered"), opened, strict=True)]
    shows_images = tiny.recipe(case).synth.kind == "images"
    assert opened[1] == 0
    assert opened[0] > 0 if shows_images else opened[0] == 0
