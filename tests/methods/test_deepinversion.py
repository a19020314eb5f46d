"""Images that are inverted: what begins them, what they follow, and what a recipe may not say to them."""

import copy

import pytest
import torch

from segkd.foundation.errors import RecipeError, TeacherError, UsageError
from segkd.machine import ranks
from segkd.models import classifier
from segkd.synthesis.pixels import Pixels
from segkd.synthesis.source import Move
from segkd.training.signals import Interrupted

INVERTING = ("deepinversion", "adi", "zskd")


@pytest.mark.parametrize("case", INVERTING)
def test_a_keep_move_inverts_a_batch_and_the_student_learns_from_the_bank(tiny, case):
    game = tiny.game(case, "options.updates=6", "options.half=0.5")
    assert game.method.moves(0) == ["keep", "student", "student"] and isinstance(game.source, Pixels)
    seen, look = [], game.networks.teacher_outputs
    game.networks.teacher_outputs = lambda images, *given, **more: (
        seen.append(images.shape[2:]) or look(images, *given, **more)
    )
    start = game.source.draw(2, (32, 64), game.move(0, 0))
    game.moves["keep"](0, 0)
    assert [tuple(size) for size in seen] == [(16, 32)] * 3 + [(32, 64)] * 4, "and once for what the bank keeps"
    [images], [labels] = game.bank.images, game.bank.labels
    assert torch.equal(labels, start.labels) and not torch.equal(images, start.images)
    assert ("s" in game.needs["pixels"]) == (case == "adi")


@pytest.mark.parametrize("case", INVERTING)
def test_images_come_nearer_to_their_judges(tiny, case):
    game = tiny.game(case, "options.updates=30", "options.half=0", "options.jitter=0", "options.flip=false")
    judge, told = game.judge("pixels", 0, 0), []
    true = game.method.loss

    def loss(*given):
        total, values = true(*given)
        told.append(float(total.detach()))
        return total, values

    game.method.loss = loss
    game.source.draw(2, (32, 64), judge.move, judge)
    assert len(told) == 30 and told[-1] < told[0] - 0.005 * abs(told[0])


@pytest.mark.parametrize("case", INVERTING)
def test_what_is_looked_at_are_images_that_were_made_and_not_the_noise_before(tiny, case):
    game = tiny.game(case, "options.updates=3")
    monitor, before = game.monitor, tiny.hash(game.state())
    noise = game.source.draw(2, (32, 64), Move(game.sampling.seed, -3, 0)).images
    [images] = monitor.held_out(4)
    assert images.shape == noise.shape and not torch.equal(images, noise)
    with tiny.calls(game.teacher) as taught:
        [again] = monitor.held_out(1)
    assert torch.equal(again, images) and not taught, "they are made once, for as long as the student stays as it is"
    student = monitor.measured("ema")
    assert monitor.agreement(student) == monitor.shown(student)["agreement_shown"]
    assert tiny.hash(game.state()) == before
    game.moves["keep"](0, 0)
    game.moves["student"](0, 1)
    assert tiny.hash(next(monitor.held_out(1))) != tiny.hash(images) or case != "adi"


def test_a_signal_between_two_updates_undoes_the_move_and_it_is_played_again(tiny):
    whole, stopped = (tiny.game("adi", "options.updates=4") for _ in range(2))
    whole.play(0)
    asked = iter([False, True])
    stopped.stopping = lambda: next(asked)
    with pytest.raises(Interrupted):
        stopped.play(0)
    state = copy.deepcopy(stopped.state())
    assert state["begun"]["moves"] == 0 and not len(stopped.bank)
    stopped = tiny.game("adi", "options.updates=4")
    stopped.restore(state)
    stopped.play(0)
    assert tiny.hash(stopped.state()) == tiny.hash(whole.state())


@pytest.mark.parametrize(
    ("overrides", "error", "line"),
    [
        (("game.keep_moves=0",), UsageError, "game.keep_moves: images are inverted as they are kept, and none is; set "),
        (("synth.refine=2",), RecipeError, "synth.refine: images follow the terms of adi as its options say; set synth.refine=0"),
        (("synth.replay=0",), RecipeError, "game.keep_moves: there is no bank to keep images in; set synth.replay"),
        (("options.labels=nois",), RecipeError, "options.labels: unknown value \"nois\", did you mean 'noise'? (known: noise, "),
        (("options.updates=0",), RecipeError, "options.updates: must be at least 1, got 0"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_line(tiny, overrides, error, line):
    with pytest.raises(error) as caught:
        tiny.game("adi", *overrides)
    assert line in str(caught.value) and len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("method", ["zskd", "adi"])
def test_images_that_follow_nothing_are_refused(tiny, method):
    none = [f"weights.{name}=0" for name in ("ce", "bn", "tv", "l2", "compete")[: 1 if method == "zskd" else 5]]
    with pytest.raises(UsageError, match=r"weights: no term that images follow has weight; set one of weights\.ce"):
        tiny.game(method, *none)


def test_statistics_that_a_teacher_lacks_are_told_before_the_first_step(tiny, monkeypatch):
    monkeypatch.setattr("segkd.models.taps.batchnorm_layers", lambda network: {})
    with pytest.raises(TeacherError, match="the teacher has no BatchNorm layer"):
        tiny.game("deepinversion")
    assert tiny.game("zskd").play(0)


def test_class_vectors_are_drawn_for_each_region_by_the_likeness_of_classes(tiny, monkeypatch):
    game = tiny.game("zskd", "options.sharp=0.01", "options.soft=50.0")
    rows = classifier.class_weights(game.teacher.network, 11).double()
    rows = rows / rows.square().sum(1, keepdim=True).sqrt()
    likeness = torch.stack([(one - one.min()) / (one.max() - one.min()) for one in rows @ rows.T])
    torch.testing.assert_close(game.method.likeness.double(), likeness, rtol=1e-4, atol=1e-5)
    start, move = game.source.start, Move(0, 3, 1, 0.5)
    vectors = start.draw(400, (4, 4), move).latents
    assert vectors.shape == (400, 11, 11)
    torch.testing.assert_close(vectors.sum(2), torch.ones(400, 11))
    sharp, soft = vectors[::2], vectors[1::2]
    assert sharp.amax(2).mean() > 0.9 > 0.4 > soft.amax(2).mean()
    torch.testing.assert_close(soft.mean(0).double(), likeness / likeness.sum(1, keepdim=True), rtol=0.1, atol=0.02)
    monkeypatch.setattr(ranks, "size", lambda: 2)
    monkeypatch.setattr(ranks, "rank", lambda: 1)
    assert torch.equal(start.draw(400, (4, 4), move).latents, vectors[200:])


def test_a_method_of_maps_with_a_source_that_draws_none_is_told_what_to_set(tiny):
    with pytest.raises(UsageError, match="the source draws no maps of classes; set synth.kind=conditional"):
        tiny.game("cgdd", "synth.kind=resize")
