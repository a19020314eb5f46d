"""The game: sizes, latents and the bank as the recipe says, and refused moves that change nothing."""

import copy
import math
from dataclasses import FrozenInstanceError

import pytest
import torch

from segkd.foundation.errors import NumbersError, RecipeError, UsageError
from segkd.methods.base import View
from segkd.methods.ddad import DDAD
from segkd.synthesis.source import Batch, Move
from segkd.training.monitor import FEWEST, Best
from segkd.training.networks import Networks
from tests.methods.test_common import players

NAN = math.nan
TWO_SIZES = ["synth.sizes=[[64, 32]]", "synth.replay=0", "game.keep_moves=0"]


def poison(game, term):
    """Let a term be NaN, with a gradient that is NaN too."""
    true = getattr(game.method, term)
    setattr(game.method, term, lambda view: true(view) * NAN)
    return lambda: setattr(game.method, term, true)


def bytes_of(tiny, game, bank=True):
    """Hashes of the parts of a game's state; without `bank`, but for the student's statistics that are made of its images."""
    state = game.state()
    if not bank:
        state["student"].pop("statistics")
    return {name: tiny.hash(part) for name, part in state.items() if name != "refusals"}


@pytest.mark.parametrize("player", ["student", "source"])
@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_a_move_with_a_nan_term_changes_nothing_and_is_named(tiny, player, ema):
    term = {"student": "kd", "source": "bn"}[player]
    game = tiny.game("ddad.segkd", f"student.ema={ema}", f"synth.ema={ema}")
    game.play(0)
    before = bytes_of(tiny, game)
    cure = poison(game, term)
    game.moves[player](1, 0)
    assert bytes_of(tiny, game) == before
    assert game.notes == [f"step 1: {player} loss is nan (term {term} is nan): update refused, nothing changed"]
    assert game.refusals.total == 1
    assert all(p.grad is None for p in (*game.student.network.parameters(), *game.source.network.parameters()))
    cure()
    game.moves[player](1, 0)
    after = bytes_of(tiny, game)
    assert after[player] != before[player] and not game.refusals.in_a_row


@pytest.mark.parametrize("player", ["student", "source"])
def test_running_statistics_that_a_nan_forward_wrote_are_put_back(tiny, player, monkeypatch):
    game = tiny.game("ddad.segkd", "synth.replay=0", "game.keep_moves=0")
    game.play(0)
    before = bytes_of(tiny, game)
    written = []
    if player == "student":
        game.source.augment.forward = lambda images, done: images * NAN
        watch = game.student.network
    else:  # the generator's forward sees the NaN in its own latents
        monkeypatch.setattr(Move, "latents", lambda *given: torch.full((2, 8), NAN))
        watch = game.source.network
    update = players(game)[player].update

    def look(*given):
        written.append(any(b.isnan().any() for b in watch.buffers()))
        return update(*given)

    players(game)[player].update = look
    game.moves[player](1, 0)
    assert written == [True]
    monkeypatch.undo()  # the state tells of images that are drawn for it, too
    assert bytes_of(tiny, game) == before and len(game.notes) == 1


def test_a_nan_gradient_of_a_finite_loss_is_refused(tiny):
    game = tiny.game()
    before = bytes_of(tiny, game)
    # The slope of the root is infinite at 0, and 0 * inf is NaN; the value is a plain 0.
    game.method.kd = lambda view: (view.s * 0).abs().sqrt().mean()
    game.moves["student"](0, 0)
    assert bytes_of(tiny, game) == before and "gradient norm is nan" in game.notes[0]


def test_more_refusals_in_a_row_than_max_bad_end_the_run(tiny):
    game = tiny.game("ddad.segkd", "run.max_bad=3", "game.student_moves=1")
    poison(game, "kd")
    poison(game, "bn")
    for step in range(3):
        game.play(step)
    assert game.refusals.in_a_row == {"source": 3, "student": 3}
    with pytest.raises(NumbersError, match=r"step 3: .*4 refused updates in a row \(run.max_bad 3\)") as caught:
        game.play(3)
    assert caught.value.exit_code == 4


