"""What both kinds of run share: the locked folder, where networks run, and the labelled images that measure."""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeVar

import torch

from segkd import __version__
from segkd.foundation import audit, terminal
from segkd.foundation.errors import Stopped, StorageError, UsageError, one_line
from segkd.foundation.files import RunLock, atomic_write, make_folder, refuse_irregular, remove, sha256, sweep
from segkd.machine import ranks
from segkd.machine.device import device_of, machine
from segkd.machine.precision import bf16_of
from segkd.recipe import (
    DistillRecipe,
    Recipe,
    TeachRecipe,
    differences,
    expand_root,
    filled,
    load,
    unset_root,
    with_values,
)
from segkd.recipe.values import seconds_of
from segkd.runs.taking import MARK, RECIPE_HASH, check_folder
from segkd.training import checkpoint, loop, rhythm, tune
from segkd.training.distiller import Distiller
from segkd.training.log import Diary, memory_mb
from segkd.training.plan import steps_for
from segkd.training.signals import StopFlag

AnyRecipe = TypeVar("AnyRecipe", DistillRecipe, TeachRecipe)
LENGTH = {"run.steps", "run.budget"}
TEACHER = "teacher sha256"
"""What `recipe.yaml` says about the file of the teacher."""
EXIT_CODE = "exit_code"
"""All that a `summary.json` says where a signal stopped a run of several processes: torchrun ends with a code of its own."""


@dataclass(frozen=True)
class Options:
    """What a caller may choose beside the recipe: `resume` is auto, never or a checkpoint's path.

    `name` is the recipe's name in the summary; empty: the run folder's name. `progress` is told each step.
    """

    name: str = ""
    resume: str = "auto"
    accept: tuple[str, ...] = ()
    quiet: bool = False
    trust_pickle: bool = False
    progress: Callable[[loop.Progress], object] | None = None

    def told(self) -> Callable[[loop.Progress], object] | None:
        """`progress` as the loop calls it, in the first process: what it opens is none of the run's."""
        if self.progress is None or ranks.rank():
            return None

        def tell(progress: loop.Progress) -> None:
            with audit.phase("none"):
                self.progress(progress)

        return tell


@dataclass(frozen=True)
class Bench:
    """Where and how networks run, resolved before step 1.

    `in_fp32` names networks that run in fp32 where the others run in bf16; None: `settled` is to measure which.
    """

    device: torch.device
    bf16: bool
    in_fp32: frozenset[str] | None = frozenset()

    @property
    def precision(self) -> Literal["fp32", "bf16"]:
        return "bf16" if self.bf16 else "fp32"


def bench_of(recipe: Recipe, folder: Path | None = None) -> Bench:
    """Resolve device, precision and threads.

    What `precision: auto` meant when the run in `folder` began on this machine, it means to the end: which precision is
    quicker is measured, and may come out otherwise the next time, but a run goes on to the same bytes.
    """
    if recipe.run.threads is not None:
        torch.set_num_threads(recipe.run.threads)
    device = device_of(recipe.run.device)
    here = {"machine": machine(), "device": str(device)}
    before = about_run(folder) if folder is not None and recipe.run.precision == "auto" else {}
    if here.items() <= before.items() and (words := before.get("precision", "").split(", "))[0] in ("bf16", "fp32"):
        return Bench(device, words[0] == "bf16", frozenset(word.removesuffix(" in fp32") for word in words[1:]))
    bf16 = bf16_of(recipe.run.precision, device)
    return Bench(device, bf16, None if bf16 and recipe.run.precision == "auto" else frozenset())


def settled(bench: Bench, game: Distiller) -> Bench:
    """The bench, once it is known which of the game's networks run in fp32; from now on they do."""
    names = bench.in_fp32
    if names is None:
        terminal.doing("preparing: timing fp32 and bf16")
        names = ranks.told(frozenset() if ranks.rank() else tune.quicker_in_fp32(game))
    tune.keep_in_fp32(game, names)
    return replace(bench, in_fp32=names)


