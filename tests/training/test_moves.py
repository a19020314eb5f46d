"""What each move of a game computes, done once more by hand: its random streams, its images, its views and its losses."""

import copy
import math

import pytest
import torch

from segkd.evaluation.collapse import class_shares, distance, diversity
from segkd.foundation.rng import seed_for, seed_of_attempt
from segkd.losses.discrepancy import channel_wise
from segkd.losses.statistics import batchnorm_distance
from segkd.methods.ddad import DDAD
from segkd.models.taps import BatchNormTap, FeatureTap, untouched_statistics
from segkd.synthesis.source import Move
from segkd.training import monitor, networks

DROPOUT, STILL = (f"student.options.decoder_aspp_dropout={share}" for share in (0.5, 0))
CHANGED = "synth.augment=[flip, noise]"


def drawn_at(game, step, index, seed=0):
    torch.manual_seed(seed_for(seed, step, index, "latent"))
    return torch.randn(game.sampling.batch, game.source.latent)


@torch.no_grad()
def images_at(game, maker, step, index, seed=0):
    """The images of a move, as whoever is to make them makes them."""
    z = drawn_at(game, step, index, seed)
    torch.manual_seed(seed_for(seed, step, index, "synthesis"))
    x = maker.train()(z, game.sampling.sizes[step % len(game.sampling.sizes)])
    return game.source.augment(x, step / game.method.rules.steps)


def views_of(game, play):
    """What the terms were shown, by player, while `play` was played."""
    views, loss = [], game.method.loss
    game.method.loss = lambda player, view, step: views.append((player, view, step)) or loss(player, view, step)
    play()
    game.method.loss = loss
    return views


def apart(tiny, *overrides, case="ddad.segkd"):
    """Two equal games, one to play and one to do it by hand; the averages differ from the live networks."""
    pair = [tiny.game(case, "student.ema=0.9", "synth.ema=0.9", *overrides) for _ in range(2)]
    for game in pair:
        for step in range(2):
            game.play(step)
        assert not torch.equal(game.source.player.ema_or_live.project.weight, game.source.network.project.weight)
    return pair