def test_one_good_move_of_the_player_forgives(tiny):
    game = tiny.game("ddad.segkd", "run.max_bad=1", "game.student_moves=1")
    for step in range(3):
        cure = poison(game, "kd")
        game.play(2 * step)
        cure()
        game.play(2 * step + 1)
    assert game.refusals.total == 3 and len(game.notes) == 3


def test_a_refused_synthesis_puts_nothing_into_the_bank(tiny):
    game = tiny.game("ddad.segkd", "run.max_bad=9", "game.keep_moves=0")
    poison(game, "adv")
    game.play(0)
    assert len(game.bank) == 0
    assert game.refusals.in_a_row == {"source": 1}  # the student went on, with fresh images


def test_checkpointing_changes_no_byte_and_holds_less(tiny):
    """Dropout, running statistics and the statistics that the judges see come out as they do without."""

    def played(*overrides):
        held, most = 0, 0

        class Kept:
            def __init__(self, value):
                nonlocal held, most
                self.value = value
                held += value.numel()
                most = max(most, held)

            def __del__(self):
                nonlocal held
                held -= self.value.numel()

        game = tiny.game("ddad.segkd", "student.options.decoder_aspp_dropout=0.5", *overrides)
        with torch.autograd.graph.saved_tensors_hooks(Kept, lambda kept: kept.value):
            game.moves["source"](0, 0)
        for step in range(2):
            game.play(step)
        return bytes_of(tiny, game), most

    plain, much = played()
    same, little = played("run.checkpointing=true")
    assert same == plain and little < 0.5 * much


@pytest.mark.parametrize("case", ["ddad.segkd", "kd", "noise"])
def test_sizes_are_drawn_in_turn(tiny, case):
    game = tiny.game(case, *TWO_SIZES)
    with tiny.calls(game.teacher) as taught:
        for step in range(3):
            game.play(step)
    sizes = [tuple(images.shape[-2:]) for images in taught]
    a_step = len(game.method.moves(0))
    assert sizes == [(32, 64)] * a_step + [(64, 32)] * a_step + [(32, 64)] * a_step


def test_a_bank_of_two_sizes_serves_the_student(tiny):
    game = tiny.game("ddad.segkd", "synth.sizes=[[64, 32]]")
    with tiny.calls(game.student.network) as studied:
        for step in range(4):
            values = game.play(step)
    assert math.isfinite(values["kd"]) and {tuple(x.shape[-2:]) for x in studied} == {(32, 64), (64, 32)}


def test_keep_moves_fill_the_bank_and_the_student_draws_from_it(tiny):
    game = tiny.game("ddad.segkd", "game.keep_moves=2", "synth.replay=5")
    assert game.method.moves(0) == ["source", "keep", "keep", "student", "student"]
    lengths = []
    for step in range(3):
        with tiny.calls(game.teacher) as taught:
            game.play(step)
        lengths.append(len(game.bank))
        assert len(taught) == 3  # one synthesis and two keeps; the student's come with their logits
    assert lengths == [3, 5, 5]
    kept = torch.cat(game.bank.images)
    assert len(torch.unique(kept.flatten(1), dim=0)) == len(kept)


def test_where_images_are_refined_no_raw_ones_are_kept(tiny):
    game = tiny.game("ddad.segkd", "game.keep_moves=1", "synth.refine=1")
    for step in range(2):
        game.play(step)
    assert len(game.bank) == 2


def test_a_keep_move_changes_the_bank_alone(tiny):
    game = tiny.game("ddad.segkd", "game.keep_moves=1", "synth.ema=0.9")
    game.play(0)
    before = bytes_of(tiny, game, bank=False)
    game.moves["keep"](1, 1)
    after = bytes_of(tiny, game, bank=False)
    assert {name for name in after if after[name] != before[name]} == {"replay"}


def test_refined_images_are_nearer_to_the_judges_and_nobody_else_changes(tiny):
    distances = {}
    for steps in (0, 8):
        game = tiny.game("ddad.segkd", "game.keep_moves=1", f"synth.refine={steps}", "synth.augment=[]")
        game.play(0)
        before = bytes_of(tiny, game, bank=False)
        with tiny.calls(game.student.network) as asked:
            game.moves["keep"](1, 1)
        after = bytes_of(tiny, game, bank=False)
        assert {name for name in after if after[name] != before[name]} == {"replay"} and not asked
        kept, logits = game.bank.images[-1].float(), game.bank.logits[-1].float()
        with torch.no_grad():
            seen = game.networks.teacher_outputs(kept, {"t", "statistics"})
            distances[steps] = float(game.method.bn(game.networks.view(seen, game.student.network)))
        torch.testing.assert_close(logits, seen["stored"].to(logits), rtol=0.02, atol=0.02)
        assert all(p.grad is None for p in game.source.parameters())
    assert distances[8] < 0.9 * distances[0]


