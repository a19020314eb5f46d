"""The game of distillation: a student and a source of images take turns in front of a frozen teacher."""

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
from segkd.synthesis.source import Move, Sampling, Source
from segkd.training.monitor import Best, Monitor
from segkd.training.networks import Networks, TermsJudge, Traced, finite
from segkd.training.signals import Interrupted


class Distiller:
    """Plays the method's moves; see `training.game.Game`. It knows no term: a method's plan says what each move computes.

    Args:
        source: where images come from; it learns where it has a player.
        bank: keeps the teacher's logits at its head's resolution where it can, a sixteenth of the memory at stride 4.

    Attributes:
        moves: what plays a move, by its name: of a step and the move's index in it, to the values of its terms.
        needs: what the terms of each player look at.
    """

    def __init__(
        self, method: Method, networks: Networks, student: Player, source: Source, *,
        bank: Replay | None, sampling: Sampling, refusals: Refusals,
    ) -> None:  # fmt: skip
        self.method, self.networks, self.student, self.source, self.bank = method, networks, student, source, bank
        self.teacher, self.sampling, self.refusals = networks.teacher, sampling, refusals
        self.device = next(networks.student.parameters()).device
        networks.averaged = student.average.module if student.average is not None else None
        self.attempt = 0
        self._onlooker: nn.Module | None = None  # a copy of the student, while the student learns
        self._lessons: dict[int, dict[str, object]] = {}
        self._left: list[tuple[int, Callable[[], object]]] | None = None
        # moves of a step that a signal has cut short, and what they told
        self._begun: tuple[int, dict[str, float | Tensor]] | None = None
        self.monitor = Monitor(networks, student, source, bank, sampling, self._judge_of_kept)
        self.moved: Callable[[float], None] = lambda share: None
        self.stopping: Callable[[], bool] = bool
        self.moves = {"student": self._student_move, "source": self._source_move, "keep": self._keep_move}
        traced = self._traced()
        self.needs = {player: found.looked_at for player, found in traced.items()}
        if bank is not None and "z" in self.needs["student"]:
            raise UsageError(
                f"{type(method).__name__}: a student term looks at v.z, which a bank does not keep; set synth.replay=0"
            )
        self._let_learn(traced)

    @property
    def precision(self) -> str:
        return self.networks.precision

    @property
    def seed(self) -> int:
        """That of the present attempt."""
        return seed_of_attempt(self.sampling.seed, self.attempt)

    @property
    def notes(self) -> list[str]:
        return self.refusals.notes

    def play(self, step: int) -> dict[str, float | Tensor]:
        """One step, or what is left of it: the method's moves in order.

        Returns the last value of each term, for which a look may have to wait.

        Raises:
            Interrupted: a signal came; the moves before stay, and the state tells how many they are.
        """
        moves = list(enumerate(self.method.moves(step)))
        together = self.method.rules.overlap and self.bank and self._begun is None
        values = self._side_by_side(step, moves) if together else self._in_turn(step, moves, self.moved)
        self.refusals.end_step()
        return values | {"lr": self.student.optimizer.param_groups[0]["lr"]}

    def vitals(self) -> tuple[dict[str, float], str | None]:
        """See `Monitor.vitals`."""
        return self.monitor.vitals()

    def _in_turn(
        self, step: int, moves: Sequence[tuple[int, str]], moved: Callable[[float], None] = lambda share: None
    ) -> dict[str, float | Tensor]:
        (begun, values), self._begun = self._begun or (0, {}), None
        for done, (index, move) in list(enumerate(moves))[begun:]:
            try:
                if done > begun and self._ends_here():
                    raise Interrupted
                values = values | self.moves[move](step, index)
            except Interrupted:
                self._begun = index, values
                raise
            moved((done + 1) / len(moves))
        return values

    def _ends_here(self) -> bool:
        """Whether a signal ends the step between two updates; not where moves overlap, of which none can be played again."""
        return self._left is None and self.stopping()

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
                self._lessons = {index: self.lesson(step, index) for index, _ in learning}
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
        shared = self.networks.student_draws or self.networks.passes.checkpointing or "teacher" in self.needs["student"]
        shared = shared or bool(self.method.state_dict()) or any("average" in needs for needs in self.needs.values())
        return self.method.rules.overlap and alone and not shared

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

    def move(self, step: int, index: int) -> Move:
        """The place of a move, of which its random numbers are a function."""
        return Move(self.seed, step, index, step / self.method.rules.steps)

    def lesson(self, step: int, index: int) -> dict[str, object]:
        """Images for a move of the student, kept or made for it, with all that the teacher says to them."""
        needs, move = self.needs["student"], self.move(step, index)
        if not self.bank:
            batch = self.source.draw(self.sampling.batch, self.sampling.size(step), move)
            return {**batch.named(), **self.networks.teach(batch.images, needs, first=True)}
        move.begin(ranks.stream("replay"))
        batch, kept = self.bank.draw(ranks.local_batch(self.sampling.batch))
        if needs & {"t_features", "statistics"}:
            return {**batch.named(), **self.networks.teach(batch.images, needs)}
        return {**batch.named(), "t": self.networks.shown(kept)}

    def _student_move(self, step: int, index: int) -> dict[str, Tensor]:
        """The student comes closer to the teacher on images that are kept, or made for it."""
        network, lesson = self.student.network.train(), self._lessons.get(index)
        if lesson is None:
            lesson = self.lesson(step, index)
            self.move(step, index).begin(ranks.stream("student"))
        before = Snapshot([network, self.method])
        studied = self.networks.study(lesson["x"], self.needs["student"], network, first=True)
        total, values = self.method.loss("student", self.networks.view({**lesson, **studied}, network), step)
        self.method.check_taught(values)
        verdict, values = self.student.update(total, step, before), _values(values)
        self._record(step, index, "student", verdict.explained(values))
        return values

    def _source_move(self, step: int, index: int) -> dict[str, Tensor]:
        """The source learns from its judges; the student only looks on. What it made goes into the bank, if it is worth it."""
        judge = self.judge("source", step, index)
        with frozen(judge.student), untouched_statistics(judge.student), self.undone_if_interrupted():
            made = self.source.improve(self.sampling.batch, self.sampling.size(step), judge)
        if made is not None and self.bank is not None:
            logits, refused = judge.logits, judge.refused
            self._leave(index, lambda: self.bank.keep(made, logits, unless=refused))
        return judge.values

    def _keep_move(self, step: int, index: int) -> dict[str, Tensor]:
        """More images for the bank."""
        before, judge = Snapshot([self.method]), self.judge("pixels", step, index)
        try:
            with untouched_statistics(judge.student):
                made = self.source.draw(self.sampling.batch, self.sampling.size(step), judge.move, judge)
        except Interrupted:
            before.put_back()
            raise
        logits = self.networks.teach(made.images, set(), first=True)["kept"]
        sound = finite(images=made.images, logits=logits)
        if judge.refused is not None:
            sound["judges"] = ~judge.refused
        refused = ranks.anywhere(~torch.stack([*sound.values()]).all())
        before.put_back(refused)
        verdict = Verdict(refused, lambda: "what another process made is not finite")
        self._record(step, index, "keep", verdict.explained(judge.values, sound))
        self._leave(index, lambda: self.bank.keep(made, logits, unless=refused))
        return {}

    @contextmanager
    def undone_if_interrupted(self) -> Iterator[None]:
        """A block of which nothing stays where a signal comes between its updates."""
        if self.source.updates == 1:
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

    def judge(self, terms: str, step: int, index: int) -> TermsJudge:
        """What images of a move answer to. Refused updates of single images are told with the verdict on what is kept."""
        return TermsJudge(
            self.networks, self.method, terms, self.needs[terms], self.move(step, index), self._shown_student.train(),
            partial(self._record, step, index) if terms == "source" else None, self._ends_here,
        )  # fmt: skip

    def _judge_of_kept(self, move: Move) -> TermsJudge:
        """As for `keep`, but of images that are only looked at."""
        return TermsJudge(
            self.networks, self.method, "pixels", self.needs["pixels"], move, self.student.network.train()
        )

    def _record(self, step: int, index: int, player: str, verdict: Verdict) -> None:
        self._leave(index, lambda: self.refusals.record(player, step, verdict))

    def _traced(self) -> dict[str, Traced]:
        """What each player's terms look at and learn with, see `Networks.traced`."""
        batch = self.source.draw(2, self.sampling.size(0), Move(self.seed, -2, 0))
        return self.networks.traced(self.method, batch)

    def _let_learn(self, traced: dict[str, Traced]) -> None:
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
                owner.learn(traced[player].parameters)

    def state(self) -> dict:
        student = self.student.state()
        if self.student.average is not None:
            student["statistics"] = dict(
                self.monitor.measured("ema").named_buffers()
            )  # whoever measures a checkpoint has no bank
        state = {
            "student": student,
            "method": self.method.state_dict(),
            "refusals": self.refusals.state(),
            "attempt": self.attempt,
        }
        if self._begun is not None:
            moves, values = self._begun
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
        self._begun = None if begun is None else (begun["moves"], begun["values"])
        self.source.restore(state.get("source", state.get("synth", {})))  # `synth`: as it was called
        if self.bank is not None:
            self.bank.restore(state["replay"], self.device)


def _values(terms: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same numbers, without the graphs that made them."""
    return {name: value.detach() for name, value in terms.items()}
