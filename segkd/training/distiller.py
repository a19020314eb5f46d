"""The game of distillation: a student and a synthesiser take turns in front of a frozen teacher."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from operator import itemgetter

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from segkd.evaluation.agreement import agreement
from segkd.evaluation.collapse import ASTRAY, class_shares, collapsed, distance, diversity
from segkd.foundation.errors import UsageError
from segkd.foundation.rng import seed_for, seed_of_attempt
from segkd.machine import ranks
from segkd.machine.precision import wide
from segkd.machine.sides import side_by_side
from segkd.machine.snapshot import Snapshot
from segkd.methods.base import Method
from segkd.models.taps import untouched_statistics
from segkd.players.player import Player, frozen
from segkd.players.refusals import Refusals, Verdict
from segkd.synthesis.bank import Replay
from segkd.synthesis.refine import Refine
from segkd.training.networks import Networks, Traced

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
        overlap: the student's moves of a step learn from the images kept before it, so that they need not wait for the others.
    """

    def __init__(
        self, method: Method, networks: Networks, student: Player, synthesiser: nn.Module, synth: Player | None, *,
        augment: nn.Module, refine: Refine, replay: Replay | None, latent: int, sizes: Sequence[Size],
        batch: int, seed: int, device: torch.device, refusals: Refusals, overlap: bool,
    ) -> None:  # fmt: skip
        self.method, self.networks, self.student, self.synthesiser, self.synth = (
            method,
            networks,
            student,
            synthesiser,
            synth,
        )
        self.teacher = networks.teacher
        self.augment, self.refine, self.replay = augment, refine, replay
        self.latent = latent
        self.sizes, self.batch, self.first_seed, self.device = list(sizes), batch, seed, device
        self.attempt, self.refusals = 0, refusals
        self.overlap, self._onlooker = overlap, None  # a copy of the student, while the student learns
        self._lessons: dict[int, dict[str, object]] = {}
        self._left: list[tuple[int, Callable[[], object]]] | None = None
        self._averaged: nn.Module | None = None  # as `measured` made it, until the student moves on
        self.moved: Callable[[float], None] = lambda share: None
        self._moves = {"student": self._student_move, "synth": self._synth_move, "keep": self._keep_move}
        traced = self._traced()
        self.needs = {player: found.looked_at for player, found in traced.items()}
        self._let_learn(traced)

    @property
    def precision(self) -> str:
        return self.networks.precision

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
        shared = self.networks.student_draws or self.networks.checkpointing or "teacher" in self.needs["student"]
        shared = shared or bool(self.method.state_dict())
        return self.overlap and alone and not shared

    @property
    def _shown_student(self) -> nn.Module:
        """The student as the others see it: beside one that learns, a copy of it as it was before the step."""
        return self._onlooker if self._lessons else self.student.network

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
            seen = (
                self.networks.teach(x, needs)
                if needs & {"t_features", "statistics"}
                else {"t": self.networks.shown(kept)}
            )
        else:
            x = self._images(z, step, index)
            seen = self.networks.teach(x, needs, first=True)
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
        studied = self.networks.study(lesson["x"], self.needs["student"], network, first=True)
        total, values = self.method.loss("student", self.networks.view({**lesson, **studied}, network), step)
        self._averaged = None
        return self._settle("student", step, index, self.student.update(total, step, before), values)

    def _synth_move(self, step: int, index: int) -> dict[str, Tensor]:
        """The synthesiser answers to its judges; the student only looks on. What it made goes into the bank.

        Not so where kept images are refined: students learn more where no raw ones are among them.
        """
        needs = self.needs["synth"]
        student, network = self._shown_student.train(), self.synthesiser.train()
        before = Snapshot([network, self.method])
        with frozen(student), untouched_statistics(student):
            z = self._latents(step, index)
            x = self._images(z, step, index)
            seen = self.networks.teach(x, needs, first=True)
            torch.manual_seed(seed_for(self.seed, step, index, ranks.stream("student")))
            view = self.networks.view(
                {"z": z, "x": x, **seen, **self.networks.study(x, needs, student, first=True)}, student
            )
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
        kept = self.networks.teach(x, set(), first=True)["kept"]
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
            view = self.networks.view({"x": x, **self.networks.teach(x, self.needs["refine"])}, self._shown_student)
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
        torch.manual_seed(seed_for(self.seed, step, index, "latent"))
        return ranks.own(torch.randn(self.batch, self.latent)).to(self.device, non_blocking=True)

    def _images(self, z: Tensor, step: int, index: int, maker: nn.Module | None = None) -> Tensor:
        """Images (N,3,H,W), augmented, of this step's size."""
        torch.manual_seed(seed_for(self.seed, step, index, ranks.stream("synthesis")))
        maker = maker or self.synthesiser
        with self.networks.recomputing(maker), self.networks.autocast(self.device):
            x = maker(z, self.sizes[step % len(self.sizes)])
        return self.augment(wide(x), step / self.method.rules.steps).contiguous(memory_format=torch.channels_last)

    @torch.no_grad()
    def _traced(self) -> dict[str, Traced]:
        """What each player's terms look at and learn with, see `Networks.traced`."""
        torch.manual_seed(seed_for(self.seed, 0, 0, "plan"))
        maker = self.synthesiser.train()
        with untouched_statistics(maker), self.networks.autocast(self.device):
            z = torch.randn(2, self.latent, device=self.device)
            x = wide(maker(z, self.sizes[0])).contiguous(memory_format=torch.channels_last)
            return self.networks.traced(self.method, z, x)

    def _let_learn(self, traced: dict[str, Traced]) -> None:
        """Give each parameter of the method to the player whose terms use it.

        Raises:
            UsageError: nobody's use it, or those of both players: nothing would teach it, or two would.
        """
        players = {"student": self.student, "synth": self.synth}
        for name, parameter in self.method.named_parameters():
            users = [player for player in players if any(parameter is used for used in traced[player].parameters)]
            if parameter.requires_grad and len(users) != 1:
                who = "terms of both players use" if users else "no term with weight uses"
                raise UsageError(
                    f"{type(self.method).__name__}: {who} its parameter {name}; give it to one player's terms, or register a buffer"
                )
        for player, owner in players.items():
            if traced[player].parameters:
                owner.learn(traced[player].parameters)

    @torch.no_grad()
    def held_out(self, batches: int) -> Iterator[Tensor]:
        """Synthetic images (N,3,H,W) that no move ever uses, by the averaged synthesiser where there is one."""
        maker = self.synth.headline if self.synth is not None else self.synthesiser
        training = maker.training
        for index in range(batches):
            torch.manual_seed(seed_for(self.first_seed, -1, index, "held-out"))
            z = torch.randn(self.batch, self.latent).to(self.device)
            with self.networks.autocast(self.device), untouched_statistics(maker):
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
            with self.networks.autocast(self.device):
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
        return agreement(student, self.teacher, self.held_out(batches), bf16=self.networks.bf16)

    @torch.no_grad()
    def masks(self, images: Tensor, student: nn.Module) -> tuple[Tensor, Tensor]:
        """Class ids (N,H,W) of images (N,3,H,W) by the teacher and by a `measured` student."""
        training = student.training
        with self.networks.autocast(self.device):
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
        t, s = self.networks.teach(images, set())["t"], self.networks.study(images, {"s"}, student)["s"]
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