@pytest.mark.parametrize("logits", ["full", "head"])
def test_kept_logits_are_those_of_the_teachers_head(tiny, logits):
    game = tiny.game("ddad.segkd", "game.keep_moves=1", f"game.logits={logits}")
    game.play(0)
    for images, kept in zip(game.bank.images, game.bank.logits, strict=True):
        assert kept.shape == (2, 11, 8, 16)
        with torch.no_grad():
            torch.testing.assert_close(game.teacher(images, at_head=True), kept, rtol=1e-4, atol=1e-4)


def student_view(game, step=1, move=1):
    """The view of one student move."""
    views, loss = [], game.method.loss
    game.method.loss = lambda player, view, step: views.append(view) or loss(player, view, step)
    game.moves["student"](step, move)
    return views[0]


@pytest.mark.parametrize("case", ["ddad.segkd", "ddad.segkd+SegNet"])
def test_drawn_logits_are_the_teachers_at_the_size_of_the_images(tiny, case):
    """Mirrored ones among them, for a student without a head of the teacher's stride too."""
    game = tiny.game(case, "run.batch=8", "synth.augment=[flip]")
    assert game.student.network.head_stride == (1 if "SegNet" in case else 4)
    game.play(0)
    drawn = student_view(game)
    assert drawn.t.shape == drawn.s.shape == (8, 11, 32, 64)
    kept = torch.cat(game.bank.images)
    mirrored = [not any(torch.equal(x, image) for image in kept) for x in drawn.x]
    assert any(mirrored) and not all(mirrored)
    with torch.no_grad():
        for x, t, flipped in zip(drawn.x, drawn.t, mirrored, strict=True):
            wanted = game.teacher((x.flip(-1) if flipped else x)[None])[0]
            torch.testing.assert_close(wanted.flip(-1) if flipped else wanted, t, rtol=1e-4, atol=1e-4)


def test_logits_of_padded_images_are_kept_whole(tiny):
    game = tiny.game("ddad.segkd", "synth.size=[40, 64]")
    game.play(0)
    assert game.bank.logits[0].shape == (2, 11, 40, 64)
    assert student_view(game).t.shape == (2, 11, 40, 64)


def test_a_head_of_another_stride_is_no_student_for_logits_at_the_head(tiny):
    with pytest.raises(RecipeError, match="teacher's head is at stride 4 and the student's at 1; set game.logits=full"):
        tiny.game("ddad.segkd+SegNet", "game.logits=head")


def latents(tiny, *overrides, steps=2):
    game = tiny.game("ddad.paper", *overrides)
    with tiny.calls(game.source.network) as made:
        for step in range(steps):
            game.play(step)
    return made


def test_every_move_of_every_step_and_seed_has_its_own_latents(tiny):
    drawn = [*latents(tiny), *latents(tiny, "run.seed=1")]
    assert len(drawn) == 12 and all(z.shape == (2, 8) for z in drawn)
    assert len({tiny.hash(z) for z in drawn}) == 12


def test_latents_do_not_depend_on_the_steps_before(tiny):
    game = tiny.game("ddad.paper")
    with tiny.calls(game.source.network) as made:
        game.play(1)
    assert all(torch.equal(a, b) for a, b in zip(made, latents(tiny)[3:], strict=True))


def batchnorms(network):
    return [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]


