"""The spine: for each step play; log; look, save and stop when due. It knows no method and no objective."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from segkd.foundation.errors import NumbersError, Stopped, StorageError, UsageError, one_line
from segkd.machine import ranks
from segkd.machine.device import machine
from segkd.training import checkpoint
from segkd.training.log import RunLog
from segkd.training.rhythm import Plan, StepTimer
from segkd.training.signals import Interrupted, StopFlag


class Game(Protocol):
    """What is played: one supervised player (`teaching`) or a student against a source of images (`distiller`).

    `play` returns what is to be logged; numbers on a device are looked at only when they are. `notes` are lines about the
    step, or on an accelerator the one before, such as why a move was refused; the loop tells them and takes them away. Who
    asks for the `state` is told all (and NumbersError, if that is too much). `moved` is called where a part of a step is done, with its share of the step.
    Between the parts of a long step it asks `stopping`, and raises Interrupted where a signal has come: its state is then that
    of a step half done, with which the next `play` goes on.
    """

    precision: str
    attempt: int
    notes: list[str]
    moved: Callable[[float], None]
    stopping: Callable[[], bool]

    def play(self, step: int) -> dict[str, float | Tensor]: ...
    def vitals(self) -> tuple[dict[str, float], str | None]: ...
    def state(self) -> dict: ...
    def restore(self, state: dict) -> None: ...


@dataclass(frozen=True)
class Progress:
    """How far a run is after a step, for whoever asked to be told.

    Attributes:
        step, steps: finished steps, and how many the run has.
        seconds: what it took so far, earlier parts of a resumed run counted in.
    """

    step: int
    steps: int
    seconds: float
    _values: Mapping[str, float | Tensor]

    @property
    def values(self) -> dict[str, float]:
        """The step's losses and learning rates by name; on a GPU, whoever reads them waits for the step."""
        return {name: float(value) for name, value in self._values.items()}


@dataclass(frozen=True)
class Events:
    """What the loop calls when it is due, with the number of finished steps; `check` before anything is written.

    `opened` tells how many images this process has opened for training; `forecast` what the run will take, in lines, once
    its first `FORECAST` steps have shown it. `progress` is told each step. What `evaluate` gives is logged, and each line of its
    `notes` by itself. Where there is `enough`, the run ends before its last step.
    """

    evaluate: Callable[[int], dict[str, object]] | None = None
    sample: Callable[[int], None] | None = None
    check: Callable[[], None] = lambda: None
    opened: Callable[[], int] = lambda: 0
    forecast: Callable[[], list[str]] = list
    progress: Callable[[Progress], object] | None = None
    enough: Callable[[], bool] = bool


FORECAST = 2
"""Steps after which a run, or a resumed part of one, can tell what it will take: one that warms up, and one more."""

FREE_KEYS = ("data.", "run.dir", "run.save_every", "run.eval_every", "run.tensorboard")
"""What may change between the parts of a run: where it writes, how often it saves and looks, and what measures it."""


@dataclass(frozen=True)
class ResumePoint:
    """Where a run stands.

    `step`: finished steps; `looked`: whether the looks that were due after the last of them took place; `well`: whether
    the game was ever seen to be well; `opened`: images that the processes before this one opened for training; `decided`:
    the rhythm that its first steps have decided, see `Plan.decided`.
    """

    step: int
    looked: bool = True
    well: bool = False
    opened: int = 0
    decided: dict[str, list[float]] = field(default_factory=dict)


def resume_point(state: dict) -> ResumePoint:
    """Where a checkpoint stands; one of an older version says less."""
    step, looked, well = int(state["step"]), bool(state["looked"]), bool(state.get("well"))
    return ResumePoint(step, looked, well, int(state.get("opened", 0)), state.get("rhythm", {}))