@contextmanager
def run_folder(recipe: Recipe, resume: str = "auto") -> Iterator[tuple[StopFlag, RunLock | Guest]]:
    """The run folder, made, locked and free of what killed runs have left, with signals noticed while the block runs.

    Of several processes the first has it, and the others wait until it does. Where `resume` is not auto, who stopped the
    run is told that the same command would not go on with it.

    Raises:
        StorageError: it is not a run's, it cannot be made, another process runs in it, or what it holds could not be
            replaced at the end.
    """
    folder = Path(recipe.run.dir)
    if ranks.rank():
        with StopFlag().listening() as stop:
            audit.ignore(folder)
            ranks.wait()
            yield stop, Guest()
        return
    check_folder(folder)
    make_folder(folder / "checkpoints")
    audit.ignore(folder)
    with RunLock(folder, mark=MARK) as lock, StopFlag().listening() as stop:
        for name in ("recipe.yaml", "metrics.jsonl", "summary.json"):
            refuse_irregular(folder / name)
        for name in ("samples", "student", "model"):
            if os.path.lexists(folder / name):
                make_folder(folder / name)  # says what is wrong with it, if anything is
        for place in (folder, folder / "checkpoints", folder / "samples"):
            sweep(place)
        ranks.wait()
        try:
            yield stop, lock
        except Stopped as error:
            if ranks.size() > 1:
                atomic_write(folder / "summary.json", json.dumps({EXIT_CODE: error.exit_code}) + "\n")
            if resume != "auto":
                signum = error.signum
                raise Stopped(signum, f"stopped by signal {signum}: with --resume auto the run goes on") from error
            raise
        finally:
            terminal.end()


@contextmanager
def rehearsal(folder: Path) -> Iterator[Path]:
    """A folder inside a run's, in which its end is tried before its first step: what would fail then fails now."""
    place = folder / f".tmp-rehearsal-{os.getpid()}"  # what a kill leaves of it is swept
    make_folder(place)
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


class Guest:
    """What a process other than the first has in the lock's place: it writes nothing."""

    def check(self) -> None:
        """Nothing of its own could have been lost."""


def read_recipe(path: Path) -> dict:
    """The resolved recipe that `begin` wrote.

    Raises:
        StorageError: missing, damaged, or changed since.
    """
    try:
        _, hashed, text = path.read_text("utf-8").partition(RECIPE_HASH)
        if hashed and sha256(text[65:].encode()) != text[:64]:
            raise ValueError("its bytes do not match the hash in it")
        return load(path).as_dict()
    except (OSError, ValueError, UsageError) as error:
        raise StorageError(f"{path}: damaged ({one_line(error)})") from error


def about_run(folder: Path) -> dict[str, str]:
    """What `begin` wrote above the recipe of the run in a folder, by key; nothing where no run is, or its file is damaged.

    Raises StorageError where it may not be read.
    """
    path = folder / "recipe.yaml"
    try:
        head = path.read_text("utf-8").partition(RECIPE_HASH)[0] if path.is_file() else ""
    except PermissionError as error:
        raise StorageError(f"{path}: cannot read: {error.strerror}") from error
    except (OSError, ValueError):
        return {}
    return dict(line[2:].split(": ", 1) for line in head.splitlines() if line.startswith("# ") and ": " in line)


def free_keys(recipe: Recipe) -> tuple[str, ...]:
    """The keys that may change between the parts of a run: not the data that train, nor a teacher's looks."""
    if isinstance(recipe, TeachRecipe):
        return ("data.root", "data.final", "run.dir", "run.save_every")
    if recipe.synth.kind == "images":
        return ("data.root", "data.watch", "data.final", "data.size", *loop.FREE_KEYS[1:])
    return loop.FREE_KEYS


def data_root(recipe: Recipe) -> str:
    """The folder of the recipe's labelled set as it is now, in a line; `none` where no set is read from one."""
    data = recipe.data
    if data.name in (None, "scenes") or data.root is None or unset_root(data.root):
        return "none"
    return one_line(expand_root(data.root).resolve(), 4096)