@pytest.mark.parametrize("kept", [True, False])
def test_the_averaged_student_has_statistics_of_its_own(tiny, kept):
    """Those of its weights on images as the student is shown them: the mean over batches of their moments."""
    bank = [] if kept else ["synth.replay=0", "game.keep_moves=0"]
    game = tiny.game("ddad.segkd", "student.ema=0.9", *bank)
    for step in range(3):
        game.play(step)
    before = bytes_of(tiny, game)
    found = game.monitor.measured("ema")
    assert game.monitor.measured("ema") is found and bytes_of(tiny, game) == before
    average = game.student.ema_or_live
    for (key, a), (_, b) in zip(average.named_parameters(), found.named_parameters(), strict=True):
        assert torch.equal(a, b), key
    inputs: list[list[torch.Tensor]] = [[] for _ in batchnorms(found)]
    hooks = [
        layer.register_forward_hook(lambda _, given, __, seen=seen: seen.append(given[0].detach().double()))
        for layer, seen in zip(batchnorms(found), inputs, strict=True)
    ]
    shown = set()
    with torch.no_grad():
        state = copy.deepcopy(found.state_dict())
        for images in game.monitor.familiar():
            shown.add(tiny.hash({"x": images}))
            found.train()(images)
        found.load_state_dict(state)
    assert len(shown) == FEWEST
    for hook in hooks:
        hook.remove()
    for layer, seen in zip(batchnorms(found), inputs, strict=True):
        means = torch.stack([x.mean((0, 2, 3)) for x in seen]).mean(0)
        variances = torch.stack([x.var((0, 2, 3), correction=1) for x in seen]).mean(0)
        torch.testing.assert_close(layer.running_mean.double(), means, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(layer.running_var.double(), variances, rtol=1e-3, atol=1e-4)
    assert any(
        not torch.allclose(a.running_mean, b.running_mean)
        for a, b in zip(batchnorms(average), batchnorms(found), strict=True)
    )


def test_what_is_measured_follows_the_student(tiny):
    game = tiny.game("ddad.segkd", "student.ema=0.9")
    game.play(0)
    state, first = copy.deepcopy(game.state()), game.monitor.measured("ema")
    game.play(1)
    second = game.monitor.measured("ema")
    assert tiny.hash(first) != tiny.hash(second)
    game.restore(state)
    assert tiny.hash(game.monitor.measured("ema")) == tiny.hash(first)
    assert game.monitor.measured("last") is game.student.network


def test_held_out_images_are_nobody_elses(tiny):
    game = tiny.game("ddad.paper")
    first = [tiny.hash(x) for x in game.monitor.held_out(2)]
    assert len(set(first)) == 2 and first == [tiny.hash(x) for x in game.monitor.held_out(2)]
    with tiny.calls(game.source.network) as made:
        game.play(0)
        used = {tiny.hash(z) for z in made}
        made.clear()
        list(game.monitor.held_out(2))
    assert not used & {tiny.hash(z) for z in made}


def test_of_images_that_are_pixels_one_batch_is_held_out_as_it_would_be_kept(tiny):
    game = tiny.game("deepinversion", "options.updates=2")
    [seen], raw = game.monitor.held_out(3), game.source.draw(2, (32, 64), Move(game.seed, -3, 0)).images
    assert seen.shape == raw.shape and not torch.equal(seen, raw)


def test_a_class_is_shown_from_a_thousandth_of_the_pixels_on(tiny, monkeypatch):
    game, teach = tiny.game("ddad.paper"), Networks.teacher_outputs

    def sparse(networks, images, *given, **named):
        seen = teach(networks, images, *given, **named)
        t = torch.zeros_like(seen["t"])
        t[:, 0], t[0, 1, 0, :6], t[0, 2, 1, :4] = 1.0, 2.0, 2.0
        return seen | {"t": t}

    monkeypatch.setattr(Networks, "teacher_outputs", sparse)
    assert game.monitor.shown(game.student.network)["classes_shown"] == pytest.approx(2 / 11)


def test_what_agreed_best_stays_so():
    with pytest.raises(FrozenInstanceError):
        Best(0.5, 1, 0, {}).step = 2


def test_logits_at_the_head_are_smaller_and_reach_the_bank(tiny):
    game = tiny.game("ddad.segkd", "game.logits=head")
    values = game.play(0)
    assert math.isfinite(values["kd"]) and game.bank.logits[0].shape == (2, 11, 8, 16)
    with pytest.raises(RecipeError, match=r"\[40, 64\] must be a multiple of 16 .* such as \[48, 64\]"):
        tiny.game("ddad.segkd", "game.logits=head", "synth.size=[40, 64]")


def test_the_adversary_rises_over_the_first_part_of_the_run(tiny):
    method = tiny.game("ddad.segkd", "options.ramp=0.5", "run.steps=8", "weights.adv=0.4").method
    assert [method.weight("adv", step) for step in range(8)] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4, 0.4, 0.4, 0.4])
    assert method.weight("bn", 0) == method.chosen["bn"]


