"""The game of distillation: a student and a synthesiser take turns in front of a frozen teacher."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, nullcontext
from operator import itemgetter

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from segkd.evaluation.agreement import agreement
from segkd.evaluation.collapse import ASTRAY, class_shares, collapsed, distance, diversity
from segkd.machine import ranks
from segkd.machine.snapshot import Snapshot
from segkd.machine.precision import wide
from segkd.foundation.rng import seed_for, seed_of_attempt
from segkd.methods.base import Method, OnDemand, View
from segkd.machine.recompute import Context, recomputing
from segkd.machine.graphs import Recorded
from segkd.models.taps import BatchNormTap, FeatureTap, untouched_statistics
from segkd.models.teacher import Teacher
from segkd.synthesis.bank import Replay
from segkd.synthesis.refine import Refine
from segkd.players.refusals import Refusals, Verdict
from segkd.players.player import Player, frozen
from segkd.training.sides import side_by_side

Size = tuple[int, int]
STATISTICS = 256
"""Images of a bank of which the averaged student's BatchNorm statistics are made, if it holds so many."""
FEWEST = 8
"""Batches of which they are made at least, and where every image would have to be synthesised for it."""


def finite(**kept: Tensor) -> dict[str, Tensor]:
    """Whether what is about to be kept is finite, each by name: () bool on its device."""
    return {name: torch.isfinite(value).all() for name, value in kept.items()}


