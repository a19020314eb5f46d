"""Evaluation without labels during training: held-out synthetic images, the student's weights as they are measured, and health."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from segkd.evaluation.agreement import agreement
from segkd.evaluation.collapse import ASTRAY, class_shares, collapsed, distance, diversity
from segkd.losses.statistics import layer_distances
from segkd.machine import ranks
from segkd.machine.snapshot import Snapshot
from segkd.models.taps import untouched_statistics
from segkd.players.player import Player
from segkd.synthesis.bank import Replay
from segkd.synthesis.source import HELD_OUT, SHOWN, Move, Sampling, Source
from segkd.training.networks import Networks, TermsJudge

STATISTICS = 256
"""Images of a bank of which the averaged student's BatchNorm statistics are made, if it holds so many."""
FEWEST = 8
"""The least number of such batches; the very number where there is no bank, and each would have to be made for it."""
LEAST_SHARE = 1e-3
"""The least share of a batch's pixels for a class to count as shown."""


@dataclass(frozen=True)
class Best:
    """The student, averaged unless the live one is the result, that has agreed best with the teacher so far.

    Attributes:
        agreement: on images as the student is shown them, see `Monitor.shown`.
        step: steps finished then; `since`: looks since then.
        network: its weights, on the CPU.
        last: steps finished at the last look; None in a checkpoint of an older version.
    """

    agreement: float
    step: int
    since: int
    network: dict[str, Tensor]
    last: int | None = None


