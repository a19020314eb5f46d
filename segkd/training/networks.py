"""Teacher and student as the terms of a method see them, and these terms as a source asks for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from segkd.machine import ranks
from segkd.machine.graphs import Recorded
from segkd.machine.passes import Passes
from segkd.machine.snapshot import Snapshot
from segkd.methods.base import Method, OnDemand, View
from segkd.models.adapters import Adapter
from segkd.models.recorded import RecordedStatistics
from segkd.models.taps import BatchNormTap, FeatureTap, check_statistics, untouched_statistics
from segkd.models.teacher import Teacher
from segkd.players.player import Player
from segkd.players.refusals import Verdict
from segkd.synthesis.source import Batch, Move
from segkd.training.signals import Interrupted


@dataclass(frozen=True)
class Traced:
    """What the terms of one player look at in a view, and those of the method's own parameters that they use."""

    looked_at: set[str]
    parameters: list[nn.Parameter]


class Networks:
    """What a move shows to its terms: logits, features and statistics of images, in the precision of the run.

    Args:
        student: the live student; whoever moves it sets its mode.
        passes: precision and memory of both.
        at_head: logits are compared at the resolution of the heads, which both networks must share.
        keeps_heads: the teacher's logits are kept at its head's resolution, a sixteenth of the memory at stride 4.
        recording: on a GPU the first pass of a move is replayed as CUDA graphs: the same values sooner.
        statistics: recorded ones, which take the place of those that the teacher's BatchNorm layers remember.
    """

    def __init__(
        self, teacher: Teacher, student: Adapter, *, passes: Passes | None = None, at_head: bool = False,
        keeps_heads: bool = False, recording: bool = False, statistics: RecordedStatistics | None = None,
    ) -> None:  # fmt: skip
        self.teacher, self.student = teacher, student
        self.passes, self.at_head, self.keeps_heads, self.recording = (
            passes or Passes(),
            at_head,
            keeps_heads,
            recording,
        )
        self.averaged: Adapter | None = None
        """The average of the student, where there is one; whoever moves the student sets it."""
        self.student_draws = False
        """Whether the student draws random numbers, as dropout does; known once terms have been traced."""
        self.recorded = {"teacher": Recorded(teacher), "student": Recorded(student)}
        self.images_recorded = None if statistics is None else statistics.images
        self.statistics = BatchNormTap(teacher.network, None if statistics is None else statistics.layers)

    @property
    def precision(self) -> str:
        """That of the networks, in words; `tune` has set which of them are exceptions."""
        exceptions = [name for name in ("teacher", "student") if getattr(self, name).in_fp32]
        return ", ".join(["bf16", *(f"{name} in fp32" for name in exceptions)]) if self.passes.bf16 else "fp32"

    def teach(self, x: Tensor, needs: set[str], first: bool = False) -> dict[str, object]:
        """The teacher's side of a view of images (N,3,H,W), and its logits `kept` as a bank keeps them.

        Taps are open only where a term looks. `first`: it is this move's first pass, and gradients, if any, come back before
        the next move's.
        """
        with ExitStack() as taps, self.passes.autocast(x.device):
            seen: dict[str, object] = {}
            listen = nullcontext
            if "statistics" in needs:
                listen = self.statistics.open
                seen["statistics"] = taps.enter_context(listen())
            if "t_features" in needs:
                seen["t_features"] = taps.enter_context(FeatureTap(self.teacher.network, self.teacher.features).open())
            taps.enter_context(self.passes.recomputing(self.teacher.network, listen))
            if first and self.recording and not seen:
                kept = self.recorded["teacher"](x, at_head=self.keeps_heads).clone()  # for a bank, say
            else:
                kept = self.teacher(x, at_head=self.keeps_heads)
            seen["kept"] = kept
            seen["t"] = self.shown(kept)
        return seen

    def study(
        self, x: Tensor, needs: set[str], student: nn.Module | None = None, first: bool = False
    ) -> dict[str, object]:
        """The side of the student, or of a copy of it, in a view of images (N,3,H,W); `first` as for the teacher's."""
        student = student if student is not None else self.student
        if not needs & {"s", "s_features"}:
            return {}
        with ExitStack() as taps, self.passes.autocast(x.device):
            seen: dict[str, object] = {}
            if "s_features" in needs:
                seen["s_features"] = taps.enter_context(FeatureTap(student.network, student.features).open())
            taps.enter_context(self.passes.recomputing(student))
            network = self.recorded["student"] if first and self.recording and not seen else student
            seen["s"] = network(x, at_head=self.at_head)
        return seen

    def _listened(self, x: Tensor) -> object:
        """The statistics of images, at the first look. Raises TeacherError where there is nothing to compare them with."""
        if not self.statistics.recorded:
            advice = "a term with weight looks at its statistics: take its weight away, or another method"
            check_statistics(self.teacher.network, "teacher", advice)
        return self.teach(x, {"statistics"})["statistics"]

    def shown(self, kept: Tensor) -> Tensor:
        """The teacher's logits as the terms look at them."""
        return kept if self.at_head or not self.keeps_heads else self.teacher.from_head(kept)

    def view(self, values: Mapping[str, object], network: nn.Module | None = None) -> View:
        """A view of such values, through which a term may also ask for logits of other images.

        Of the teacher, of the student, or a copy, and of its average, which takes the BatchNorm statistics of the images:
        those that it keeps are an average too, and belong to no weights.
        """

        def teacher(images: Tensor) -> Tensor:
            return self.teach(images, set())["t"]

        def student(images: Tensor) -> Tensor:
            return self.study(images, {"s"}, network)["s"]

        @torch.no_grad()
        def average(images: Tensor) -> Tensor:
            was, self.averaged.in_fp32 = self.averaged.training, self.student.in_fp32
            with untouched_statistics(self.averaged.train()):
                logits = self.study(images, {"s"}, self.averaged)["s"]
            self.averaged.train(was)
            return logits

        return View(values, teacher, student, average if self.averaged is not None else None)

    @torch.no_grad()
    def traced(self, method: Method, batch: Batch) -> dict[str, Traced]:
        """What each player's terms look at and learn with, found by tracing every term with weight once on a batch.

        No network is asked for features or statistics that no term looks at: some have none.
        """
        own = [parameter for parameter in method.parameters() if parameter.requires_grad]
        with untouched_statistics(self.student.train()):
            x, drawn = batch.images, torch.get_rng_state()
            studied = self.study(x, {"s"})
            self.student_draws = not torch.equal(drawn, torch.get_rng_state())
            values = OnDemand(
                {**batch.named(), **self.teach(x, set()), **studied},
                statistics=lambda: self._listened(x),
                t_features=lambda: self.teach(x, {"t_features"})["t_features"],
                s_features=lambda: self.study(x, {"s_features"})["s_features"],
            )
            found: dict[str, Traced] = {}
            for player in ("student", "source", "pixels"):
                view, used = self.view(values), set()
                for name in method.terms(player):
                    with torch.set_grad_enabled(bool(own)):
                        value = method.value(name, view)
                    if value.requires_grad:
                        gradients = torch.autograd.grad(value, own, allow_unused=True)
                        used |= {at for at, gradient in enumerate(gradients) if gradient is not None}
                found[player] = Traced(view.touched, [own[at] for at in sorted(used)])
        return found


