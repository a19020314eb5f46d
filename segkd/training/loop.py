"""The spine: for each step play; log; look, save and stop when due. It knows no method and no objective."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from segkd.foundation.errors import Stopped, UsageError
from segkd.training import checkpoint
from segkd.training.guard import StopFlag
from segkd.training.log import Diary


class Game(Protocol):
    """What is played: one supervised player (`teaching`) or a student against a synthesiser (`distiller`)."""

    def play(self, step: int) -> dict[str, float]: ...
    def state(self) -> dict: ...
    def restore(self, state: dict) -> None: ...


@dataclass(frozen=True)
class Plan:
    """The length and rhythm of a run, in steps; everything that depends on time was turned into steps before."""

    steps: int
    save_every: int
    eval_every: int
    sample_every: int
    keep: int
    log_every: int = 10


@dataclass(frozen=True)
class Events:
    """What the loop calls when it is due; each gets the number of finished steps. None: never."""

    evaluate: Callable[[int], dict[str, object] | None] | None = None
    sample: Callable[[int], None] | None = None


def resume(
    game: Game, folder: Path, recipe: dict, differences: Callable[[dict, dict], list[str]], choice: str,
    accept: tuple[str, ...], say: Callable[[str], None],
) -> int:  # fmt: skip
    """Bring `game` to where its run folder stands; returns the number of finished steps (0: a new run).

    Args:
        recipe: the resolved recipe; one that differs from the checkpoint's in a key that matters is refused.
        differences: the dotted keys in which two resolved recipes differ.
        choice: `auto` (the newest whole checkpoint), `never`, or a checkpoint's path.
        accept: dotted keys that may differ.

    Raises:
        UsageError: the recipe changed, or `never` in a folder that holds a run.
        StorageError: no whole checkpoint.
    """
    checkpoints = folder / "checkpoints"
    if choice == "never":
        if checkpoint.listed(checkpoints):
            raise UsageError(f"{folder}: holds a run already; name another run.dir, or resume it with --resume auto")
        return 0
    if choice == "auto":
        found = checkpoint.newest(checkpoints)
        if found is None:
            return 0
        state, damaged = found
        for line in damaged:
            say(f"warning: {line}; using the checkpoint before it")
    else:
        state = checkpoint.load(Path(choice))
    changed = [k for k in differences(state["recipe"], recipe) if not k.startswith(FREE_KEYS) and k not in accept]
    if changed:
        flags = " ".join(f"--accept {key}" for key in changed[:3])
        raise UsageError(
            f"{folder}: the recipe changed since its checkpoint: {', '.join(changed)}; name another run.dir, or {flags}"
        )
    for key, now in environment().items():
        if state["environment"][key] != now:
            say(f"warning: {key} was {state['environment'][key]} and is {now}: the run goes on, but not to equal bytes")
    game.restore(state["game"])
    return int(state["step"])


FREE_KEYS = ("data.", "run.dir", "run.save_every", "run.eval_every", "run.sample_every", "run.keep")


def environment() -> dict[str, object]:
    """What equal bytes depend on beside the recipe."""
    # torch.__version__ is no plain str, and a checkpoint that holds it cannot be loaded without pickle
    return {
        "torch": str(torch.__version__),
        "threads": torch.get_num_threads(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
    }


def run(
    game: Game, start: int, plan: Plan, events: Events, diary: Diary, folder: Path, recipe: dict, stop: StopFlag
) -> None:
    """Play steps `start`..`plan.steps`; on return the last step is saved.

    Raises:
        Stopped: a signal came; the finished steps are saved.
    """

    def save(step: int) -> None:
        state = {"step": step, "recipe": recipe, "environment": environment(), "game": game.state()}
        checkpoint.save(folder / "checkpoints", step, state, plan.keep)

    if start == 0:
        save(0)  # a disk that cannot take a checkpoint fails in the first second, not after the first hour
    for step in range(start, plan.steps):
        values = game.play(step)
        done, last = step + 1, step + 1 == plan.steps
        if last or done % plan.log_every == 0:
            diary.write(done, values)
        diary.progress(done, values)
        if not stop() and events.evaluate and (last or done % plan.eval_every == 0):
            try:
                result = events.evaluate(done)
            except Stopped:
                result = None  # the signal came while it looked: the step itself is finished, and saved below
            if result:
                diary.write(done, result)
                diary.say(
                    "  ".join([f"step {done}", *(f"{k} {v:.4f}" for k, v in result.items() if isinstance(v, float))])
                )
        if not stop() and events.sample and (last or done % plan.sample_every == 0):
            events.sample(done)
        if stop() or last or done % plan.save_every == 0:
            save(done)
        if stop() and not last:
            raise Stopped(stop.signum)
