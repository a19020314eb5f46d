"""What terms ask of the networks, and what of a method's own learns."""

import copy
from collections.abc import Callable
from dataclasses import FrozenInstanceError

import pytest
import torch
from torch import Tensor, nn

from segkd.foundation.errors import TeacherError, UsageError
from segkd.methods.base import Rules, Term, View
from segkd.methods.ddad import DDAD
from segkd.methods.noise import Noise
from segkd.models.adapters import Adapter
from segkd.models.family import Sizes
from segkd.models.recorded import RecordedStatistics
from segkd.models.teacher import Teacher
from segkd.synthesis.source import Batch
from segkd.training.distiller import Distiller
from segkd.training.networks import Networks, Traced
from segkd.training.signals import Interrupted
from tests.methods.test_common import players

RULES = Rules(steps=4, student_moves=2)


class Learned(DDAD):
    """DDAD with a scale of the teacher's logits that a term of its own fits."""

    student = ("kd", "scaled")
    weights = DDAD.weights | {"scaled": 1.0, "outward": 0.0}
    source = (*DDAD.source, "outward")

    def __init__(self, *given: object) -> None:
        super().__init__(*given)
        self.scale = nn.Parameter(torch.ones(()))

    def scaled(self, v: View) -> Tensor:
        return (v.s - self.scale * v.t).square().mean()

    def outward(self, v: View) -> Tensor:
        return -(self.scale * v.t).mean()


def played_by(game: Distiller, method: nn.Module, networks: Networks | None = None) -> Distiller:
    """The game of another method, with the players and all else of `game`."""
    return Distiller(
        method, networks or game.networks, game.student, game.source,
        bank=game.bank, sampling=game.sampling, refusals=game.refusals,
    )  # fmt: skip


@pytest.mark.parametrize(("weights", "owner"), [({}, "student"), ({"scaled": 0.0, "outward": 1.0}, "source")])
def test_a_parameter_of_a_method_learns_with_the_player_whose_terms_use_it(tiny, weights, owner) -> None:
    game = played_by(tiny.game(), Learned(RULES, weights))
    held = {player: players(game)[player].optimizer.param_groups for player in ("student", "source")}
    assert {
        player for player, groups in held.items() for group in groups if group["params"] == [game.method.scale]
    } == {owner}
    game.play(0)
    assert game.method.scale != 1 and game.method.scale.grad is None


class Shared(Learned):
    """And an offset that a term of the source moves."""

    def __init__(self, *given: object) -> None:
        super().__init__(*given)
        self.offset = nn.Parameter(torch.ones(()))

    def outward(self, v: View) -> Tensor:
        return (v.x - self.offset).square().mean()


def test_each_of_two_parameters_learns_with_its_own_player(tiny) -> None:
    game = played_by(tiny.game(), Shared(RULES, {"outward": 1.0}))
    held = {name: player.optimizer.param_groups[-1]["params"] for name, player in players(game).items()}
    assert held["student"] == [game.method.scale] and held["source"] == [game.method.offset]


def test_a_source_that_nobody_moves_moves_no_parameter(tiny) -> None:
    with pytest.raises(
        UsageError, match="a term of the source uses a parameter, and the source has no player to move it"
    ):
        played_by(tiny.game("noise"), Learned(RULES, {"scaled": 0.0, "outward": 1.0}))


def test_a_term_for_images_from_which_no_gradient_comes_back_is_told(tiny) -> None:
    game = tiny.game()
    game.method.bn = lambda view: view.x.detach().square().mean()
    with pytest.raises(UsageError, match="no gradient comes back from term bn"):
        game.source.improve(2, (32, 64), game.judge("source", 0, 0))


@pytest.mark.parametrize("updates", [2, 3])
def test_of_a_move_that_a_signal_cuts_short_nothing_stays(tiny, updates) -> None:
    game = tiny.game()
    game.method.register_buffer("memory", torch.zeros(1))
    game.source.updates = updates
    before = tiny.hash([game.source.state(), game.refusals.state(), game.method.state_dict()])
    with pytest.raises(Interrupted), game.undone_if_interrupted():
        next(game.source.player.network.parameters()).data += 1
        game.method.memory += 1
        game.refusals.total = 7
        game.notes.append("what was undone")
        raise Interrupted
    assert (
        tiny.hash([game.source.state(), game.refusals.state(), game.method.state_dict()]) == before and not game.notes
    )