@pytest.mark.parametrize(
    ("case", "overrides", "message"),
    [
        (
            "ddad.segkd",
            ["synth.kind=noise", "synth.replay=0", "game.keep_moves=0"],
            "synth.kind: noise cannot learn, and ddad needs a generator",
        ),
        ("dfad", ["synth.kind=images", "data.name=camvid"], "synth.kind: images cannot learn"),
        ("ddad.segkd", ["synth.kind=pictures"], "synth.kind: pictures cannot learn, and ddad needs a generator"),
        ("noise", ["synth.kind=pictures", "synth.pictures=[rooms, rooms]"], "synth.pictures: each kind once"),
        ("noise", ["synth.pictures=[]"], "synth.pictures: name one kind or more"),
        ("noise", ["synth.pictures=[street]"], "synth.pictures.0.: unknown value .street., did you mean 'streets'"),
        ("kd", ["weights.kd=0"], "no student term of kd has weight; set weights.kd=1"),
        (
            "ddad.segkd",
            ["weights.bn=0", "weights.balance=0", "synth.refine=2"],
            "none of its terms has weight; set one of weights.bn, balance, one_hot, tv; or ",
        ),
        ("ddad.segkd", ["game.keep_moves=0", "synth.refine=2"], "synth.refine: .*nothing is kept; set game.keep_moves"),
        (
            "dfad",
            ["game.keep_moves=1", "synth.replay=2", "synth.refine=2"],
            "synth.refine: .*dfad has no term for it",
        ),
        ("noise", ["game.keep_moves=1"], "game.keep_moves: there is no bank"),
        ("noise", ["synth.replay_uint8=true"], "synth.replay_uint8: there is no bank"),
        ("noise", ["synth.class_balance=1"], "synth.class_balance: there is no bank"),
    ],
)
def test_recipes_that_cannot_be_played_are_one_line(tiny, case, overrides, message):
    with pytest.raises(RecipeError, match=message) as caught:
        tiny.game(case, *overrides)
    assert len(caught.value.errors) == 1


def test_a_view_shows_what_there_is_and_remembers_what_was_looked_at():
    view = View({"x": torch.ones(1)}, lambda images: images + 1, lambda images: images + 2)
    assert not view.touched
    assert (view.x, view.teacher(view.x), view.student(view.x)) == (1, 2, 3) and view.touched == {"x", "teacher"}
    with pytest.raises(AttributeError, match=r"v\.statistics, which this move does not make"):
        _ = view.statistics
    with pytest.raises(
        UsageError, match=r"v\.labels, and the source draws no maps of classes; set synth\.kind=conditional"
    ):
        _ = view.labels
    with pytest.raises(AttributeError, match=r"v\.logits: a term may look at z, x, labels, t"):
        _ = view.logits


def test_a_student_term_may_not_look_at_latents_that_no_bank_keeps(tiny, monkeypatch) -> None:
    kd = DDAD.kd
    monkeypatch.setattr(DDAD, "kd", lambda method, view: kd(method, view) + 0 * view.z.mean())
    assert math.isfinite(tiny.game("ddad.paper").play(0)["kd"])
    with pytest.raises(
        UsageError, match="DDAD: a student term looks at v.z, which a bank does not keep; set synth.replay=0"
    ):
        tiny.game("ddad.segkd")


def test_a_full_bank_gives_many_images_for_statistics(tiny) -> None:
    """The statistics of few images are rough: 48 of them cost a quickstart's student half a point of mIoU."""
    game = tiny.game("ddad.segkd", "synth.replay=40", "run.batch=8")
    batch = Batch(torch.zeros(8, 3, 32, 64)), torch.zeros(8, 11, 8, 16)
    seen = {}
    for held in range(1, 41):
        game.bank.keep(*batch)
        seen[held] = sum(len(images) for images in game.monitor.familiar())
    assert (seen[1], seen[8], seen[20], seen[32], seen[40]) == (64, 64, 160, 256, 256)