class Distiller:
    """Plays the method's moves; see `loop.Game`. It knows no term: a method's plan says what each move computes.

    Args:
        synthesiser: latents (N,latent) and a size to images; the network of `synth` where it learns.
        synth: the synthesiser as a player, None where nothing is learnt.
        augment: applied to images before the teacher sees them.
        refine: applied to augmented images before they are kept.
        sizes: sizes (H,W) drawn in turn, one a step.
        replay: keeps the teacher's logits at its head's resolution where it can, a sixteenth of the memory at stride 4.
        at_head: compare logits at the resolution of the heads, which both networks must share.
        checkpointing: the networks' activations are computed again in backward passes, block by block (arXiv:1604.06174): the
            same values in less memory.
        recording: on a GPU, what teacher and student compute in every move is replayed as CUDA graphs: the same values sooner.
        overlap: the student's moves of a step learn from the images kept before it, so that they need not wait for the others.
    """

    def __init__(
        self, method: Method, teacher: Teacher, student: Player, synthesiser: nn.Module, synth: Player | None, *,
        augment: nn.Module, refine: Refine, replay: Replay | None, latent: int, latent_per_step: bool, sizes: Sequence[Size],
        batch: int, seed: int, device: torch.device, bf16: bool, at_head: bool, refusals: Refusals,
        checkpointing: bool, recording: bool, overlap: bool,
    ) -> None:  # fmt: skip
        self.method, self.teacher, self.student, self.synthesiser, self.synth = (
            method,
            teacher,
            student,
            synthesiser,
            synth,
        )
        self.augment, self.refine, self.replay = augment, refine, replay
        self.latent, self.latent_per_step = latent, latent_per_step
        self.sizes, self.batch, self.first_seed, self.device = list(sizes), batch, seed, device
        self.attempt, self.checkpointing, self.recording = 0, checkpointing, recording
        self._recorded = {"teacher": Recorded(teacher), "student": Recorded(student.network)}
        self.bf16, self.at_head, self.refusals = bf16, at_head, refusals
        self.overlap, self._onlooker = overlap, None  # a copy of the student, while the student learns
        self._lessons: dict[int, dict[str, object]] = {}
        self._left: list[tuple[int, Callable[[], object]]] | None = None
        self._averaged: nn.Module | None = None  # as `measured` made it, until the student moves on
        # A mirrored image's padding would be on its other side.
        unpadded = all(side % teacher.stride == 0 for size in self.sizes for side in size)
        self.keeps_heads = at_head or (replay is not None and unpadded)
        self.bn_tap = BatchNormTap(teacher.network)
        self.moved: Callable[[float], None] = lambda share: None
        self._moves = {"student": self._student_move, "synth": self._synth_move, "keep": self._keep_move}
        self.needs = self._plan()

    @property
    def precision(self) -> str:
        """That of the networks, in words; `tune` has set which of them are exceptions."""
        networks = {"teacher": self.teacher, "student": self.student.network}
        others = [name for name, network in networks.items() if network.in_fp32]
        return ", ".join(["bf16", *(f"{name} in fp32" for name in others)]) if self.bf16 else "fp32"

    @property
    def seed(self) -> int:
        """That of the present attempt."""
        return seed_of_attempt(self.first_seed, self.attempt)

    @property
    def notes(self) -> list[str]:
        return self.refusals.notes

    def play(self, step: int) -> dict[str, float | Tensor]:
        """One step: the method's moves in order. Returns the last value of each term, for which a look may have to wait."""
        moves = list(enumerate(self.method.moves(step)))
        if self.overlap and self.replay is not None and len(self.replay):
            values = self._side_by_side(step, moves)
        else:
            values = self._in_turn(step, moves, self.moved)
        self.refusals.end_step()
        return values | {"lr": self.student.optimizer.param_groups[0]["lr"]}

    def _in_turn(
        self, step: int, moves: Sequence[tuple[int, str]], moved: Callable[[float], None] = lambda share: None
    ) -> dict[str, float | Tensor]:
        values: dict[str, float | Tensor] = {}
        for done, (index, move) in enumerate(moves):
            values |= self._moves[move](step, index)
            moved((done + 1) / len(moves))
        return values

    def _side_by_side(self, step: int, moves: Sequence[tuple[int, str]]) -> dict[str, float | Tensor]:
        """The student learns from what the bank held before the step, while the others make what comes into it.

        In threads where that changes no number: all that is drawn for the student is drawn before, since torch has one
        generator of random numbers, and the others look at a copy of the student as it was. What the moves leave behind
        is done after them all, in their order.
        """
        making = [move for move in moves if move[1] != "student"]
        learning = [move for move in moves if move[1] == "student"]
        self._left = left = []
        try:
            if self.in_threads:
                self._lessons = {index: self._lesson(step, index) for index, _ in learning}
                self._onlooker = self._onlooker or copy.deepcopy(self.student.network)
                self._onlooker.load_state_dict(self.student.network.state_dict())
                self._onlooker.in_fp32 = self.student.network.in_fp32
                made, taught = side_by_side(
                    lambda: self._in_turn(step, making), lambda: self._in_turn(step, learning, self.moved)
                )
            else:
                made, taught = self._in_turn(step, making), self._in_turn(step, learning, self.moved)
        finally:
            self._left, self._lessons = None, {}
        for _, action in sorted(left, key=itemgetter(0)):
            action()
        return made | taught

    @property
    def in_threads(self) -> bool:
        """Whether the two sides of an overlapped step run at once; else they take turns, to the same images."""
        alone = self.device.type == "cpu" and ranks.size() == 1 and torch.get_num_threads() > 1
        shared = self._student_draws or self.checkpointing or "teacher" in self.needs["student"]
        shared = shared or next(self.method.buffers(), None) is not None
        return self.overlap and alone and not shared

    def _leave(self, index: int, action: Callable[[], object]) -> None:
        """Do it now, or where moves overlap, after them all."""
        if self._left is None:
            action()
        else:
            self._left.append((index, action))

    @torch.no_grad()
    def _lesson(self, step: int, index: int) -> dict[str, object]:
        """Images for a move of the student, kept or made for it, with all that the teacher says to them."""
        needs = self.needs["student"]
        z = self._latents(step, index)
        if self.replay is not None and len(self.replay):
            torch.manual_seed(seed_for(self.seed, step, index, ranks.stream("replay")))
            x, kept = self.replay.draw(ranks.share(self.batch))
            seen = self._teach(x, needs) if needs & {"t_features", "statistics"} else {"t": self._shown(kept)}
        else:
            x = self._images(z, step, index)
            seen = self._teach(x, needs, self.recording)
        return {"z": z, "x": x, **seen}

    def _student_move(self, step: int, index: int) -> dict[str, Tensor]:
        """The student comes closer to the teacher on images that are kept, or made for it."""
        network, lesson = self.student.network.train(), self._lessons.get(index)
        if lesson is None:
            before = Snapshot([network, self.synthesiser, self.method])
            lesson = self._lesson(step, index)
            torch.manual_seed(seed_for(self.seed, step, index, ranks.stream("student")))
        else:
            before = Snapshot([network])
        studied = self._study(lesson["x"], self.needs["student"], network, self.recording)
        total, values = self.method.loss("student", self._view({**lesson, **studied}, network), step)
        self._averaged = None
        return self._settle("student", step, index, self.student.update(total, step, before), values)

    def _synth_move(self, step: int, index: int) -> dict[str, Tensor]:
        """The synthesiser answers to its judges; the student only looks on. What it made goes into the bank.

        Not so where kept images are refined: students learn more where no raw ones are among them.
        """
        needs = self.needs["synth"]
        student, network = (self._onlooker if self._lessons else self.student.network).train(), self.synthesiser.train()
        before = Snapshot([network, self.method])
        with frozen(student), untouched_statistics(student):
            z = self._latents(step, index)
            x = self._images(z, step, index)
            seen = self._teach(x, needs, self.recording)
            torch.manual_seed(seed_for(self.seed, step, index, ranks.stream("student")))
            view = self._view({"z": z, "x": x, **seen, **self._study(x, needs, student, self.recording)}, student)
            total, values = self.method.loss("synth", view, step)
            keeps = self.replay is not None and not self.refine.steps
            # What is to be kept must be sound also where no term looks at it.
            sound = finite(images=x, logits=seen["kept"]) if keeps else {}
            verdict = self.synth.update(total, step, before, torch.stack([*sound.values()]).all() if sound else None)
        values = self._settle("synth", step, index, verdict, values, sound)
        if keeps:
            self._leave(index, lambda: self.replay.keep(x, seen["kept"], unless=verdict.refused))
        return values

    @torch.no_grad()
    def _keep_move(self, step: int, index: int) -> dict[str, Tensor]:
        """More images for the bank, by the averaged synthesiser where there is one (arXiv:2209.10359)."""
        maker = self.synth.headline if self.synth is not None else self.synthesiser
        before = Snapshot([self.method])
        with untouched_statistics(maker):
            x = self._images(self._latents(step, index), step, index, maker.train())
        values: dict[str, Tensor] = {}
        x = self.refine(x, self._judged(step, values))
        kept = self._teach(x, set(), self.recording)["kept"]
        sound = finite(images=x, logits=kept)
        if values:
            sound["judges"] = torch.stack([*values.values()]).isfinite().all()
        refused = ranks.anywhere(~torch.stack([*sound.values()]).all())
        before.put_back(refused)
        verdict = Verdict(refused, lambda: "what another process made is not finite")
        self._settle("keep", step, index, verdict, values, sound)
        self._leave(index, lambda: self.replay.keep(x, kept, unless=refused))
        return {}

    def _judged(self, step: int, values: dict[str, Tensor]) -> Callable[[Tensor], Tensor]:
        """What images that are about to be kept answer to; the terms of the last look are put into `values`."""

        def loss(x: Tensor) -> Tensor:
            view = self._view({"x": x, **self._teach(x, self.needs["refine"])}, self.student.network)
            total, terms = self.method.loss("refine", view, step)
            values.update({name: value.detach() for name, value in terms.items()})
            return total

        return loss

    def _settle(
        self, player: str, step: int, index: int, verdict: Verdict, values: dict[str, Tensor],
        sound: dict[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:  # fmt: skip
        """Hand on a move's verdict, with words for what was not sound and for the terms; returns these without their graphs."""
        values = {name: value.detach() for name, value in values.items()}

        def why() -> str:
            unsound = [name for name, value in (sound or {}).items() if not value]
            said = f"{' and '.join(unsound)} are not finite" if unsound else verdict.why()
            bad = {name: value for name, value in values.items() if not torch.isfinite(value)} or values
            terms = ", ".join(f"term {name} is {value.item():.3g}" for name, value in bad.items())
            return f"{said} ({terms})" if terms else said

        self._leave(index, lambda: self.refusals.hear(player, step, Verdict(verdict.refused, why)))
        return values

    def _latents(self, step: int, index: int) -> Tensor:
        """(N,latent) normal numbers, a function of the place in the run alone."""
        torch.manual_seed(seed_for(self.seed, step, 0 if self.latent_per_step else index, "latent"))
        return ranks.own(torch.randn(self.batch, self.latent)).to(self.device, non_blocking=True)

    def _images(self, z: Tensor, step: int, index: int, maker: nn.Module | None = None) -> Tensor:
        """Images (N,3,H,W), augmented, of this step's size."""
        torch.manual_seed(seed_for(self.seed, step, index, ranks.stream("synthesis")))
        maker = maker or self.synthesiser
        with self._recomputing(maker), self._autocast():
            x = maker(z, self.sizes[step % len(self.sizes)])
        return self.augment(wide(x), step / self.method.rules.steps).contiguous(memory_format=torch.channels_last)

    def _teach(self, x: Tensor, needs: set[str], recording: bool = False) -> dict[str, object]:
        """The teacher's side of a view, and its logits as a bank keeps them; taps are open only where a term looks.

        `recording`: it is this move's first look, and gradients, if any, come back before the next move's.
        """
        with ExitStack() as taps, self._autocast():
            seen: dict[str, object] = {}
            listen = nullcontext
            if "statistics" in needs:
                listen = self.bn_tap.open
                seen["statistics"] = taps.enter_context(listen())
            if "t_features" in needs:
                seen["t_features"] = taps.enter_context(FeatureTap(self.teacher.network).open())
            taps.enter_context(self._recomputing(self.teacher.network, listen))
            if recording and not seen:
                kept = self._recorded["teacher"](x, at_head=self.keeps_heads).clone()  # for a bank, say
            else:
                kept = self.teacher(x, at_head=self.keeps_heads)
            seen["kept"] = kept
            seen["t"] = self._shown(seen["kept"])
        return seen

    def _shown(self, kept: Tensor) -> Tensor:
        """The teacher's logits as the terms look at them."""
        return kept if self.at_head or not self.keeps_heads else self.teacher.from_head(kept)

    def _study(self, x: Tensor, needs: set[str], student: nn.Module, recording: bool = False) -> dict[str, object]:
        """The side of the student, or of a copy of it, in a view; `recording` as for the teacher's."""
        if not needs & {"s", "s_features"}:
            return {}
        with ExitStack() as taps, self._autocast():
            seen: dict[str, object] = {}
            if "s_features" in needs:
                seen["s_features"] = taps.enter_context(FeatureTap(student.network).open())
            taps.enter_context(self._recomputing(student))
            network = self._recorded["student"] if recording and not seen else student
            seen["s"] = network(x, at_head=self.at_head)
        return seen

    def _view(self, values: dict[str, object], network: nn.Module) -> View:
        def teacher(images: Tensor) -> Tensor:
            return self._teach(images, set())["t"]

        def student(images: Tensor) -> Tensor:
            return self._study(images, {"s"}, network)["s"]

        return View(values, teacher, student)

    def _recomputing(self, network: nn.Module, again: Callable[[], Context] = nullcontext) -> Context:
        return recomputing(network, again) if self.checkpointing else nullcontext()

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)

    def _plan(self) -> dict[str, set[str]]:
        """What each player's terms look at, found by tracing every term with weight once on a batch of two.

        No network is asked for features that no term looks at: some have none.
        """
        torch.manual_seed(seed_for(self.seed, 0, 0, "plan"))
        student, maker = self.student.network.train(), self.synthesiser.train()
        with torch.no_grad(), untouched_statistics(student), untouched_statistics(maker), self._autocast():
            z = torch.randn(2, self.latent, device=self.device)
            x = wide(maker(z, self.sizes[0])).contiguous(memory_format=torch.channels_last)
            drawn = torch.get_rng_state()
            studied = self._study(x, {"s"}, student)
            self._student_draws = not torch.equal(drawn, torch.get_rng_state())  # dropout, say
            values = OnDemand(
                {"z": z, "x": x, **self._teach(x, {"statistics"}), **studied},
                t_features=lambda: self._teach(x, {"t_features"})["t_features"],
                s_features=lambda: self._study(x, {"s_features"}, student)["s_features"],
            )
            needs: dict[str, set[str]] = {}
            for player in ("student", "synth", "refine"):
                view = self._view(values, student)
                for name in self.method.terms(player):
                    getattr(self.method, name)(view)
                needs[player] = view.touched
        return needs

    @torch.no_grad()
    def held_out(self, batches: int) -> Iterator[Tensor]:
        """Synthetic images (N,3,H,W) that no move ever uses, by the averaged synthesiser where there is one."""
        maker = self.synth.headline if self.synth is not None else self.synthesiser
        training = maker.training
        for index in range(batches):
            torch.manual_seed(seed_for(self.first_seed, -1, index, "held-out"))
            z = torch.randn(self.batch, self.latent).to(self.device)
            with self._autocast(), untouched_statistics(maker):
                yield wide(maker.train()(z, self.sizes[0])).contiguous(memory_format=torch.channels_last)
        maker.train(training)

    def measured(self, headline: str) -> nn.Module:
        """The student that is measured, drawn and saved: `last` is the live one, `ema` a copy of the averaged one.

        The average of statistics is not the statistics of average weights: BatchNorm's are made anew for the copy, of images
        as the student is shown them. Of several processes each has seen images of its own.
        """
        if headline == "last" or self.student.average is None:
            return ranks.common(self.student.network)
        if self._averaged is None:
            twin = copy.deepcopy(self.student.headline)
            with self._autocast():
                update_bn(self._familiar(), twin, self.device)
            self._averaged = ranks.common(twin)
        return self._averaged

    def _familiar(self) -> Iterator[Tensor]:
        """Batches (N,3,H,W) as the student is shown them: of the bank, or made for it."""
        if self.replay is None or not len(self.replay):
            yield from self.held_out(FEWEST)
            return
        for index in range(max(FEWEST, min(math.ceil(STATISTICS / self.batch), len(self.replay)))):
            torch.manual_seed(seed_for(self.first_seed, -1, index, ranks.stream("statistics")))
            yield self.replay.draw(ranks.share(self.batch))[0]

    def agreement(self, student: nn.Module, batches: int = 4) -> float:
        """Share of held-out synthetic pixels on which the teacher and a `measured` student agree."""
        return agreement(student, self.teacher, self.held_out(batches), bf16=self.bf16)

    @torch.no_grad()
    def masks(self, images: Tensor, student: nn.Module) -> tuple[Tensor, Tensor]:
        """Class ids (N,H,W) of images (N,3,H,W) by the teacher and by a `measured` student."""
        training = student.training
        with self._autocast():
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
        t, s = self._teach(images, set())["t"], self._study(images, {"s"}, student)["s"]
        student.train(training)
        shares, far = class_shares(t), distance(s, t)
        seen = {"diversity": diversity(images), "largest_class": float(shares.max()), "distance": far}
        wrong = collapsed(seen["diversity"], shares, self.teacher.names) if self.synth is not None else None
        if wrong is None and not far <= ASTRAY:
            wrong = f"diverged: the student is {far:.3g} times further from the teacher than a constant would be"
        return seen, wrong

    def state(self) -> dict:
        student = self.student.state()
        if self.student.average is not None:
            student["statistics"] = dict(
                self.measured("ema").named_buffers()
            )  # whoever measures a checkpoint has no bank
        state = {
            "student": student,
            "method": self.method.state_dict(),
            "refusals": self.refusals.state(),
            "attempt": self.attempt,
        }
        if self.synth is not None:
            state["synth"] = self.synth.state()
        if self.replay is not None:
            state["replay"] = self.replay.state()
        return state

    def restore(self, state: dict) -> None:
        self.student.restore(state["student"])
        self.method.load_state_dict(state["method"])
        self.refusals.restore(state["refusals"])
        self.attempt, self._averaged = state["attempt"], None
        if self.synth is not None:
            self.synth.restore(state["synth"])
        if self.replay is not None:
            self.replay.restore(state["replay"], self.device)