def resume(
    game: Game, folder: Path, recipe: dict, differences: Callable[[dict, dict], list[str]], choice: str,
    accept: tuple[str, ...], say: Callable[[str], None], free: tuple[str, ...] = FREE_KEYS,
) -> ResumePoint:  # fmt: skip
    """Bring `game` to where its run folder stands.

    Args:
        recipe: the resolved recipe; one that differs from the checkpoint's in a key that matters is refused.
        differences: the dotted keys in which two resolved recipes differ.
        choice: `auto` (the newest whole checkpoint), `never`, or a checkpoint's path.
        accept: dotted keys that may differ.
        free: beginnings of keys that may differ without being accepted.

    Raises:
        UsageError: the recipe changed, or `never` in a folder that holds a run.
        StorageError: no whole checkpoint.
    """
    checkpoints = folder / "checkpoints"
    if choice == "never":
        if checkpoint.listed(checkpoints):
            raise UsageError(f"{folder}: holds a run already; name another run.dir, or resume it with --resume auto")
        return ResumePoint(0)
    if choice == "auto":
        found = checkpoint.newest(checkpoints)
        if found is None:
            return ResumePoint(0)
        state, damaged = found
        for line in damaged:
            say(f"warning: {line}; using the checkpoint before it")
    else:
        state = checkpoint.load(Path(choice))
    if absent := [key for key in ("step", "looked", "recipe", "environment", "game") if key not in state]:
        raise StorageError(f"{folder}: no checkpoint of a run of segkd ({absent[0]} is not in it)")
    different = differences(state["recipe"], recipe)
    changed = [k for k in different if not k.startswith(free) and k not in accept]
    if changed:
        flags = " ".join(f"--accept {key}" for key in changed[:3])
        raise UsageError(
            f"{folder}: the recipe changed since its checkpoint: {', '.join(changed)}; name another run.dir, or {flags}"
        )
    before, now = state["environment"].get("processes", 1), ranks.size()
    if before != now and "processes" not in accept:
        raise UsageError(
            f"{folder}: {before} processes made its checkpoint, and {now} would go on; start as many, or --accept processes"
        )
    for key, now in environment(game).items():
        before = state["environment"].get(key, now)  # a checkpoint of an older version says less
        if before != now:
            say(f"warning: {key} was {before} and is {now}: the run goes on, but not to equal bytes")
    if "run.steps" in different:
        done, long, now = state["step"], state["recipe"]["run"]["steps"], recipe["run"]["steps"]
        say(
            f"{folder}: {now} steps instead of {long}: what changes over a run (learning rates, options.ramp, synth.collage_until)"
            f" stood at {done / long:.0%} of its way after {done} steps, and goes on from {done / now:.0%}; a learning rate that"
            " had fallen rises again"
        )
    try:
        game.restore(own_part(state))
    except (KeyError, RuntimeError, ValueError) as error:
        what = one_line(f"{type(error).__name__}: {error}")
        raise UsageError(
            f"{folder}: the checkpoint does not fit what the recipe makes ({what}); name another run.dir"
        ) from error
    return resume_point(state)


