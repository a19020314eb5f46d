"""Teacher and student as the terms of a method see them, and these terms as a loss for a source of images."""

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
    """Which fields of a View the terms of a group look at, and which of the method's own parameters they use."""

    looked_at: set[str]
    parameters: list[nn.Parameter]


class Networks:
    """Forward passes of teacher and student: logits, features and statistics of images, in the precision of the run.

    Args:
        student: the live student; whoever calls sets its mode.
        passes: precision and memory of both.
        at_head: logits are compared at the resolution of the heads, which both networks must share.
        keeps_heads: a bank stores the teacher's logits at its head's resolution, a sixteenth of the memory at stride 4.
        recording: on a GPU the first pass of a move is replayed as CUDA graphs: the same values sooner.
        statistics: recorded ones, which take the place of those that the teacher's BatchNorm layers remember.
    """

    def __init__(
        self, teacher: Teacher, student: Adapter, *, passes: Passes | None = None, at_head: bool = False,
        keeps_heads: bool = False, recording: bool = False, statistics: RecordedStatistics | None = None,
    ) -> None:  # fmt: skip
        self.teacher, self.student = teacher, student
        self.passes, self.at_head, self.keeps_heads = passes or Passes(), at_head, keeps_heads
        self.recording = recording
        self.averaged: Adapter | None = None
        """The average of the student, where there is one; the distiller sets it."""
        self.student_draws = False
        """Whether the student draws random numbers, as dropout does; known once terms have been traced."""
        self.recorded = {"teacher": Recorded(teacher), "student": Recorded(student)}
        self.images_recorded = None if statistics is None else statistics.images
        self.statistics = BatchNormTap(teacher.network, None if statistics is None else statistics.layers)

    @property
    def precision(self) -> str:
        """That of the networks, in words; `runs.place.keep_in_fp32` sets which of them are exceptions."""
        exceptions = [name for name in ("teacher", "student") if getattr(self, name).in_fp32]
        return ", ".join(["bf16", *(f"{name} in fp32" for name in exceptions)]) if self.passes.bf16 else "fp32"

    def teacher_outputs(self, x: Tensor, needs: set[str], first: bool = False) -> dict[str, object]:
        """What the teacher gives to a View of images (N,K,H,W): the fields in `needs`, logits `t`, and these `stored`, for a bank.

        Hooks for features and statistics are set only where a term needs them. `first`: it is this move's first pass, which a
        CUDA graph may replay. A graph writes into the same memory each time: at most one pass of a move may be the first, and
        its gradients have to be computed before the next move.
        """
        with ExitStack() as taps, self.passes.autocast(x.device):
            seen: dict[str, object] = {}
            tap = nullcontext
            if "statistics" in needs:
                tap = self.statistics.open
                seen["statistics"] = taps.enter_context(tap())
            if "t_features" in needs:
                seen["t_features"] = taps.enter_context(FeatureTap(self.teacher.network, self.teacher.features).open())
            # a pass that is computed again for its gradients must meet the same hooks
            taps.enter_context(self.passes.recomputing(self.teacher.network, tap))
            if first and self.recording and not seen:
                # a copy, since the next replay overwrites these, and a bank may still have to store them
                stored = self.recorded["teacher"](x, at_head=self.keeps_heads).clone()
            else:
                stored = self.teacher(x, at_head=self.keeps_heads)
            seen["stored"] = stored
            seen["t"] = self.compared(stored)
        return seen

    def student_outputs(
        self, x: Tensor, needs: set[str], student: nn.Module | None = None, first: bool = False
    ) -> dict[str, object]:
        """What the student, or the copy of it that is given, adds to a View of images (N,K,H,W); `first` as for the teacher."""
        student = student if student is not None else self.student
        if not needs & {"s", "s_features"}:
            return {}
        with ExitStack() as taps, self.passes.autocast(x.device):
            seen: dict[str, object] = {}
            if "s_features" in needs:
                seen["s_features"] = taps.enter_context(FeatureTap(student.network, student.features).open())
            taps.enter_context(self.passes.recomputing(student))
            replayed = (
                first and self.recording and not seen and student is self.student
            )  # the graph has this one's weights
            seen["s"] = (self.recorded["student"] if replayed else student)(x, at_head=self.at_head)
        return seen

    def _statistics_of(self, x: Tensor) -> object:
        """The teacher's statistics of images. Raises TeacherError where it remembers none to compare them with."""
        if not self.statistics.recorded:
            advice = "a term with weight looks at its statistics: take its weight away, or another method"
            check_statistics(self.teacher.network, "teacher", advice)
        return self.teacher_outputs(x, {"statistics"})["statistics"]

    def compared(self, stored: Tensor) -> Tensor:
        """The teacher's logits as terms compare them: where they are stored at the head's resolution, maybe larger."""
        return stored if self.at_head or not self.keeps_heads else self.teacher.from_head(stored)

    def view(self, values: Mapping[str, object], network: nn.Module | None = None) -> View:
        """A View of these fields, through which a term may also ask for logits of other images.

        They are the teacher's, those of the student (or of `network`, a copy of it), and those of its average. This one
        normalises by the statistics of the images: an average of running statistics fits no weights.
        """

        def teacher(images: Tensor) -> Tensor:
            return self.teacher_outputs(images, set())["t"]

        def student(images: Tensor) -> Tensor:
            return self.student_outputs(images, {"s"}, network)["s"]

        @torch.no_grad()
        def average(images: Tensor) -> Tensor:
            was, self.averaged.in_fp32 = self.averaged.training, self.student.in_fp32
            with untouched_statistics(self.averaged.train()):
                logits = self.student_outputs(images, {"s"}, self.averaged)["s"]
            self.averaged.train(was)
            return logits

        return View(values, teacher, student, average if self.averaged is not None else None)

    @torch.no_grad()
    def traced(self, method: Method, batch: Batch) -> dict[str, Traced]:
        """What the terms of each group look at and learn with, found by computing every term with weight once on a batch.

        Features and statistics are computed at the first look: a network that has none is refused only where a term needs them.
        """
        own = [parameter for parameter in method.parameters() if parameter.requires_grad]
        with untouched_statistics(self.student.train()):
            x, drawn = batch.images, torch.get_rng_state()
            studied = self.student_outputs(x, {"s"})
            self.student_draws = not torch.equal(drawn, torch.get_rng_state())
            values = OnDemand(
                {**batch.named(), **self.teacher_outputs(x, set()), **studied},
                statistics=lambda: self._statistics_of(x),
                t_features=lambda: self.teacher_outputs(x, {"t_features"})["t_features"],
                s_features=lambda: self.student_outputs(x, {"s_features"})["s_features"],
            )
            found: dict[str, Traced] = {}
            for group in ("student", "source", "pixels"):
                view, used = self.view(values), set()
                for name in method.terms(group):
                    with torch.set_grad_enabled(bool(own)):
                        value = method.value(name, view)
                    if value.requires_grad:
                        gradients = torch.autograd.grad(value, own, allow_unused=True)
                        used |= {at for at, gradient in enumerate(gradients) if gradient is not None}
                found[group] = Traced(view.touched, [own[at] for at in sorted(used)])
        return found