def test_a_synthesis_is_by_the_live_generator_and_shown_to_a_student_that_stays_as_it_is(tiny):
    game, hand = apart(tiny, DROPOUT, CHANGED, "game.keep_moves=0")
    before = tiny.hash(game.student.network)
    ((player, view, step),) = views_of(game, lambda: game.moves["source"](2, 3))
    assert (player, step) == ("source", 2) and tiny.hash(game.student.network) == before
    x = images_at(hand, hand.source.network, 2, 3)
    assert torch.equal(view.z, drawn_at(hand, 2, 3)) and torch.equal(view.x, x)
    tap = BatchNormTap(hand.teacher.network)
    with torch.no_grad(), tap.open() as statistics:
        t = hand.teacher(x)
    torch.testing.assert_close(view.t, t)
    assert len(view.statistics) == len(statistics) > 5
    torch.testing.assert_close(batchnorm_distance(view.statistics), batchnorm_distance(statistics))
    torch.manual_seed(seed_for(0, 2, 3, "student"))  # dropout
    with torch.no_grad():
        torch.testing.assert_close(view.s, hand.student.network.train()(x))
    assert torch.equal(game.bank.images[game.bank.next - 1].float(), x)
    torch.testing.assert_close(hand.teacher.from_head(game.bank.logits[game.bank.next - 1]), t, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("ema", [0.9, 0.0])
def test_images_that_are_only_kept_are_by_the_average_where_there_is_one(tiny, ema):
    game, hand = (tiny.game("ddad.segkd", f"synth.ema={ema}", CHANGED, "game.keep_moves=1") for _ in range(2))
    for each in (game, hand):
        each.play(0)
        each.play(1)
    maker = hand.source.player.ema_or_live
    assert (maker is hand.source.network) == (ema == 0)
    before = tiny.hash(maker)
    assert game.moves["keep"](2, 1) == {}
    kept = game.bank.images[game.bank.next - 1]
    assert torch.equal(kept, images_at(hand, maker, 2, 1))
    assert tiny.hash(game.source.player.ema_or_live) == before  # making them moved no running statistics
    with torch.no_grad():
        wanted = hand.teacher(kept, at_head=True)
    torch.testing.assert_close(game.bank.logits[game.bank.next - 1], wanted)


def test_a_student_draws_from_the_bank_by_a_stream_of_its_own(tiny):
    """Not by the one of its dropout, which would tie both together."""
    game, hand = apart(tiny, DROPOUT, "synth.replay=5", "run.batch=4")
    ((player, view, step),) = views_of(game, lambda: game.moves["student"](2, 4))
    torch.manual_seed(seed_for(0, 2, 4, "replay"))
    batch, kept = hand.bank.draw(4)
    x = batch.images
    assert (player, step) == ("student", 2) and torch.equal(view.x, x)
    torch.testing.assert_close(view.t, hand.teacher.from_head(kept))
    torch.manual_seed(seed_for(0, 2, 4, "student"))
    torch.testing.assert_close(view.s, hand.student.network.train()(x))


def test_a_bank_of_one_batch_serves_the_student(tiny):
    game = tiny.game("ddad.segkd", "game.keep_moves=0", "game.student_moves=1")
    game.moves["source"](0, 0)
    assert len(game.bank) == 1
    with tiny.calls(game.teacher) as taught:
        game.moves["student"](0, 1)
    assert not taught


def test_without_a_bank_images_are_made_for_the_student(tiny):
    game, hand = apart(tiny, CHANGED, "synth.replay=0", "game.keep_moves=0")
    before = tiny.hash(game.source.player.ema_or_live)
    with tiny.calls(game.teacher) as taught:
        ((_, view, _),) = views_of(game, lambda: game.moves["student"](2, 4))
    assert torch.equal(view.z, drawn_at(hand, 2, 4)) and len(taught) == 1
    assert torch.equal(view.x, images_at(hand, hand.source.player.ema_or_live, 2, 4))
    assert not view.x.requires_grad and not view.t.requires_grad and view.s.requires_grad
    assert tiny.hash(game.source.player.ema_or_live) == before


@pytest.mark.parametrize("case", ["kd", "noise"])
def test_what_learns_nothing_makes_images_for_the_student_too(tiny, case):
    game, hand = tiny.game(case), tiny.game(case)
    ((player, view, _),) = views_of(game, lambda: game.moves["student"](1, 1))
    assert player == "student" and torch.equal(view.x, hand.source.draw(2, (32, 64), Move(0, 1, 1, 0.25)).images)


def test_a_new_attempt_has_other_numbers_and_the_same_held_out_images(tiny):
    game, hand = apart(tiny, CHANGED)
    first = list(game.monitor.held_out(2))
    game.attempt = 3
    seed = seed_of_attempt(0, 3)
    assert game.seed == seed != 0
    assert all(torch.equal(a, b) for a, b in zip(first, game.monitor.held_out(2), strict=True))
    ((_, view, _),) = views_of(game, lambda: game.moves["source"](2, 0))
    assert torch.equal(view.x, images_at(hand, hand.source.network, 2, 0, seed))


def test_held_out_images_are_those_of_the_averaged_generator_at_the_first_size(tiny):
    game, hand = apart(tiny, "synth.sizes=[[64, 32]]", "synth.replay=0", "game.keep_moves=0")
    images = list(game.monitor.held_out(3))
    assert len(images) == 3 and game.source.player.ema_or_live.training
    for index, found in enumerate(images):
        torch.manual_seed(seed_for(0, -1, index, "latent"))
        z = torch.randn(2, 8)
        with torch.no_grad():
            assert torch.equal(found, hand.source.player.ema_or_live.train()(z, (32, 64)))
        assert found.is_contiguous(memory_format=torch.channels_last) and not found.requires_grad


@pytest.mark.parametrize("bank", [True, False])
def test_the_averaged_student_is_measured_with_statistics_of_what_students_are_shown(tiny, bank):
    game, hand = apart(tiny, *([] if bank else ["synth.replay=0", "game.keep_moves=0"]))
    before, twin = tiny.hash(game.student.ema_or_live), copy.deepcopy(hand.student.ema_or_live)

    def shown():
        for index in range(8):  # each draws anew for its dropout
            torch.manual_seed(seed_for(0, -1, index, "statistics"))
            yield hand.bank.draw(2)[0].images

    with torch.no_grad():
        torch.optim.swa_utils.update_bn(shown() if bank else hand.monitor.held_out(8), twin)
    measured = game.monitor.measured("ema")
    assert tiny.hash(game.student.ema_or_live) == before
    torch.testing.assert_close(dict(measured.named_buffers()), dict(twin.named_buffers()), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(dict(measured.named_parameters()), dict(twin.named_parameters()))
    assert game.monitor.measured("ema") is measured and game.monitor.measured("last") is game.student.network
    assert tiny.hash(game.state()["student"]["statistics"]) == tiny.hash(dict(measured.named_buffers()))
    game.moves["student"](2, 1)
    assert game.monitor.measured("ema") is not measured


def test_without_an_average_the_live_student_is_measured(tiny):
    game = tiny.game("ddad.segkd", "student.ema=0")
    assert game.monitor.measured("ema") is game.student.network and "statistics" not in game.state()["student"]


def test_agreement_is_that_of_a_student_on_held_out_images(tiny):
    game, hand = apart(tiny)
    same = total = 0
    with torch.no_grad():
        for x in hand.monitor.held_out(4):
            same += (hand.teacher(x).argmax(1) == hand.student.ema_or_live.eval()(x).argmax(1)).sum().item()
            total += x[:, 0].numel()
    student = game.student.ema_or_live
    assert total == 4 * 2 * 32 * 64 and game.monitor.agreement(student) == pytest.approx(same / total, abs=1e-9)
    assert game.monitor.agreement(student, 1) != game.monitor.agreement(student, 4)


@pytest.mark.parametrize("training", [True, False])
def test_masks_are_the_teachers_and_a_students(tiny, training):
    game, hand = apart(tiny)
    game.student.ema_or_live.train(training)
    x = next(hand.monitor.held_out(1))
    theirs, ours = game.monitor.masks(x, game.student.ema_or_live)
    with torch.no_grad():
        assert torch.equal(theirs, hand.teacher(x).argmax(1))
        assert torch.equal(ours, hand.student.ema_or_live.eval()(x).argmax(1))
    assert game.student.ema_or_live.training == training


def test_collages_end_where_the_recipe_says(tiny):
    collages = ["synth.augment=[collage]", "synth.collage_until=0.5", "run.steps=8", "run.batch=4"]
    game, hand = (tiny.game("ddad.paper", *collages) for _ in range(2))
    for step, cut in ((0, True), (3, True), (4, False), (7, False)):
        ((_, view, _),) = views_of(game, lambda step=step: game.moves["source"](step, 0))
        with torch.no_grad():
            whole = hand.source.network.train()(drawn_at(hand, step, 0))
        assert torch.allclose(view.x, whole, atol=1e-5) != cut, step
        hand.source.network.load_state_dict(game.source.network.state_dict())


def test_statistics_of_the_average_follow_the_bank_where_the_student_stands_still(tiny):
    game = tiny.game("rdskd", "run.steps=8", "options.ahead=0.5")
    game.play(0)
    first = tiny.hash(game.monitor.measured("ema"))
    game.play(1)
    again = tiny.game("rdskd", "run.steps=8", "options.ahead=0.5")
    again.restore(game.state())
    assert tiny.hash(again.monitor.measured("ema")) == tiny.hash(game.monitor.measured("ema")) != first
    assert game.monitor.measured("ema") is game.monitor.measured("ema")


def test_a_student_whose_numbers_are_none_has_diverged(tiny):
    game = tiny.game()
    game.play(0)
    with torch.no_grad():
        game.student.network.network.segmentation_head[0].bias[0] = math.nan
    seen, wrong = game.vitals()
    assert math.isnan(seen["distance"]) and (wrong or "").startswith("diverged: ")


def test_maps_are_compared_at_temperature_4(tiny):
    method = tiny.game("ddad.segkd", "terms.cwd=1").method
    student, teacher = torch.randn(2, 11, 4, 6), torch.randn(2, 11, 4, 6)
    view = type("View", (), {"s": student, "t": teacher})
    assert method.cwd(view).item() == pytest.approx(channel_wise(student, teacher, 4.0).item())
    assert method.cwd(view).item() != pytest.approx(channel_wise(student, teacher, 1.0).item(), rel=0.01)


def test_a_step_tells_the_last_value_of_each_term_and_the_rate(tiny):
    game = tiny.game("ddad.segkd", "student.optimizer.lr=0.03", "student.schedule.name=constant")
    values: dict[str, object] = {}
    views = views_of(game, lambda: values.update(game.play(0)))
    assert [player for player, _, _ in views] == ["source", "student", "student"]
    assert values.keys() == {*game.method.terms("source"), "kd", "lr"} and values["lr"] == pytest.approx(0.03)
    first, last = (game.method.kd(view).item() for _, view, _ in views[1:])
    assert values["kd"].item() == pytest.approx(last) != pytest.approx(first)


def test_in_bf16_every_network_runs_in_it(tiny):
    """The generator for moves and for held-out images, teacher and student for views and for masks."""
    game, hand = (tiny.game("ddad.segkd", "synth.replay=0", "game.keep_moves=0", bf16=True) for _ in range(2))
    ((_, view, _),) = views_of(game, lambda: game.moves["source"](0, 0))
    plain = images_at(hand, hand.source.network, 0, 0)
    with torch.autocast("cpu", torch.bfloat16):
        x = images_at(hand, hand.source.network, 0, 0)
        with torch.no_grad():
            t = hand.teacher(x)
            torch.manual_seed(seed_for(0, 0, 0, "student"))
            s = hand.student.network.train()(x)
    assert torch.equal(view.x, x) and not torch.equal(x, plain) and x.dtype == torch.float32
    assert torch.equal(view.t, t) and torch.equal(view.s, s)
    with torch.no_grad():
        assert not torch.equal(hand.teacher(x), t)
    game = tiny.game("ddad.segkd", bf16=True)
    held = next(game.monitor.held_out(1))
    torch.manual_seed(seed_for(0, -1, 0, "latent"))
    z = torch.randn(2, 8)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        with untouched_statistics(game.source.player.ema_or_live):
            assert torch.equal(held, game.source.player.ema_or_live.train()(z).float())
        masks = game.teacher(held).argmax(1), game.student.ema_or_live.eval()(held).argmax(1)
    assert all(
        torch.equal(a, b) for a, b in zip(game.monitor.masks(held, game.student.ema_or_live), masks, strict=True)
    )
    twin = copy.deepcopy(game.student.ema_or_live)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        torch.optim.swa_utils.update_bn(game.monitor.held_out(8), twin)
    assert tiny.hash(game.monitor.measured("ema")) == tiny.hash(twin)


@pytest.mark.parametrize("bank", [True, False])
def test_a_term_that_looks_at_features_and_statistics_sees_them(tiny, bank):
    game = tiny.game("ddad.segkd", *([] if bank else ["synth.replay=0", "game.keep_moves=0"]))
    game.play(0)
    for player in ("student", "source"):
        game.needs[player] = {"x", "t", "s", "t_features", "s_features", "statistics"}
        ((_, view, _),) = views_of(game, lambda player=player: game.moves[player](1, 0))
        tap, features = BatchNormTap(game.teacher.network), FeatureTap(game.teacher.network)
        with torch.no_grad(), tap.open() as statistics, features.open() as maps:
            t = game.teacher(view.x)
        torch.testing.assert_close(view.t, t, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(view.t_features, maps, rtol=1e-4, atol=1e-4)
        assert [one.name for one in view.statistics] == [one.name for one in statistics]
        torch.testing.assert_close(view.statistics[-1].var, statistics[-1].var)
        assert [tuple(m.shape[-2:]) for m in view.s_features] == [tuple(m.shape[-2:]) for m in maps]
        assert all(m.requires_grad for m in view.s_features)


@pytest.mark.parametrize("kind", ["t_features", "s_features", "statistics"])
def test_each_kind_is_there_for_a_term_that_looks_at_it_alone(tiny, kind):
    """Also where images come from the bank, which keeps the teacher's logits and nothing else of it."""
    game = tiny.game("ddad.segkd", "weights.bn=0")
    game.play(0)
    for player in ("student", "source"):
        game.needs[player] = {"t", "s", kind}
        with tiny.calls(game.teacher) as taught:
            ((_, view, _),) = views_of(game, lambda player=player: game.moves[player](1, 0))
        assert len(taught) == (player == "source" or kind != "s_features")
        assert len(getattr(view, kind)) > 1
        for other in {"t_features", "s_features", "statistics"} - {kind}:
            with pytest.raises(AttributeError, match="does not make"):
                getattr(view, other)


@pytest.mark.parametrize("bf16", [False, True])
def test_terms_are_traced_on_two_images_of_the_first_size_that_the_seed_draws(tiny, monkeypatch, bf16):
    kinds, shown = ("z", "x", "t", "s", "t_features", "s_features", "statistics"), []
    true = DDAD.kd
    monkeypatch.setattr(
        DDAD,
        "kd",
        lambda method, view: shown.append({kind: getattr(view, kind) for kind in kinds}) or true(method, view),
    )
    sizes = ["synth.sizes=[[64, 32]]", "synth.replay=0", "game.keep_moves=0"]
    game, hand = (tiny.game("ddad.segkd", STILL, *sizes, bf16=bf16) for _ in range(2))
    assert game.needs["student"] == set(kinds) and game.needs["source"] == {"t", "s", "statistics"}
    view = shown[0]
    assert not any(view[kind].requires_grad for kind in ("x", "t", "s"))
    torch.manual_seed(seed_for(0, -2, 0, "latent"))
    z, taps = torch.randn(2, 8), (BatchNormTap(hand.teacher.network), FeatureTap(hand.teacher.network))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        with untouched_statistics(hand.source.network):
            made, x = hand.source.network.train()(z, (32, 64)).float(), view["x"]
        with taps[0].open() as statistics, taps[1].open() as features:
            t = hand.teacher(x)
        s = hand.student.network.train()(x)
        with FeatureTap(hand.student.network.network).open() as studied:
            hand.student.network(x)
    assert x.is_contiguous(memory_format=torch.channels_last)
    wanted = {"z": z, "x": made, "t": t, "s": s, "t_features": features, "s_features": studied}
    torch.testing.assert_close({kind: view[kind] for kind in wanted}, wanted)
    torch.testing.assert_close(batchnorm_distance(view["statistics"]), batchnorm_distance(statistics))


def test_graphs_replay_the_first_look_of_a_move_where_no_tap_listens(tiny, monkeypatch):
    """A second look would overwrite the first, and taps hear nothing of what is replayed."""
    used = []

    def recorded(network):
        return lambda x, at_head: used.append(names[id(network)]) or network(x, at_head=at_head)

    monkeypatch.setattr(networks, "Recorded", recorded)
    game = tiny.game("ddad.segkd", STILL, "weights.bn=0", "game.keep_moves=1")
    names = {id(game.teacher): "teacher", id(game.student.network): "student"}

    def played(player, *listens):
        game.needs[player] = {"t", "s", *listens}
        used.clear()
        game.moves[player](1, 0)
        return used[:]

    game.play(0)
    assert not used
    game.networks.recording = True
    assert played("source") == ["teacher", "student"]
    assert played("source", "statistics") == ["student"] and played("source", "t_features", "s_features") == []
    assert played("keep") == ["teacher"]
    assert played("student") == ["student"] and played("student", "s_features") == []
    game.bank = None
    assert played("student") == ["teacher", "student"] and played("student", "s_features") == ["teacher"]
    view, x = game.networks.view({}, game.student.network), torch.randn(2, 3, 32, 64)
    used.clear()
    torch.testing.assert_close(view.teacher(x), game.teacher(x))
    torch.testing.assert_close(view.student(x), game.student.network(x))
    assert not used


def test_only_what_is_looked_at_is_computed(tiny):
    game, x = tiny.game(), torch.randn(2, 3, 32, 64)
    student = game.student.network
    assert game.networks.teacher_outputs(x, {"t"}).keys() == {"stored", "t"} and game.networks.student_outputs(
        x, {"s"}, student
    ).keys() == {"s"}
    with tiny.calls(student) as asked:
        assert game.networks.student_outputs(x, {"t", "x", "statistics"}, student) == {} and not asked
    assert game.networks.student_outputs(x, {"s_features"}, student).keys() == {"s", "s_features"}


def test_a_step_tells_after_each_move_how_far_it_is(tiny):
    game, told = tiny.game("ddad.segkd", "game.keep_moves=1", "game.student_moves=2"), []
    game.on_progress = told.append
    game.play(0)
    assert told == [0.25, 0.5, 0.75, 1.0]


def test_looks_and_kept_images_keep_nothing_for_a_backward_pass(tiny):
    game = tiny.game("ddad.segkd", "game.keep_moves=1", "student.ema=0.9", "synth.ema=0")
    game.play(0)

    def refused(value):
        raise AssertionError("a graph is made")

    with torch.autograd.graph.saved_tensors_hooks(refused, refused):
        with pytest.raises(AssertionError, match="a graph is made"):
            game.student.network(next(game.monitor.held_out(1)))
        student = game.monitor.measured("ema")
        (
            game.monitor.agreement(student, 1),
            game.monitor.masks(next(game.monitor.held_out(1)), student),
            game.vitals(),
            game.state(),
        )
        game.moves["keep"](1, 0)


def test_each_network_computes_its_activations_again_where_it_is_asked_for(tiny):
    passes = {}
    for again in ("false", "true"):
        game = tiny.game("ddad.segkd", f"run.checkpointing={again}")
        networks = (game.teacher, game.student.network, game.source.network)
        passes[again] = [0, 0, 0]

        def count(module, given, at, counts=passes[again]):
            counts[at] += 1

        for at, network in enumerate(networks):
            for module in network.modules():
                module.register_forward_pre_hook(lambda module, given, at=at, count=count: count(module, given, at))
        game.moves["source"](0, 0)
    assert all(more > 1.2 * once for once, more in zip(*passes.values(), strict=True)), passes


def test_building_a_game_moves_nothing(tiny):
    game = tiny.game("ddad.segkd", "student.ema=0.9")
    for network in (
        game.student.network,
        game.student.ema_or_live,
        game.source.network,
        game.source.player.ema_or_live,
    ):
        counts = [buffer for name, buffer in network.named_buffers() if name.endswith("num_batches_tracked")]
        means = [buffer for name, buffer in network.named_buffers() if name.endswith("running_mean")]
        assert counts and not any(map(bool, counts)) and not any(mean.any() for mean in means)


def test_the_student_asks_for_no_gradient_while_the_generator_learns(tiny):
    game, asked = tiny.game(), []
    loss = game.method.loss
    game.method.loss = lambda player, view, step: (
        asked.append((player, any(p.requires_grad for p in game.student.network.parameters())))
        or loss(player, view, step)
    )
    game.play(0)
    assert asked == [("source", False), ("student", True), ("student", True)]


def memory_of(game, term):
    """A buffer of the method's own, that a term writes, and that is NaN for a start if `spoil` says so."""
    true = getattr(game.method, term)
    game.method.register_buffer("memory", torch.zeros(1))

    def written(view):
        game.method.memory += 1
        return true(view) * (math.nan if spoilt else 1)

    spoilt = []
    setattr(game.method, term, written)
    return spoilt


def test_what_is_not_sound_is_named_and_put_back(tiny):
    game = tiny.game("ddad.segkd", "game.keep_moves=1", "synth.refine=2", "weights.balance=0", "run.max_bad=9")
    game.play(0)
    spoilt = memory_of(game, "bn")
    game.moves["keep"](1, 1)
    assert game.method.memory == 2 and not game.notes and len(game.bank) == 2
    spoilt.append(True)
    game.moves["keep"](1, 1)
    assert game.method.memory == 2 and len(game.bank) == 2
    assert game.notes == ["step 1: keep judges are not finite (term bn is nan): update refused, nothing changed"]


def test_a_refused_keep_leaves_nothing_of_the_updates_that_went_well(tiny):
    game = tiny.game("ddad.segkd", "game.keep_moves=1", "synth.refine=2", "run.max_bad=9")
    game.play(0)
    memory_of(game, "bn")
    teach = game.networks.teacher_outputs

    def spoilt(x, needs, first=False):
        seen = teach(x, needs, first)
        return seen if needs else seen | {"stored": seen["stored"] * math.nan}

    game.networks.teacher_outputs = spoilt
    game.moves["keep"](1, 1)
    assert game.method.memory == 0 and len(game.bank) == 1
    assert game.notes[-1].startswith("step 1: keep logits are not finite (term bn is ")


def test_images_without_judges_that_are_not_sound_are_named(tiny):
    game = tiny.game("ddad.segkd", "game.keep_moves=1", "run.max_bad=9", "weights.balance=0")
    game.play(0)
    finished, length = game.source.augmented, len(game.bank)
    game.source.augmented = lambda images, move: finished(images, move) * math.nan
    game.moves["keep"](1, 1)
    game.moves["source"](2, 0)
    assert len(game.bank) == length and game.notes == [
        "step 1: keep images and logits are not finite: update refused, nothing changed",
        "step 2: source images and logits are not finite (term adv is nan, term bn is nan): update refused, nothing changed",
    ]
    game.source.augmented = finished
    game.method.adv = lambda view: (view.s * 0).abs().sqrt().mean()
    game.moves["source"](4, 0)
    assert game.notes[-1].startswith("step 4: source gradient norm is nan (term adv is 0, term bn is ")


@pytest.mark.parametrize("case", ["ddad.segkd", "kd"])
def test_a_game_that_is_restored_goes_on_as_the_first(tiny, case):
    pair = [tiny.game(case, "student.ema=0.9") for _ in range(2)]
    for game in pair:
        game.method.register_buffer("memory", torch.zeros(2))
    one, two = pair
    one.play(0)
    one.method.memory += 5
    one.attempt = 2
    one.refusals.refuse("student", 0, "by hand")
    state = one.state()
    assert state.keys() == {
        "student",
        "method",
        "refusals",
        "attempt",
        *(("source", "replay") if one.source.player is not None else ()),
    }
    two.restore(copy.deepcopy(state))
    assert tiny.hash(two.state()) == tiny.hash(state) and two.attempt == 2 and two.refusals.total == 1
    for game in pair:
        game.play(1)
    assert tiny.hash(one.state()) == tiny.hash(two.state())


def test_a_checkpoint_that_calls_the_source_by_its_old_name_goes_on(tiny):
    one, two = tiny.game(), tiny.game()
    one.play(0)
    state = copy.deepcopy(one.state())
    state["synth"] = state.pop("source")
    two.restore(state)
    assert tiny.hash(two.state()) == tiny.hash(one.state())


@pytest.mark.parametrize("training", [True, False])
def test_vitals_are_those_of_the_live_student_in_eval_mode(tiny, training):
    game, hand = apart(tiny, DROPOUT)
    game.student.network.train(training)
    seen, wrong = game.vitals()
    x = next(hand.monitor.held_out(1))
    with torch.no_grad():
        t, s = hand.teacher(x), hand.student.network.eval()(x)
    assert wrong is None and game.student.network.training == training
    assert seen == pytest.approx(
        {"diversity": diversity(x), "largest_class": float(class_shares(t).max()), "distance": distance(s, t)}, rel=1e-5
    )


def test_images_that_nobody_learns_to_make_do_not_collapse(tiny):
    game = tiny.game("noise")
    game.source.range.forward = torch.zeros_like
    seen, wrong = game.vitals()
    assert seen["diversity"] == 0 and not (wrong or "").startswith("collapsed")


def test_a_student_is_astray_beyond_a_limit_that_is_still_good(tiny, monkeypatch):
    game = tiny.game()
    far = game.vitals()[0]["distance"]
    for limit, good in ((far, True), (0.999 * far, False)):
        monkeypatch.setattr(monitor, "ASTRAY", limit)
        wrong = game.vitals()[1]
        assert wrong is None if good else wrong.startswith("diverged: ")


def test_a_collapse_is_told_before_a_divergence_that_may_come_of_it(tiny):
    game = tiny.game()
    with torch.no_grad():
        game.student.network.network.segmentation_head[0].weight.mul_(1e4)
        assert game.vitals()[1].startswith("diverged")
        game.source.player.ema_or_live.project.weight.zero_()
    assert game.vitals()[1].startswith("collapsed")


def test_the_precision_is_told_with_its_exceptions(tiny):
    assert tiny.game().precision == "fp32"
    game = tiny.game(bf16=True)
    assert game.precision == "bf16"
    game.student.network.in_fp32 = True
    assert game.precision == "bf16, student in fp32"
    game.teacher.in_fp32 = True
    assert game.precision == "bf16, teacher in fp32, student in fp32"