def environment(game: Game) -> dict[str, object]:
    """What equal bytes depend on beside the recipe."""
    # torch.__version__ is no plain str, and a checkpoint that holds it cannot be loaded without pickle
    return {
        "torch": str(torch.__version__),
        "threads": torch.get_num_threads(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "machine": machine(),
        "precision": game.precision,
        "processes": ranks.size(),
    }


def own_part(state: dict) -> dict:
    """The game of this process in a checkpoint; a process that was not there goes on from the first one's."""
    parts = [state["game"], *state.get("others", [])]
    return parts[ranks.rank()] if ranks.rank() < len(parts) else parts[0]


def run(
    game: Game,
    start: ResumePoint,
    plan: Plan,
    events: Events,
    diary: RunLog,
    folder: Path,
    recipe: dict,
    stop: StopFlag,
) -> int:
    """Play from `start` to `plan.steps`, or until there is enough; returns the steps that are done, of which the last is saved.

    Raises:
        Stopped: a signal came; the finished steps are saved.
        NumbersError: the game went wrong, and the checkpoints hold what was good.
    """

    plan = plan.as_before(start.decided)

    def save(step: int, looked: bool, well: bool) -> None:
        opened = sum(ranks.gather(events.opened()))
        games = ranks.gather(game.state())
        if games:  # the first process writes
            place = {"step": step, "looked": looked, "well": well, "opened": start.opened + opened}
            place |= {"rhythm": plan.decided} if plan.decided else {}
            state = {**place, "recipe": recipe, "environment": environment(game), "game": games[0], "others": games[1:]}
            checkpoint.save(folder / "checkpoints", step, state, plan.keep)

    def go_back(why: str) -> tuple[int, bool]:
        stands = step_back(game, folder, plan, why)
        diary.rewind(stands.step, why)
        save(stands.step, stands.looked, stands.well)  # a run resumed from here makes the new attempt, not the old one
        return stands.step, stands.well

    def settle(done: int, well: bool, looked: bool) -> tuple[int, bool]:
        """What a step leaves behind, or the step that the run goes back to; vitals are told after looks, once."""
        wrong = watch(game, done, plan, diary, well, looked and plan.due(plan.save_every, done))
        if wrong and well and plan.rollback:
            return go_back(wrong)
        try:
            save(done, looked, well or wrong is None)
        except NumbersError as error:
            tell_notes(game, done, diary)
            return go_back(str(error))
        tell_notes(game, done, diary)
        return done, well or wrong is None

    done, well = start.step, start.well
    stop.agree()
    if done == 0:
        save(0, True, False)  # a disk that cannot take a checkpoint fails in the first second, not after the first hour
    if not start.looked:
        if not look(done, plan, events, diary, stop):
            raise Stopped(stop.signum)  # the checkpoint still says that the look is owed
        done, well = settle(done, well, looked=True)
    played, foretold, pace = 0, [], StepTimer()

    def stopping() -> bool:
        stop.agree()
        return stop()

    game.stopping = stopping
    game.moved = lambda share: diary.part(done + share)
    while done < plan.steps and not events.enough():
        played += 1
        try:
            values = game.play(done)
        except Interrupted:
            save(done, True, well)  # as it was saved last, and a part of the next step
            raise Stopped(stop.signum) from None
        except NumbersError as error:
            tell_notes(game, done + 1, diary)
            done, well = go_back(str(error))
            continue
        done += 1
        tell_notes(game, done, diary)
        if plan.undecided:
            plan = pace.after_step(plan)
            if not plan.undecided:
                diary.say(plan.words())
        if not foretold and played >= FORECAST:
            foretold = events.forecast()
            for line in foretold:
                diary.say(line)
        stop.agree()
        events.check()
        if plan.due(plan.log_every, done):
            diary.write(done, {name: float(value) for name, value in values.items()})
        diary.progress(done, values)
        if events.progress is not None:
            try:
                events.progress(Progress(done, plan.steps, diary.seconds, values))
            except Exception:
                if ranks.size() == 1:  # the others do not come to save
                    settle(done, well, looked=False)
                raise
        looked = look(done, plan, events, diary, stop)
        ends = done == plan.steps or events.enough()
        if plan.due(plan.save_every, done) or ends or stop():
            done, well = settle(done, well, looked)
        if stop() and not (ends and looked):
            raise Stopped(stop.signum)
    return done


def tell_notes(game: Game, done: int, diary: RunLog) -> None:
    """Write down what the game has to say about the step that made `done`, each line once."""
    for note in game.notes:
        diary.write(done, {"note": note})
        diary.say(f"warning: {note}", always=True)
    game.notes.clear()


def watch(game: Game, done: int, plan: Plan, diary: RunLog, well: bool, due: bool) -> str | None:
    """What is wrong with the game before it is saved, if anything; a young game that never was well may take its time.

    Off the run's rhythm (not `due`) nothing is written down: an uninterrupted run would not have looked there.
    """
    seen, wrong = ranks.broadcast(game.vitals())
    told = wrong is not None and (well or 2 * done >= plan.steps)
    if due:
        diary.write(done, seen | ({"wrong": wrong} if told else {}))
    if told:
        diary.say(f"warning: step {done}: {wrong}", always=True)
    return wrong


def step_back(game: Game, folder: Path, plan: Plan, why: str) -> ResumePoint:
    """Return to the newest checkpoint, from where the next attempt has other random numbers.

    Raises:
        NumbersError: the recipe allows no rollback, or no more of them.
    """
    attempt, found = game.attempt + 1, checkpoint.newest(folder / "checkpoints")
    if attempt > plan.rollback or found is None:
        tried = f" (rolled back {game.attempt} times already: run.rollback {plan.rollback})" if plan.rollback else ""
        raise NumbersError(f"{why}{tried}")
    game.restore(own_part(found[0]))
    game.attempt = attempt
    return resume_point(found[0])


def look(done: int, plan: Plan, events: Events, diary: RunLog, stop: StopFlag) -> bool:
    """Evaluate and sample where due after `done` steps; False when a signal came before all of it was done."""
    result: dict[str, object] | None = {}
    if events.evaluate and plan.due(plan.eval_every, done):
        try:
            result = None if stop() else events.evaluate(done)
        except Stopped:
            result = None  # the step itself is finished, and will be saved
        if result is None:
            return False
    if events.sample and plan.due(plan.sample_every, done):
        if stop():
            return False
        events.sample(done)
    if result:  # told once all is done: a resumed run looks again
        notes = result.pop("notes", [])
        diary.write(done, result)
        for note in notes:
            diary.write(done, {"note": note})
            diary.say(f"warning: {note}", always=True)
        scores = ", ".join(f"{name} {value:.4f}" for name, value in result.items() if isinstance(value, float))
        diary.say(f"evaluation after step {done}: {scores}")
    return True