def weighted_loss(method: Method, group: str, view: View, step: int) -> tuple[Tensor, dict[str, Tensor]]:
    """The weighted sum () of a group of terms, and the value of each by name, detached.

    Raises:
        UsageError: a term returns anything but a number, or one from which no gradient comes back.
    """
    loss, values = method.loss(group, view, step)
    method.check_gradients(values)
    return loss, {name: value.detach() for name, value in values.items()}


def finite(**tensors: Tensor) -> dict[str, Tensor]:
    """Whether all numbers of each are finite, by name: () bool on its device."""
    return {name: torch.isfinite(value).all() for name, value in tensors.items()}


class TermsJudge:
    """The method's terms as a loss of images: see `synthesis.source.Judge`.

    Whoever makes it keeps the student as it is meanwhile: its running statistics, and for the source its gradients.

    Args:
        group: which of the method's terms: `source` or `pixels`.
        needs: the fields of a View that these look at.
        record: called with the verdict of each update. If it is there, what was judged last may go into a bank, and has to
            be finite whatever the terms say. None while single images are refined: the move that keeps them checks them.
        stopping: whether a signal has come. A move of several updates ends before the next of them.

    Attributes:
        batch: the images judged last.
        values: the last values of the terms.
        logits: the teacher's, to the images judged last, as a bank stores them.
        refused: () bool on the device, whether any update was; None before the first.
    """

    def __init__(
        self, networks: Networks, method: Method, group: str, needs: set[str], move: Move, student: nn.Module,
        record: Callable[[str, Verdict], None] | None = None, stopping: Callable[[], bool] = lambda: False,
    ) -> None:  # fmt: skip
        self.networks, self.method, self.group, self.needs, self.move = networks, method, group, needs, move
        self.student, self.record, self.stopping = student, record, stopping
        self.values: dict[str, Tensor] = {}
        self.logits: Tensor | None = None
        self.refused: Tensor | None = None
        self.batch: Batch | None = None

    def __call__(self, batch: Batch) -> Tensor:
        """The weighted loss () of a batch, with its graph."""
        first = self.batch is None
        outputs = self.networks.teacher_outputs(batch.images, self.needs, first)
        self.move.begin(ranks.stream("student"))
        outputs |= self.networks.student_outputs(batch.images, self.needs, self.student, first)
        view = self.networks.view({**batch.named(), **outputs}, self.student)
        loss, self.values = weighted_loss(self.method, self.group, view, self.move.step)
        self.batch, self.logits = batch, outputs["stored"]
        return loss

    def update(self, player: Player, loss: Callable[[], Tensor]) -> None:
        """One update of `player` on what `loss` computes, refused where that or what may be stored is not finite.

        Raises:
            Interrupted: it is not the first of its move, and a signal has come.
        """
        if self.move.part and self.stopping():
            raise Interrupted
        buffers = Snapshot([player.network, self.method])  # before the forward pass, which writes running statistics
        value = loss()
        sound = finite(images=self.batch.images, logits=self.logits) if self.record else {}
        verdict = player.update(value, self.move.step, buffers, torch.stack([*sound.values()]).all() if sound else None)
        self.refused = verdict.refused if self.refused is None else self.refused | verdict.refused
        if self.record:
            self.record(player.name, verdict.explained(self.values, sound))
        self.move = self.move.next()
