"""The spine: for each step play; log; evaluate, save and stop when due. It knows no method and no objective."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from segkd.foundation.errors import NumbersError, Stopped
from segkd.machine import ranks
from segkd.training import resume
from segkd.training.game import Events, Game, Progress
from segkd.training.log import RunLog
from segkd.training.resume import ResumePoint
from segkd.training.rhythm import Plan, StepTimer
from segkd.training.signals import Interrupted, StopFlag

FORECAST = 2
"""Steps after which a run, or a resumed part of one, can tell what it will take: one that warms up, and one more."""


class Loop:
    """A run, or what is left of it, from a resume point on.

    Args:
        recipe: the resolved recipe, which goes into its checkpoints.

    Attributes:
        at: where it stands.
    """

    def __init__(
        self, game: Game, start: ResumePoint, plan: Plan, events: Events, log: RunLog, folder: Path, recipe: dict, stop: StopFlag
    ) -> None:  # fmt: skip
        self.game, self.at, self.events, self.log, self.folder, self.recipe, self.stop = (
            game, start, events, log, folder, recipe, stop,
        )  # fmt: skip
        self.plan = plan.as_before(start.decided)
        self._opened_before = start.opened
        self._played, self._foretold, self._pace = 0, False, StepTimer()

    def run(self) -> int:
        """Play to `plan.steps`, or until there is enough; returns the steps that are done, of which the last is saved.

        Raises:
            Stopped: a signal came; the finished steps are saved.
            NumbersError: the game went wrong, and the checkpoints hold what was good.
        """
        self._begin()
        while self.at.step < self.plan.steps and not self.events.enough():
            self._played += 1
            try:
                values = self.game.play(self.at.step)
            except Interrupted:
                self._save(self.at)  # the last finished step, and what is done of the next one
                raise Stopped(self.stop.signum) from None
            except NumbersError as error:
                self._log_notes(self.at.step + 1)
                self._roll_back(str(error))
                continue
            self.at = replace(self.at, step=self.at.step + 1, looked=False)
            self._log_step(values)
            looked = self._evaluate_and_sample()
            ends = self.at.step == self.plan.steps or self.events.enough()
            if self.plan.due(self.plan.save_every, self.at.step) or ends or self.stop():
                self._save_or_roll_back()
            if self.stop() and not (ends and looked):
                raise Stopped(self.stop.signum)
        return self.at.step

    def _begin(self) -> None:
        """Save where the run begins, and make up for the evaluation that a signal has prevented.

        A disk that takes no checkpoint fails here, not hours later. A run that is wound back to an older checkpoint leaves the
        newer ones behind: a kill or a rollback must not lead to them.
        """
        self.stop.agree()
        if self.at.step == 0 or not self.at.saved:
            self._save(self.at)
        if not self.at.looked:
            if not self._evaluate_and_sample():
                raise Stopped(self.stop.signum)  # the checkpoint still says that the evaluation is owed
            self._save_or_roll_back()
        self.game.stopping = self._stopping
        self.game.on_progress = lambda share: self.log.part(self.at.step + share)

    def _stopping(self) -> bool:
        self.stop.agree()
        return self.stop()

    def _log_step(self, values: Mapping[str, float | Tensor]) -> None:
        """All that is said and written of a finished step."""
        step, log = self.at.step, self.log
        self._log_notes(step)
        if self.plan.undecided:
            self.plan = self._pace.after_step(self.plan)
            if not self.plan.undecided:
                log.say(self.plan.words())
        if not self._foretold and self._played >= FORECAST:
            lines = self.events.forecast()
            self._foretold = bool(lines)
            for line in lines:
                log.say(line)
        self.stop.agree()
        self.events.check()
        if self.plan.due(self.plan.log_every, step):
            log.write(step, {name: float(value) for name, value in values.items()})
        log.progress(step, values)
        if self.events.progress is not None:
            try:
                self.events.progress(Progress(step, self.plan.steps, log.seconds, values))
            except Exception:
                if ranks.size() == 1:  # the others do not come to save
                    self._save_or_roll_back()
                raise

    def _log_notes(self, step: int) -> None:
        for note in self.game.notes:
            self.log.note(step, note)
        self.game.notes.clear()

    def _evaluate_and_sample(self) -> bool:
        """Evaluate and draw samples where they are due. False where a signal cut that short: it is made again on resuming."""
        step, plan, events = self.at.step, self.plan, self.events
        result: dict[str, object] | None = {}
        if events.evaluate and plan.due(plan.eval_every, step):
            try:
                result = None if self.stop() else events.evaluate(step)
            except Stopped:
                result = None  # the step itself is finished, and will be saved
            if result is None:
                return False
        if events.sample and plan.due(plan.sample_every, step):
            if self.stop():
                return False
            events.sample(step)
        self.at = replace(self.at, looked=True)
        if result:  # written once all is done: a resumed run evaluates again
            notes = result.pop("notes", [])
            self.log.write(step, result)
            for note in notes:
                self.log.note(step, note)
            scores = ", ".join(f"{name} {value:.4f}" for name, value in result.items() if isinstance(value, float))
            self.log.say(f"evaluation after step {step}: {scores}")
        return True

    def _save_or_roll_back(self) -> None:
        """Save the finished steps, or return to the last good ones. Raises NumbersError where no more rollbacks are left."""
        wrong = self._what_is_wrong()
        if wrong and self.at.well and self.plan.rollback:
            self._roll_back(wrong)
            return
        at = replace(self.at, well=self.at.well or wrong is None)
        try:
            self._save(at)
        except NumbersError as error:
            self._log_notes(self.at.step)
            self._roll_back(str(error))
            return
        self.at = at
        self._log_notes(self.at.step)

    def _what_is_wrong(self) -> str | None:
        """What `vitals` finds wrong, if anything; not told in the first half of a run that has never been healthy.

        At a save that a signal has caused nothing is logged: an uninterrupted run has none there.
        """
        step = self.at.step
        due = self.at.looked and self.plan.due(self.plan.save_every, step)
        seen, wrong = ranks.broadcast(self.game.vitals())
        said = wrong is not None and (self.at.well or 2 * step >= self.plan.steps)
        if due:
            self.log.write(step, seen | ({"wrong": wrong} if said else {}))
        if said:
            self.log.say(f"warning: step {step}: {wrong}", always=True)
        return wrong

    def _roll_back(self, why: str) -> None:
        self.at = resume.step_back(self.game, self.folder, self.plan.rollback, why)
        self.log.rewind(self.at.step, why)
        self._save(self.at)  # a run resumed from here makes the new attempt, not the old one

    def _save(self, at: ResumePoint) -> None:
        opened = self._opened_before + sum(ranks.gather(self.events.opened()))
        point = replace(at, opened=opened, decided=self.plan.decided)
        resume.save(self.game, point, self.folder, self.recipe, self.plan.keep)