def in_steps(recipe: AnyRecipe, folder: Path, trial: Callable[[AnyRecipe], loop.Game]) -> AnyRecipe:
    """The recipe with its budget turned into steps: those of the run that the folder holds, or measured on a game apart."""
    if recipe.run.budget is None:
        return recipe
    found = checkpoint.newest(folder / "checkpoints")
    before = found[0].get("recipe", {}).get("run", {}) if found else {}
    if before.get("budget") == recipe.run.budget:
        return with_values(recipe, {"run.steps": before["steps"]})
    game = trial(with_values(recipe, {"run.steps": 10}))
    return with_values(recipe, {"run.steps": ranks.told(steps_for(recipe.run.budget, game.play))})


def begin(
    folder: Path, recipe: Recipe, options: Options, bench: Bench, game: loop.Game, facts: dict[str, object]
) -> tuple[loop.Standing, Diary]:
    """Bring `game` to where the folder stands and open its diary; `recipe.yaml` says what runs, and `facts` on what.

    Raises:
        UsageError: what runs is not what the folder holds, and that was not accepted.
        StorageError: no whole checkpoint, or the folder cannot be written.
    """
    before, accept = about_run(folder), set(options.accept)
    if accept & LENGTH:  # the one follows from the other
        accept |= LENGTH
    known, given = before.get(TEACHER), str(facts.get(TEACHER))
    if known == given:  # the same file may lie elsewhere
        accept.add("teacher.weights")
    start = loop.resume(
        game, folder, recipe.as_dict(), lambda old, new: differences(filled(old), new), options.resume, tuple(accept), warn,
        free_keys(recipe),
    )  # fmt: skip
    if start.step > recipe.run.steps:
        raise UsageError(
            f"{folder}: has done {start.step} steps, more than run.steps {recipe.run.steps}; name another run.dir"
        )
    if start.step and known not in (None, given) and "teacher.weights" not in accept:
        raise UsageError(
            f"{folder}: teacher.weights: another file than the run has begun with (its sha256 is {given[:12]}, and was {known[:12]});"
            " bring that one back, name another run.dir, or --accept teacher.weights"
        )
    diary = Diary(folder / "metrics.jsonl", recipe.run.steps, start.step, options.quiet, mute=ranks.rank() > 0)
    ranks.wait()  # until all have read what the first is about to replace
    about = {
        "segkd": __version__, "torch": torch.__version__, "python": platform.python_version(), "machine": machine(),
        "device": str(bench.device), "precision": game.precision, "threads": torch.get_num_threads(), "processes": ranks.size(),
        "data root": data_root(recipe), **facts,
    }  # fmt: skip
    text = recipe.to_yaml()
    head = "".join(f"# {key}: {value}\n" for key, value in about.items()) + RECIPE_HASH + sha256(text.encode())
    if not ranks.rank():
        # A finished run that is to be measured on something else is not finished now: its old scores must not outlive it.
        remove(folder / "summary.json")
        atomic_write(folder / "recipe.yaml", f"{head}\n{text}")
    return start, diary


def plan_of(recipe: Recipe) -> rhythm.Plan:
    """The run's length and rhythm: a budget tells how many steps a time is, else the first steps will."""
    run = recipe.run
    every = [rhythm.Seconds(seconds_of(v)) if isinstance(v := getattr(run, k), str) else v for k in rhythm.KINDS]
    plan = rhythm.Plan(run.steps, *every, run.keep, run.rollback)
    return plan if run.budget is None else plan.at_pace(run.budget / run.steps)


def ran_on(recipe: Recipe, game: loop.Game, diary_seconds: float) -> dict[str, object]:
    """The part of a summary that both kinds of run have: how long, with how much memory, on what."""
    return {
        "seed": recipe.run.seed, "steps": recipe.run.steps, "batch": recipe.run.batch, "seconds": round(diary_seconds, 1),
        "peak_memory_mb": memory_mb(), "machine": machine(), "torch": str(torch.__version__), "precision": game.precision,
    }  # fmt: skip


def finish(folder: Path, lock: RunLock | Guest, summary: dict[str, object]) -> dict[str, object]:
    """Write `summary.json`, which makes the run a finished one."""
    if ranks.rank():
        return summary
    lock.check()
    atomic_write(folder / "summary.json", json.dumps(summary, indent=2) + "\n")
    terminal.doing("finished")
    return summary


def warn(line: str) -> None:
    """A line for the user, once for all processes of a run."""
    if not ranks.rank():
        terminal.say(line)