def test_a_signal_ends_a_move_between_two_updates(tiny) -> None:
    game = tiny.game()
    game.stopping = lambda: True
    judge = game.judge("source", 0, 0)
    game.source.improve(2, (32, 64), judge)
    with pytest.raises(Interrupted):
        game.source.improve(2, (32, 64), judge)


def test_a_parameter_of_a_method_is_in_the_checkpoint(tiny) -> None:
    one, other = (played_by(tiny.game(), Learned(RULES, {})) for _ in range(2))
    one.play(0)
    other.restore(copy.deepcopy(one.state()))
    for game in (one, other):
        game.play(1)
    assert tiny.hash(one.state()) == tiny.hash(other.state())


@pytest.mark.parametrize(
    ("weights", "line"),
    [
        ({"scaled": 0.0}, "Learned: no term with weight uses its parameter scale; give it to one player's terms"),
        ({"outward": 1.0}, "Learned: terms of both players use its parameter scale"),
    ],
)
def test_a_parameter_that_nobody_or_two_would_teach_is_refused(tiny, weights, line) -> None:
    with pytest.raises(UsageError, match=line):
        played_by(tiny.game(), Learned(RULES, weights))


class Scaled(Term):
    """A further student term with a parameter and a buffer."""

    options = {"power": 1.0}

    def __init__(self, *given: object) -> None:
        super().__init__(*given)
        self.scale = nn.Parameter(torch.ones(()))
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, v: View) -> Tensor:
        if torch.is_grad_enabled():
            self.seen += 1
        return (self.scale * v.s - v.t).abs().pow(self.options["power"]).mean()


def test_what_a_further_term_owns_learns_with_the_student_and_is_in_the_checkpoint(tiny) -> None:
    def made(weight: float) -> Distiller:
        method = Noise(RULES)
        method.take("scaled", Scaled({"power": 2.0}), weight)
        return played_by(tiny.game("noise"), method)

    one, other = made(1.0), made(1.0)
    assert any(group["params"] == [one.method.scaled.scale] for group in one.student.optimizer.param_groups)
    one.play(0)
    state = one.state()["method"]
    assert state["scaled.scale"] != 1 and state["scaled.seen"] >= RULES.student_moves
    other.restore(copy.deepcopy(one.state()))
    for game in (one, other):
        game.play(1)
    assert tiny.hash(one.state()) == tiny.hash(other.state())
    with pytest.raises(UsageError, match="no term with weight uses its parameter scaled.scale"):
        made(0.0)
    with pytest.raises(UsageError, match="terms.kd: Noise has a kd of its own; leave this one out"):
        Noise(RULES).take("kd", Scaled(), 1.0)


class Averaged(Noise):
    """The student follows its own average on mirrored images, too."""

    student, weights = ("kd", "mirrored"), {"kd": 1.0, "mirrored": 1.0}

    def mirrored(self, v: View) -> Tensor:
        self.seen = v.average(v.x.flip(-1))
        return (v.s.flip(-1) - self.seen).square().mean()


def test_a_term_may_ask_the_averaged_student(tiny) -> None:
    game = played_by(
        tiny.game("ddad.segkd", "game.overlap=true"), Averaged(Rules(steps=4, student_moves=1, overlap=True))
    )
    assert "average" in game.needs["student"] and not game.in_threads
    game.play(0), game.play(1)
    average = game.student.average.module
    images, before = next(iter(game.monitor.held_out(1))), tiny.hash(average)

    def drawn(network: Callable[[Tensor], Tensor]) -> Tensor:  # the student drops out
        torch.manual_seed(0)
        return network(images)

    logits = drawn(game.networks.view({}).average)
    assert not game.networks.view({}).average(images.clone().requires_grad_()).requires_grad
    assert not game.method.seen.requires_grad
    assert not torch.equal(logits, drawn(game.networks.view({}).student))
    assert tiny.hash(average) == before
    assert torch.equal(logits, drawn(copy.deepcopy(average).train()))

    study, asked = game.networks.student_outputs, []
    game.networks.student_outputs = lambda x, needs, *given: asked.append(needs) or study(x, needs, *given)
    average.eval()
    assert torch.equal(logits, drawn(game.networks.view({}).average)) and not average.training
    drawn(game.networks.view({}).student)
    assert asked == [{"s"}, {"s"}]


