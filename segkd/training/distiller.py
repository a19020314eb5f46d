"""The game of distillation: a student and a source of images take turns in front of a frozen teacher.

A step is a list of moves, in the order that the method gives (`Method.moves`):

- `source`: the source (a generator, say) is trained on the method's terms for it. What it made goes into the image bank.
- `keep`: images are drawn for the bank alone, and refined on the method's `pixels` terms where the recipe says so.
- `student`: the student is trained on images of the bank, or, as long as that is empty or where there is none, on fresh ones.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from operator import itemgetter

import torch
from torch import Tensor, nn

from segkd.foundation.errors import UsageError
from segkd.foundation.rng import seed_of_attempt
from segkd.machine import ranks
from segkd.machine.sides import side_by_side
from segkd.machine.snapshot import Snapshot
from segkd.methods.base import Method
from segkd.models.taps import untouched_statistics
from segkd.players.player import Player, frozen
from segkd.players.refusals import Refusals, Verdict
from segkd.synthesis.bank import Replay
from segkd.synthesis.source import TRIAL, Move, Sampling, Source
from segkd.training.monitor import Best, Monitor
from segkd.training.networks import Networks, TermsJudge, Traced, finite, weighted_loss
from segkd.training.signals import Interrupted


class Distiller:
    """Plays the method's moves; see `training.game.Game`. It knows no term by name: each term is traced once, when this is made.

    Args:
        networks: teacher and student as terms see them; `student` moves that student.
        source: where images come from; it learns where it has a player.
        bank: images kept with the teacher's logits, at the resolution of its head where it can: a sixteenth of the memory
            at stride 4. None: each move of the student draws images of its own.

    Attributes:
        moves: the function that plays each kind of move; it takes the step and the move's index in it, and returns the
            values of the terms.
        needs: the fields of a View that the terms of `student`, `source` and `pixels` look at, by group.
    """

    def __init__(
        self, method: Method, networks: Networks, student: Player, source: Source, *,
        bank: Replay | None, sampling: Sampling, refusals: Refusals,
    ) -> None:  # fmt: skip
        self.method, self.networks, self.student, self.source, self.bank = method, networks, student, source, bank
        self.teacher, self.sampling, self.refusals = networks.teacher, sampling, refusals
        self.device = networks.student.device
        networks.averaged = student.average.module if student.average is not None else None
        self.attempt = 0
        # Of an overlapped step: the student as it was before it, the batches drawn for its threads, and what is put off.
        self._student_copy: nn.Module | None = None
        self._prepared: dict[int, dict[str, object]] = {}
        self._deferred: list[tuple[int, Callable[[], object]]] | None = None
        # Of a step that a signal has cut short: how many of its moves are done, and the values of their terms.
        self._unfinished: tuple[int, dict[str, float | Tensor]] | None = None
        self.monitor = Monitor(networks, student, source, bank, sampling, self._judge_of_kept)
        self.on_progress: Callable[[float], None] = lambda share: None
        self.stopping: Callable[[], bool] = lambda: False
        self.moves = {"student": self._student_move, "source": self._source_move, "keep": self._keep_move}
        traced = self._traced()
        self.needs = {group: found.looked_at for group, found in traced.items()}
        if bank is not None and "z" in self.needs["student"]:
            raise UsageError(
                f"{type(method).__name__}: a student term looks at v.z, which a bank does not keep; set synth.replay=0"
            )
        self._assign_parameters(traced)

    @property
    def precision(self) -> str:
        return self.networks.precision

    @property
    def seed(self) -> int:
        """That of the present attempt: a run that was rolled back goes on with other random numbers."""
        return seed_of_attempt(self.sampling.seed, self.attempt)

    @property
    def notes(self) -> list[str]:
        return self.refusals.notes

    def play(self, step: int) -> dict[str, float | Tensor]:
        """One step, or what is left of it: the method's moves in order.

        Returns the last value of each term; on a GPU, whoever reads one waits for it.

        Raises:
            Interrupted: a signal came; the moves before stay, and the state tells how many they are.
        """
        moves = list(enumerate(self.method.moves(step)))
        # not before there is anything in the bank, nor after a signal has cut the step short
        together = self.method.rules.overlap and self.bank and self._unfinished is None
        values = self._side_by_side(step, moves) if together else self._in_turn(step, moves, self.on_progress)
        self.refusals.end_step()
        return values | {"lr": self.student.optimizer.param_groups[0]["lr"]}

    def vitals(self) -> tuple[dict[str, float], str | None]:
        """See `Monitor.vitals`."""
        return self.monitor.vitals()

    def move(self, step: int, index: int) -> Move:
        """The move of this index in a step; its random numbers are a function of it."""
        return Move(self.seed, step, index, step / self.method.rules.steps)

    def _source_move(self, step: int, index: int) -> dict[str, Tensor]:
        """The source learns. The student only looks on, in the mode in which it will learn from such images."""
        judge = self.judge("source", step, index)
        with frozen(judge.student), untouched_statistics(judge.student), self.undone_if_interrupted():
            made = self.source.improve(self.sampling.batch, self.sampling.size(step), judge)
        if made is not None and self.bank is not None:  # None where only refined images are kept (`synthesis.pixels`)
            logits, refused = judge.logits, judge.refused
            self._defer(index, lambda: self.bank.keep(made, logits, unless=refused))
        return judge.values

    def _keep_move(self, step: int, index: int) -> dict[str, Tensor]:
        """More images for the bank; the judge is for sources that refine what they draw."""
        before, judge = Snapshot([self.method]), self.judge("pixels", step, index)
        try:
            with untouched_statistics(judge.student):
                made = self.source.draw(self.sampling.batch, self.sampling.size(step), judge.move, judge)
        except Interrupted:
            before.put_back()
            raise
        logits = self.networks.teacher_outputs(made.images, set(), first=True)["stored"]
        sound = finite(images=made.images, logits=logits)
        if judge.refused is not None:
            sound["judges"] = ~judge.refused
        refused = ranks.anywhere(~torch.stack([*sound.values()]).all())
        before.put_back(refused)
        verdict = Verdict(refused, lambda: "what another process made is not finite")
        self._record(step, index, "keep", verdict.explained(judge.values, sound))
        self._defer(index, lambda: self.bank.keep(made, logits, unless=refused))
        return {}

    def _student_move(self, step: int, index: int) -> dict[str, Tensor]:
        """One update of the student towards the teacher."""
        self.student.network.train()
        batch = self._prepared.get(index)
        if batch is None:
            batch = self.student_batch(step, index)
            self.move(step, index).begin(ranks.stream("student"))  # dropout's numbers; a student in a thread draws none
        buffers = Snapshot([self.student.network, self.method])
        outputs = self.networks.student_outputs(batch["x"], self.needs["student"], first=True)
        loss, values = weighted_loss(self.method, "student", self.networks.view({**batch, **outputs}), step)
        verdict = self.student.update(loss, step, buffers)
        self._record(step, index, "student", verdict.explained(values))
        return values

    def student_batch(self, step: int, index: int) -> dict[str, object]:
        """Images for a move of the student, of the bank or made for it, with the teacher's outputs on them."""
        needs, move = self.needs["student"], self.move(step, index)
        if not self.bank:  # there is none, or nothing is in it yet
            batch = self.source.draw(self.sampling.batch, self.sampling.size(step), move)
            return {**batch.named(), **self.networks.teacher_outputs(batch.images, needs, first=True)}
        move.begin(ranks.stream("replay"))
        batch, stored = self.bank.draw(ranks.local_batch(self.sampling.batch))
        if needs & {"t_features", "statistics"}:
            return {**batch.named(), **self.networks.teacher_outputs(batch.images, needs)}
        return {**batch.named(), "t": self.networks.compared(stored)}

    def judge(self, group: str, step: int, index: int) -> TermsJudge:
        """The method's terms of a group (`source` or `pixels`) as the loss of a move's images.

        Only the source's updates are recorded here: refused updates of refined images count once, as the move that keeps them.
        """
        return TermsJudge(
            self.networks, self.method, group, self.needs[group], self.move(step, index), self._student_seen.train(),
            partial(self._record, step, index) if group == "source" else None, self._ends_here,
        )  # fmt: skip

    def _judge_of_kept(self, move: Move) -> TermsJudge:
        """As for `keep`, but of images that are only looked at."""
        return TermsJudge(
            self.networks, self.method, "pixels", self.needs["pixels"], move, self.student.network.train()
        )

    def _record(self, step: int, index: int, player: str, verdict: Verdict) -> None:
        self._defer(index, lambda: self.refusals.record(player, step, verdict))

    def _in_turn(
        self, step: int, moves: Sequence[tuple[int, str]], on_progress: Callable[[float], None] = lambda share: None
    ) -> dict[str, float | Tensor]:
        """Moves one after the other, from where a signal cut the step short, if one did."""
        (begun, values), self._unfinished = self._unfinished or (0, {}), None
        for done, (index, move) in list(enumerate(moves))[begun:]:
            try:
                if done > begun and self._ends_here():
                    raise Interrupted
                values = values | self.moves[move](step, index)
            except Interrupted:
                self._unfinished = index, values
                raise
            on_progress((done + 1) / len(moves))
        return values

    def _ends_here(self) -> bool:
        """Whether a signal ends the step between two updates. Not within an overlapped step, which cannot go on halfway."""
        return self._deferred is None and self.stopping()

    def _side_by_side(self, step: int, moves: Sequence[tuple[int, str]]) -> dict[str, float | Tensor]:
        """The student learns from what the bank held before the step, while the others make what comes into it.

        In threads where that changes no number: all that is drawn for the student is drawn before, since torch has one
        generator of random numbers, and the others look at a copy of the student as it was. What the moves leave behind
        is done after them all, in their order.
        """
        making = [move for move in moves if move[1] != "student"]
        learning = [move for move in moves if move[1] == "student"]
        self._deferred = deferred = []
        try:
            if self.in_threads:
                self._prepared = {index: self.student_batch(step, index) for index, _ in learning}
                self._student_copy = self._student_copy or copy.deepcopy(self.student.network)
                self._student_copy.load_state_dict(self.student.network.state_dict())
                self._student_copy.in_fp32 = self.student.network.in_fp32
                made, taught = side_by_side(
                    lambda: self._in_turn(step, making), lambda: self._in_turn(step, learning, self.on_progress)
                )
            else:
                made, taught = self._in_turn(step, making), self._in_turn(step, learning, self.on_progress)
        finally:
            self._deferred, self._prepared = None, {}
        for _, action in sorted(deferred, key=itemgetter(0)):
            action()
        return made | taught

    @property
    def in_threads(self) -> bool:
        """Whether the two sides of an overlapped step run at once; else they take turns, to the same images."""
        alone = self.device.type == "cpu" and ranks.size() == 1 and torch.get_num_threads() > 1
        # The sides may share nothing that one of them changes: random numbers, taps on the teacher, the method's buffers,
        # the average.
        shared = self.networks.student_draws or self.networks.passes.checkpointing or "teacher" in self.needs["student"]
        shared = shared or bool(self.method.state_dict()) or any("average" in needs for needs in self.needs.values())
        return self.method.rules.overlap and alone and not shared

    @property
    def _student_seen(self) -> nn.Module:
        """The student as the source sees it: where that learns in a thread beside, a copy of it as it was before the step."""
        return self._student_copy if self._prepared else self.student.network

    def _defer(self, index: int, action: Callable[[], object]) -> None:
        """Do it now; in an overlapped step, after all of its moves."""
        if self._deferred is None:
            action()
        else:
            self._deferred.append((index, action))

    @contextmanager
    def undone_if_interrupted(self) -> Iterator[None]:
        """A block of which nothing stays where a signal comes between its updates."""
        if self.source.updates == 1:  # no signal can come in between
            yield
            return
        before = copy.deepcopy([part.state() for part in (self.source, self.refusals)])
        method, notes = copy.deepcopy(self.method.state_dict()), len(self.notes)
        try:
            yield
        except Interrupted:
            self.source.restore(before[0])
            self.refusals.restore(before[1])
            self.method.load_state_dict(method)
            del self.notes[notes:]
            raise

    def _traced(self) -> dict[str, Traced]:
        """What the terms of each group look at and learn with, see `Networks.traced`."""
        batch = self.source.draw(2, self.sampling.size(0), Move(self.seed, TRIAL, 0))
        return self.networks.traced(self.method, batch)

    def _assign_parameters(self, traced: dict[str, Traced]) -> None:
        """Give each parameter of the method to the player whose terms use it.

        Raises:
            UsageError: nobody's use it, or those of both players: nothing would teach it, or two would.
        """
        players = {"student": self.student, "source": self.source.player}
        for name, parameter in self.method.named_parameters():
            users = [player for player in players if any(parameter is used for used in traced[player].parameters)]
            if parameter.requires_grad and len(users) != 1:
                who = "terms of both players use" if users else "no term with weight uses"
                raise UsageError(
                    f"{type(self.method).__name__}: {who} its parameter {name}; give it to one player's terms, or register a buffer"
                )
        for player, owner in players.items():
            if traced[player].parameters and owner is None:
                raise UsageError(
                    f"{type(self.method).__name__}: a term of the source uses a parameter, and the source has no player to move it"
                )
            if traced[player].parameters:
                owner.add_parameters(traced[player].parameters)

    def state(self) -> dict:
        """All that resuming needs. Raises NumbersError where too many updates were refused."""
        student = self.student.state()
        if self.student.average is not None:
            # BatchNorm's statistics of the averaged student are made anew of the bank's images (see `Monitor.measured`):
            # whoever measures a checkpoint has no bank, and takes these.
            student["statistics"] = dict(self.monitor.measured("ema").named_buffers())
        state = {
            "student": student,
            "method": self.method.state_dict(),
            "refusals": self.refusals.state(),
            "attempt": self.attempt,
        }
        if self._unfinished is not None:
            moves, values = self._unfinished
            state["begun"] = {"moves": moves, "values": {name: float(value) for name, value in values.items()}}
        if source := self.source.state():
            state["source"] = source
        if self.monitor.best is not None:
            state["best"] = vars(self.monitor.best)
        if self.bank is not None:
            state["replay"] = self.bank.state()
        return state

    def restore(self, state: dict) -> None:
        self.student.restore(state["student"])
        self.method.load_state_dict(state["method"])
        self.refusals.restore(state["refusals"])
        self.attempt = state["attempt"]
        self.monitor.best = Best(**state["best"]) if "best" in state else None
        begun = state.get("begun")
        self._unfinished = None if begun is None else (begun["moves"], begun["values"])
        self.source.restore(state.get("source", state.get("synth", {})))  # `synth`: as it was called
        if self.bank is not None:
            self.bank.restore(state["replay"], self.device)