def finite(**kept: Tensor) -> dict[str, Tensor]:
    """Whether what is about to be kept is finite, each by name: () bool on its device."""
    return {name: torch.isfinite(value).all() for name, value in kept.items()}


class TermsJudge:
    """See `source.Judge`; the student that it shows is frozen, and moves no buffer.

    Args:
        terms: whose of the method's terms images answer to: `source` or `pixels`.
        needs: what these look at.
        student: the student as it is shown.
        record: takes note of the verdict of an update; what was judged last may then go into a bank, and must be sound also
            where no term looks at it. None for images that follow the terms by themselves: the verdict on them is the caller's.
        stopping: whether a signal has come. A move of several updates ends before the next of them.

    Attributes:
        batch: the images judged last.
        values: the last values of the terms.
        logits: the teacher's, to the images judged last, as a bank keeps them.
        refused: () bool on the device, whether any update was; None before the first.
    """

    def __init__(
        self, networks: Networks, method: Method, terms: str, needs: set[str], move: Move,
        student: nn.Module, record: Callable[[str, Verdict], None] | None = None, stopping: Callable[[], bool] = bool,
    ) -> None:  # fmt: skip
        self.networks, self.method, self.terms, self.needs, self.move = networks, method, terms, needs, move
        self.student, self.record, self.stopping = student, record, stopping
        self.values: dict[str, Tensor] = {}
        self.logits: Tensor | None = None
        self.refused: Tensor | None = None
        self.batch: Batch | None = None

    def __call__(self, batch: Batch) -> Tensor:
        """The weighted loss () of a batch; its gradient goes to the images alone."""
        first = self.batch is None
        seen = self.networks.teach(batch.images, self.needs, first)
        self.move.begin(ranks.stream("student"))
        seen |= self.networks.study(batch.images, self.needs, self.student, first)
        view = self.networks.view({**batch.named(), **seen}, self.student)
        total, values = self.method.loss(self.terms, view, self.move.step)
        self.method.check_taught(values)
        self.values = {name: value.detach() for name, value in values.items()}
        self.batch, self.logits = batch, seen["kept"]
        return total

    def update(self, player: Player, loss: Callable[[], Tensor]) -> None:
        """One update of `player` on what `loss` computes, refused where that or what may be kept is not finite.

        Raises:
            Interrupted: it is not the first of its move, and a signal has come.
        """
        if self.move.part and self.stopping():
            raise Interrupted
        before = Snapshot([player.network, self.method])
        total = loss()
        sound = finite(images=self.batch.images, logits=self.logits) if self.record else {}
        verdict = player.update(total, self.move.step, before, torch.stack([*sound.values()]).all() if sound else None)
        self.refused = verdict.refused if self.refused is None else self.refused | verdict.refused
        if self.record:
            self.record(player.name, verdict.explained(self.values, sound))
        self.move = self.move.next()