class Monitor:
    """Looks at a game, and changes nothing of it.

    Args:
        bank: what the student learns from, where there is one.
        judge: makes the loss on which images are refined for the bank.
    """

    def __init__(
        self, networks: Networks, student: Player, source: Source, bank: Replay | None, sampling: Sampling,
        judge: Callable[[Move], TermsJudge],
    ) -> None:  # fmt: skip
        self.judge = judge
        self.networks, self.student, self.source, self.bank, self.sampling = networks, student, source, bank, sampling
        self.teacher = networks.teacher
        self.best: Best | None = None
        # As `measured` made it, and of what; as `_as_kept` made it, where that takes long, and after which update.
        self._averaged: tuple[tuple[int, ...], nn.Module] | None = None
        self._kept: tuple[int, Tensor, bool] | None = None

    def held_out(self, batches: int) -> Iterator[Tensor]:
        """Synthetic images (N,3,H,W) that no move ever uses, the same for every attempt and every process.

        Images that are optimised from noise take long to make: of these there is one batch, refined as for the bank.
        """
        if self.source.inverts:
            yield self._as_kept()[0]
            return
        for index in range(batches):
            move = Move(self.sampling.seed, HELD_OUT, index)
            yield self.source.draw(self.sampling.batch, self.sampling.size(0), move).images

    def measured(self, headline: str) -> nn.Module:
        """The student that is measured, drawn and saved: `last` is the live one, `ema` a copy of the averaged one.

        `agreement` is the one that agreed best, once one was offered. Averaged running statistics do not fit averaged weights:
        BatchNorm's are computed anew for the copy, of images as the student is shown them, and averaged over the processes.
        """
        if headline == "agreement" and self.best is not None:
            chosen = copy.deepcopy(self.student.ema_or_live)
            chosen.load_state_dict(self.best.network)
            return chosen
        if headline == "last" or self.student.average is None:
            return ranks.with_mean_buffers(self.student.network)
        if self._averaged is None or self._averaged[0] != self._made_of():
            twin = copy.deepcopy(self.student.ema_or_live)
            device = next(twin.parameters()).device
            with self.networks.passes.autocast(device):
                update_bn(self.familiar(), twin, device)
            self._averaged = self._made_of(), ranks.with_mean_buffers(twin)
        return self._averaged[1]

    def _made_of(self) -> tuple[int, ...]:
        """The versions of the student, of the source and of the bank: what its BatchNorm statistics are made of."""
        source = self.source.player
        return self.student.version, source.version if source else 0, self.bank.version if self.bank is not None else 0

    def offer(self, agreement: float, step: int, network: nn.Module) -> None:
        """Keep a copy of a `measured` student, if none before has agreed as well.

        A look that a signal cut short is made again after the same step, and counts once.
        """
        if self.best is not None and self.best.last == step:
            return
        if self.best is None or agreement > self.best.agreement:
            state = {name: value.detach().cpu().clone() for name, value in network.state_dict().items()}
            self.best = Best(agreement, step, 0, state, step)
        else:
            self.best = replace(self.best, since=self.best.since + 1, last=step)

    def familiar(self) -> Iterator[Tensor]:
        """Batches (N,3,H,W) as the student is shown them: of the bank, or made for it."""
        if not self.bank:
            yield from self.held_out(FEWEST)
            return
        for index in range(max(FEWEST, min(math.ceil(STATISTICS / self.sampling.batch), len(self.bank)))):
            Move(self.sampling.seed, HELD_OUT, index).begin(ranks.stream("statistics"))
            batch, _ = self.bank.draw(ranks.local_batch(self.sampling.batch))
            yield batch.images

    def agreement(self, student: nn.Module, batches: int = 4) -> float:
        """Share of held-out synthetic pixels on which the teacher and a `measured` student agree."""
        return agreement(student, self.teacher, self.held_out(batches), bf16=self.networks.passes.bf16)

    def shown(self, student: nn.Module) -> dict[str, object]:
        """What a batch that no move uses tells, of images as the student is shown them: refined, where it is.

        `agreement_shown`: share of the pixels on which a `measured` student agrees with the teacher. `diversity_shown`: see
        `collapse.diversity`. `classes_shown`: share of the classes that have a thousandth of the pixels or more. `bn_shown`:
        the distance of each BatchNorm layer of the teacher, in the order of execution and in units of what it remembers,
        where a term asks for it.
        """
        images, asks = self._as_kept()
        with torch.no_grad():
            seen = self.networks.teacher_outputs(images, {"statistics"} if asks else set())
        shares = class_shares(seen["t"])
        found: dict[str, object] = {
            "agreement_shown": agreement(student, self.teacher, [images], bf16=self.networks.passes.bf16),
            "diversity_shown": diversity(images), "classes_shown": float((shares >= LEAST_SHARE).float().mean()),
        }  # fmt: skip
        if asks:
            distances = layer_distances(seen["statistics"], "scaled")
            found["bn_shown"] = [round(float(value), 4) for value in distances * len(distances)]
        return found

    def _as_kept(self) -> tuple[Tensor, bool]:
        """A batch (N,K,H,W) as it would be kept, and whether the terms for it ask for the teacher's statistics."""
        if self._kept is not None and self._kept[0] == self.student.version:
            return self._kept[1:]
        move, network = Move(self.sampling.seed, SHOWN, 0), self.student.network
        training, judge = network.training, self.judge(move)
        before = Snapshot([judge.method])
        try:
            with untouched_statistics(judge.student):
                images = self.source.draw(self.sampling.batch, self.sampling.size(0), move, judge).images
        finally:
            before.put_back()
            network.train(training)
        found = images, "statistics" in judge.needs
        if self.source.inverts:
            self._kept = self.student.version, *found
        return found

    @torch.no_grad()
    def masks(self, images: Tensor, student: nn.Module) -> tuple[Tensor, Tensor]:
        """Class ids (N,H,W) of images (N,3,H,W) by the teacher and by a `measured` student."""
        training = student.training
        with self.networks.passes.autocast(images.device):
            ids = self.teacher(images).argmax(1).cpu(), student.eval()(images).argmax(1).cpu()
        student.train(training)
        return ids

    @torch.no_grad()
    def vitals(self) -> tuple[dict[str, float], str | None]:
        """What held-out synthetic images tell of the game's health, and what is wrong, if anything.

        Images that nobody learns to make cannot collapse.
        """
        [images] = self.held_out(1)
        student = self.student.network
        training = student.training
        student.eval()
        t = self.networks.teacher_outputs(images, set())["t"]
        s = self.networks.student_outputs(images, {"s"}, student)["s"]
        student.train(training)
        shares, far = class_shares(t), distance(s, t)
        seen = {"diversity": diversity(images), "largest_class": float(shares.max()), "distance": far}
        wrong = collapsed(seen["diversity"], shares, self.teacher.names) if self.source.player is not None else None
        if wrong is None and not far <= ASTRAY:
            wrong = f"diverged: the student is {far:.3g} times further from the teacher than a constant would be"
        return seen, wrong
