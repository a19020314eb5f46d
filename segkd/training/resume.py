"""Where a run stands, and how a later part of it goes on from there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from segkd.foundation.errors import NumbersError, StorageError, UsageError, one_line
from segkd.machine import ranks
from segkd.machine.device import machine
from segkd.machine.memory import out_of_memory
from segkd.training import checkpoint
from segkd.training.game import Game

FREE_KEYS = ("data.", "run.dir", "run.save_every", "run.eval_every", "run.tensorboard")
"""What may change between the parts of a run: where it writes, how often it saves and evaluates, and what measures it."""


@dataclass(frozen=True)
class ResumePoint:
    """Where a run stands.

    Attributes:
        step: finished steps.
        looked: whether the evaluation and the sample that were due after the last of them were made.
        well: whether `Game.vitals` ever found nothing wrong.
        opened: images that were opened for training before this part of the run.
        decided: the rhythm that its first steps have decided, see `Plan.decided`.
        saved: whether the newest checkpoint of its folder is this one.
    """

    step: int
    looked: bool = True
    well: bool = False
    opened: int = 0
    decided: dict[str, list[float]] = field(default_factory=dict)
    saved: bool = True


def resume_point(state: dict) -> ResumePoint:
    """Where a checkpoint stands; one of an older version says less."""
    step, looked, well = int(state["step"]), bool(state["looked"]), bool(state.get("well"))
    return ResumePoint(step, looked, well, int(state.get("opened", 0)), state.get("rhythm", {}))


def save(game: Game, point: ResumePoint, folder: Path, recipe: dict, keep: int) -> None:
    """Write a checkpoint of a run, of which `keep` stay: all processes give their part, and the first one writes.

    Raises:
        NumbersError: a tensor of some process is not finite; all of them raise it, and may roll back together.
        StorageError: the folder cannot be written.
    """
    games, wrong = ranks.gather(game.state()), None
    if games:
        place = {"step": point.step, "looked": point.looked, "well": point.well, "opened": point.opened}
        place |= {"rhythm": point.decided} if point.decided else {}
        state = {**place, "recipe": recipe, "environment": environment(game), "game": games[0], "others": games[1:]}
        try:
            checkpoint.save(folder / "checkpoints", point.step, state, keep)
        except NumbersError as error:
            wrong = str(error)
    if (wrong := ranks.broadcast(wrong)) is not None:
        raise NumbersError(wrong)


def restore(
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
    state = chosen(folder, choice, say)
    if state is None:
        return ResumePoint(0)
    if absent := [key for key in ("step", "looked", "recipe", "environment", "game") if key not in state]:
        raise StorageError(f"{folder}: no checkpoint of a run of segkd ({absent[0]} is not in it)")
    different = differences(state["recipe"], recipe)
    changed = [key for key in different if not key.startswith(free) and key not in accept]
    if changed:
        flags = " ".join(f"--accept {key}" for key in changed[:3])
        raise UsageError(
            f"{folder}: the recipe changed since its checkpoint: {', '.join(changed)}; name another run.dir, or {flags}"
        )
    _compare_environments(state["environment"], environment(game), folder, accept, say)
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
        if out_of_memory(error):
            raise
        what = one_line(f"{type(error).__name__}: {error}")
        raise UsageError(
            f"{folder}: the checkpoint does not fit what the recipe makes ({what}); name another run.dir"
        ) from error
    return replace(resume_point(state), saved=choice == "auto")


def step_back(game: Game, folder: Path, rollback: int, why: str) -> ResumePoint:
    """Return to the newest checkpoint, from where the next attempt has other random numbers.

    Raises:
        NumbersError: there is none, or `rollback` attempts were made already.
    """
    attempt, found = game.attempt + 1, checkpoint.newest(folder / "checkpoints")
    if attempt > rollback or found is None:
        tried = f" (rolled back {game.attempt} times already: run.rollback {rollback})" if rollback else ""
        raise NumbersError(f"{why}{tried}")
    game.restore(own_part(found[0]))
    game.attempt = attempt
    return resume_point(found[0])


def chosen(folder: Path, choice: str, say: Callable[[str], None] = lambda line: None) -> dict | None:
    """The checkpoint to go on from, see `restore`; None: the run begins. What is damaged is told by `say`.

    Raises:
        UsageError: `never` in a folder that holds a run.
        StorageError: no whole checkpoint.
    """
    if choice not in ("auto", "never"):
        return checkpoint.load(Path(choice))
    if choice == "never":
        if checkpoint.listed(folder / "checkpoints"):
            raise UsageError(f"{folder}: holds a run already; name another run.dir, or resume it with --resume auto")
        return None
    state, damaged = checkpoint.newest(folder / "checkpoints") or (None, [])
    for line in damaged:
        say(f"warning: {line}; using the checkpoint before it")
    return state


def _compare_environments(
    before: dict, now: dict, folder: Path, accept: tuple[str, ...], say: Callable[[str], None]
) -> None:
    """Warn of all that lets a run come out otherwise. Raises UsageError where it is the number of processes."""
    known = {"processes": 1, **before}
    if known["processes"] != now["processes"] and "processes" not in accept:
        raise UsageError(
            f"{folder}: {known['processes']} processes made its checkpoint, and {now['processes']} would go on;"
            " start as many, or --accept processes"
        )
    for key, value in now.items():
        if (old := before.get(key, value)) != value:  # a checkpoint of an older version says less
            say(f"warning: {key} was {old} and is {value}: the run goes on, but not to equal bytes")


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