def test_a_parameter_that_stands_still_needs_no_player(tiny) -> None:
    method = Shared(RULES, {"scaled": 0.0, "outward": 1.0})
    method.scale.requires_grad_(False)
    game = played_by(tiny.game(), method)
    game.play(0)
    assert method.scale == 1


def test_without_an_average_no_term_may_ask_it(tiny) -> None:
    with pytest.raises(UsageError, match=r"v\.average, and the student has no average; set student\.ema=0\.99"):
        played_by(tiny.game("noise", "student.ema=0", "run.headline=last"), Averaged(RULES))


class Plain(nn.Module):
    """A network without BatchNorm, and without parts that have names."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 11, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


def test_no_teacher_is_refused_for_what_nobody_looks_at(tiny) -> None:
    """No BatchNorm, no submodules called encoder and decoder: a term that only looks at logits has all that it needs."""
    game = tiny.game("noise")
    teacher = Teacher(Plain(), [str(i) for i in range(11)], (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    networks = Networks(teacher, game.student.network)
    assert not (networks.at_head or networks.keeps_heads or networks.recording or networks.student_draws)
    study, asked = networks.student_outputs, []
    networks.student_outputs = lambda x, needs, *given, **named: (
        asked.append(set(needs)) or study(x, needs, *given, **named)
    )
    found = played_by(game, Noise(RULES, {}), networks)
    assert asked == [{"s"}]
    assert found.needs == {"student": {"t", "s"}, "source": set(), "pixels": set()}
    assert found.play(0)["kd"].isfinite()


def test_recorded_statistics_take_the_place_of_the_teachers_own(tiny) -> None:
    game = tiny.game()
    teacher, own = game.teacher, game.networks.statistics.layers
    name, layer = next(iter(own.items()))
    moments = layer.running_mean + 1, layer.running_var * 2
    given = RecordedStatistics(images=7, teacher="", layers={name: moments})
    networks = Networks(teacher, game.student.network, statistics=given)
    [seen] = networks.teacher_outputs(torch.randn(2, 3, 32, 64), {"statistics"})["statistics"]
    assert torch.equal(seen.running_mean, moments[0]) and torch.equal(seen.running_var, moments[1])
    assert networks.images_recorded == 7 and game.networks.images_recorded is None and len(own) > 1


def test_a_teacher_without_statistics_is_told_unless_some_were_recorded() -> None:
    norm = [0.5] * 3
    teacher = Teacher(nn.Sequential(nn.Conv2d(3, 4, 1)), "abcd", norm, norm, Sizes(1))
    student, batch = Adapter(nn.Conv2d(3, 4, 1), 4, sizes=Sizes(1)), Batch(torch.randn(2, 3, 8, 8))
    line = r"^teacher: the teacher has no BatchNorm layer .*; a term with weight looks at its statistics: take its weight away, or another method, or record"
    with pytest.raises(TeacherError, match=line):
        Networks(teacher, student).traced(DDAD(RULES), batch)
    given = RecordedStatistics(images=1, teacher="", layers={"0": (torch.zeros(4), torch.ones(4))})
    found = Networks(teacher, student, statistics=given).traced(DDAD(RULES), batch)
    assert "statistics" in found["source"].looked_at


def test_what_was_traced_stays_so() -> None:
    with pytest.raises(FrozenInstanceError):
        Traced(set(), []).looked_at = {"x"}


@pytest.mark.parametrize("kind", ["source", "pixels"])
def test_images_that_may_go_into_a_bank_are_refused_where_the_teacher_fails_on_them(tiny, kind) -> None:
    """Whatever the terms say of them; those that follow the terms by themselves are judged as they are kept."""
    game = tiny.game("ddad.segkd", "weights.adv=0", "synth.refine=2", "game.keep_moves=1")
    teach = game.networks.teacher_outputs

    def failing(*given: object, **named: object) -> dict[str, object]:
        seen = teach(*given, **named)
        return seen | {"stored": seen["stored"] * torch.nan}

    game.networks.teacher_outputs = failing
    judge = game.judge(kind, 0, 0)
    player = game.source.player
    judge.update(player, lambda: judge(game.source.start.generate(player.network, 2, (32, 64), judge.move)))
    assert bool(judge.refused) is (kind == "source")
    told = [note.partition(" (")[0] for note in game.notes]
    assert told == ["step 0: source logits are not finite"] * (kind == "source")
