"""A run from a look into its folder to its summary: the steps that `segkd distill` and `segkd teach` share."""

from __future__ import annotations

import json
import os
import platform
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import nn

from segkd import __version__
from segkd.data import catalogue
from segkd.delivery.folder import load_student, save_network, write_card
from segkd.foundation import audit, terminal
from segkd.foundation.errors import NumbersError, UsageError
from segkd.foundation.files import RunLock, atomic_write, make_folder, remove, sha256
from segkd.foundation.resize import side_of
from segkd.foundation.rng import alone
from segkd.machine import ranks
from segkd.machine.ambient import kept_apart
from segkd.machine.device import machine
from segkd.models.adapters import Adapter
from segkd.recipe import DistillRecipe, Recipe, TeachRecipe, differences, filled, with_values
from segkd.recipe.messages import nearest
from segkd.recipe.values import seconds_of
from segkd.runs.costs import TRIALS, steps_for
from segkd.runs.finished import finished
from segkd.runs.folder import (
    METHOD,
    PAGE,
    PHOTOS,
    RECIPE_HASH,
    STATISTICS,
    TEACHER,
    TEACHER_FILE,
    about_run,
    data_root,
    free_keys,
    run_folder,
)
from segkd.runs.labelled import Labelled, labelled, model_of, score
from segkd.runs.options import Options
from segkd.runs.place import Place, place_of
from segkd.training import checkpoint, resume, rhythm
from segkd.training.game import Events, Game, Progress
from segkd.training.log import RunLog, check_board, memory_mb
from segkd.training.loop import Loop
from segkd.training.resume import ResumePoint
from segkd.training.signals import StopFlag

AnyRecipe = TypeVar("AnyRecipe", DistillRecipe, TeachRecipe)
LENGTH = {"run.steps", "run.budget"}
FILES_THAT_TRAIN = {
    TEACHER: "teacher.weights", PHOTOS: "synth.root", STATISTICS: "teacher.statistics", METHOD: "method", TEACHER_FILE: "teacher",
}  # fmt: skip
"""What `recipe.yaml` knows the hash of, and what --accept calls it."""


class Run(ABC, Generic[AnyRecipe]):
    """Base of a run. A subclass (`Distillation`, `Supervised`) says what is loaded, trained, looked at and measured.

    `run` calls, in this order: `announce`, `load`, `build`, `check`; in the run's folder `check_targets`, `rehearse_end` (of a
    new run), `_resume`, the loop, which calls `events`, `choose_weights`; `result`, `measure`, `card`, `write_elsewhere`.

    Attributes:
        recipe: what runs; a budget of time becomes steps before the first one.
        place: device and precision.
        watch, final: the labelled images to look at while it runs, and those of its end; None: none.
        game: what is played.
        about: what `recipe.yaml` is to say of the run beside its place.
        done: the steps that it has played, once it has ended.
        stop, lock: signals that came, and the lock of the folder in the process that writes there.
    """

    made: ClassVar[str]
    """The folder of the network that a run makes, and what that is called."""
    remedy: ClassVar[str]
    """What to do where it has learnt nothing."""
    place: Place
    watch: Labelled | None
    final: Labelled | None
    game: Any

    def __init__(self, recipe: AnyRecipe, options: Options | None = None) -> None:
        self.recipe, self.options, self.folder = recipe, options or Options(), Path(recipe.run.dir)
        self.name = self.options.name or self.folder.name
        self.about: dict[str, str] = {}
        self.stop = StopFlag()
        self.lock: RunLock | None = None
        self._opened = 0
        self.done: int | None = None

    def run(self) -> dict[str, Any]:
        """Play the run to its end, or what its folder says is left of it; returns its summary."""
        check_accepted(self.recipe, self.options.accept)
        if self.options.resume not in ("auto", "never"):
            checkpoint.check(Path(self.options.resume))
        done = finished(self.folder, self.recipe, self.options)
        if done is not None:
            return done
        if self.recipe.run.tensorboard:
            check_board()
        self.announce()
        audit.install()
        with alone(), kept_apart():
            place = place_of(self.recipe, self.folder)
            with ranks.process_group(place.device):
                # what the first process has found: another one may have no cache, or be on another kind of machine
                bf16, in_fp32 = ranks.broadcast((place.bf16, place.in_fp32))
                self.place = replace(place, bf16=bf16, in_fp32=in_fp32)
                opened = self.opened()
                self._prepare()
                # All that can be wrong with the input has been said by now: only then is anything written.
                with run_folder(self.recipe, self.options.resume) as (self.stop, self.lock):
                    return self._train(lambda: self.opened() - opened)

    def announce(self) -> None:
        """What is to be said, or refused, before anything is loaded."""

    @abstractmethod
    def load(self) -> None:
        """Load what is there: networks, labelled images."""

    @abstractmethod
    def build(self, recipe: AnyRecipe) -> Game:
        """The game of the recipe, in its place."""

    def check(self) -> None:
        """What else could be wrong once `game` is built."""

    def check_targets(self) -> None:
        """Try the files outside the folder that the end will write."""

    def opened(self) -> int:
        """Images that this process has opened for training so far; it may have done other runs before this one."""
        return 0

    @abstractmethod
    def events(self) -> Events:
        """What is looked at during the run."""

    @abstractmethod
    def updates(self) -> tuple[str, int]:
        """The player whose network the run makes, and in how many updates."""

    def choose_weights(self) -> None:
        """After the last step: decide which weights are the result."""

    @abstractmethod
    def result(self) -> Adapter:
        """The network that the run makes, as it is now."""

    @abstractmethod
    def measure(self, final: Labelled | None, rehearsed: bool) -> dict[str, Any]:
        """The verb's part of the summary; a rehearsal measures as little as it can."""

    @abstractmethod
    def card(self, summary: dict[str, Any], images: int | None) -> list[str]:
        """The lines of the network's card; `images` measured it."""

    @abstractmethod
    def real_images(self) -> int:
        """How many images that are not synthetic have trained the network."""

    def rehearse(self, folder: Path, summary: dict[str, Any] | None) -> None:
        """Try in `folder` what else the run will write; no summary: the measuring of untrained weights overflowed."""

    def record(self) -> None:
        """Write into the folder what says what runs, beside the recipe."""

    def write_elsewhere(self, summary: dict[str, Any]) -> None:
        """Write what goes elsewhere than into the run's folder."""

    def read_labelled(self) -> None:
        """Read the labelled images that measure."""
        self.watch, self.final = (
            labelled(self.recipe, split) for split in (self.recipe.data.watch, self.recipe.data.final)
        )

    def scores(self, networks: dict[str, nn.Module], data: Labelled) -> dict[str, dict[str, Any]]:
        """The scores of networks by name; one that has two names is measured once, as a student without an average.

        Raises:
            Stopped: a signal came meanwhile.
        """
        terminal.doing("evaluating")
        known = {network: score(network, data, model_of(self.recipe), self.place, self.stop)
                 for network in dict.fromkeys(networks.values())}  # fmt: skip
        return {name: known[network] for name, network in networks.items()}

    def _prepare(self) -> None:
        """Load what is there and build the game; a budget of time becomes steps before."""
        self.load()
        with audit.phase("training"):
            if self.recipe.run.budget is not None:
                self.recipe = with_values(self.recipe, {"run.steps": self._steps_of_budget()})
            self.game = self.build(self.recipe)
        self.check()

    def _steps_of_budget(self) -> int:
        """As many as the run had that goes on with this budget, or else as many as a game that is thrown away shows to fit."""
        budget = self.recipe.run.budget
        state = resume.chosen(self.folder, self.options.resume)
        before = {} if state is None else state.get("recipe", {}).get("run", {})
        if before.get("budget") == budget:
            return before["steps"]
        game = self.build(with_values(self.recipe, {"run.steps": TRIALS + 1}))
        return ranks.broadcast(steps_for(budget, game.play))

    def _train(self, opened: Callable[[], int]) -> dict[str, Any]:
        """What is done while the run has its folder; `opened` counts the images of this part of the run, in this process."""
        self.check_targets()
        if ranks.broadcast(not checkpoint.listed(self.folder / "checkpoints")):
            self.rehearse_end()
        start, log = self._resume()
        lock, progress = self.lock, self.options.progress if not ranks.rank() else None

        def tell(at: Progress) -> None:
            with audit.phase("none"):  # what the caller opens is none of the run's
                progress(at)

        events = replace(
            self.events(), check=lock.check if lock is not None else lambda: None, opened=opened,
            progress=None if progress is None else tell,
        )  # fmt: skip
        with audit.phase("training"):
            self.done = Loop(
                self.game, start, rhythm_of(self.recipe), events, log, self.folder, self.recipe.as_dict(), self.stop
            ).run()
        self._opened = start.opened + sum(ranks.broadcast(ranks.gather(opened())))
        seconds = log.seconds
        self._check_learnt()
        self.choose_weights()
        summary = self._end(self.folder, self.final, seconds)
        self.write_elsewhere(summary)
        if lock is not None:
            lock.check()
            atomic_write(self.folder / "summary.json", json.dumps(summary, indent=2) + "\n")
            terminal.doing("finished")
        return summary

    def _check_learnt(self) -> None:
        """Raises NumbersError where no update of the network that the run makes was ever accepted."""
        player, updates = self.updates()
        if updates and self.game.refusals.state()["in_a_row"].get(player, 0) >= updates:
            raise NumbersError(
                f"{self.folder}: all {updates} updates of the {self.made} were refused (metrics.jsonl says why): it has learnt nothing;"
                f" {self.remedy}"
            )

    def _end(self, folder: Path, final: Labelled | None, seconds: float, rehearsed: bool = False) -> dict[str, Any]:
        """What a run leaves when it is done: the network and its card in `folder`, and the summary."""
        network, model, run = self.result(), model_of(self.recipe), self.recipe.run
        classes, made = catalogue.class_map(*model.mapped_classes).student, folder / self.made
        if not ranks.rank():
            save_network(network.network, made, names=classes.names, palette=classes.palette, mean=model.mean, std=model.std,
                         stride=network.stride, shorter_side=side_of(self.recipe.data.size))  # fmt: skip
        summary = {
            "recipe": self.name, **self.measure(final, rehearsed), "real_images_for_training": self.real_images(),
            "real_images_for_evaluation": self._images_measured(), "seed": run.seed, "steps": run.steps if self.done is None else self.done, "batch": run.batch,
            "seconds": round(seconds, 1), "peak_memory_mb": memory_mb(), "machine": machine(), "torch": str(torch.__version__),
            "precision": self.game.precision, "refused_moves": self.game.refusals.total, "rollbacks": self.game.attempt,
        }  # fmt: skip
        if not ranks.rank():
            write_card(made, network.network, self.card(summary, None if final is None else len(final)))
        return summary

    def _images_measured(self) -> int:
        """How many real images measure: those of the split that is watched, and of the final one."""
        data = self.recipe.data
        read = {data.watch: self.watch, data.final: self.final}.values()
        return 0 if data.name == "scenes" else sum(len(images) for images in read if images is not None)

    def rehearse_end(self) -> None:
        """Try before the first step, on few images, all that follows the last one; what it writes is deleted.

        What cannot be measured, drawn, written or read back is an error now, and not when the network is trained.
        """
        few, summary = None if self.final is None else Labelled(self.final, self.final.size, ranks.size()), None
        apart = self.folder / f".tmp-rehearsal-{os.getpid()}"  # what a kill leaves of it is swept
        make_folder(apart)
        try:
            with suppress(NumbersError):  # weights that have learnt nothing may well overflow
                summary = self._end(apart, few, 0.0, rehearsed=True)
            self.rehearse(apart, summary)
            if not ranks.rank():
                load_student(apart)
        finally:
            shutil.rmtree(apart, ignore_errors=True)

    def _resume(self) -> tuple[ResumePoint, RunLog]:
        """Bring the game to where the folder stands and open its log; `recipe.yaml` says what runs.

        Raises:
            UsageError: what runs is not what the folder holds, and that was not accepted.
            StorageError: no whole checkpoint, or the folder cannot be written.
        """
        folder, recipe, before, accept = self.folder, self.recipe, about_run(self.folder), set(self.options.accept)
        if accept & LENGTH:  # the one follows from the other
            accept |= LENGTH
        if before.get(TEACHER) == self.about.get(TEACHER):  # the same file may lie elsewhere
            accept.add("teacher.weights")
        start = resume.restore(
            self.game, folder, recipe.as_dict(), lambda old, new: differences(filled(old), new), self.options.resume,
            tuple(accept), ranks.say, free_keys(recipe),
        )  # fmt: skip
        if start.step > recipe.run.steps:
            raise UsageError(
                f"{folder}: has done {start.step} steps, more than run.steps {recipe.run.steps}; name another run.dir"
            )
        if start.step:
            self._check_same_files(before, accept)
        log = RunLog(
            folder / "metrics.jsonl", recipe.run.steps, start.step, self.options.quiet, mute=ranks.rank() > 0,
            board=folder / "tensorboard" if recipe.run.tensorboard else None,
        )  # fmt: skip
        ranks.barrier()  # until all have read what the first is about to replace
        if not ranks.rank():
            self._write_recipe()
            self.record()
        return start, log

    def _check_same_files(self, before: dict[str, str], accept: set[str]) -> None:
        """Raises UsageError where what trains the student is not what the run has begun with, and that was not accepted."""
        for about, key in FILES_THAT_TRAIN.items():
            known, given = before.get(about), self.about.get(about)
            if None in (known, given) or known == given or key in accept:
                continue
            what = "another file than the run has begun with"
            if about == PHOTOS:
                what = "the folder holds other images than the run has begun with"
            kept = f", which is kept in {self.folder / key}" if about in (METHOD, TEACHER_FILE) else ""
            raise UsageError(
                f"{self.folder}: {key}: {what} (sha256 {known[:12]}{kept}, and now {given[:12]}); bring back what it was,"
                f" name another run.dir, or --accept {key}"
            )

    def _write_recipe(self) -> None:
        about = {
            "segkd": __version__, "torch": torch.__version__, "python": platform.python_version(), "machine": machine(),
            "device": self.place.device, "precision": self.game.precision, "threads": torch.get_num_threads(),
            "processes": ranks.size(), "data root": data_root(self.recipe), **self.about,
        }  # fmt: skip
        text = self.recipe.to_yaml()
        head = "".join(f"# {key}: {value}\n" for key, value in about.items()) + RECIPE_HASH + sha256(text.encode())
        # A finished run that is to be measured on something else is not finished now: its old scores must not outlive it.
        remove(self.folder / "summary.json")
        remove(self.folder / PAGE)
        atomic_write(self.folder / "recipe.yaml", f"{head}\n{text}")


def check_accepted(recipe: Recipe, accept: tuple[str, ...]) -> None:
    """Raises UsageError for what is no key of a recipe: it would accept nothing, and nobody would be told."""
    known, of_any_name = [*FILES_THAT_TRAIN.values(), "processes"], []
    for name in type(recipe).model_fields:
        block = getattr(recipe, name)
        known += [name, *(f"{name}.{key}" for key in getattr(type(block), "model_fields", ()))]
        of_any_name += [name] if isinstance(block, dict) else []
    for key in accept:
        block, _, rest = key.partition(".")
        if f"{block}.{rest.partition('.')[0]}".rstrip(".") not in known and block not in of_any_name:
            near = nearest(key, known)
            hint = f", did you mean {near}?" if near else "; name one as the refusal of the run did"
            raise UsageError(f"--accept {key}: no such key{hint}")


def rhythm_of(recipe: Recipe) -> rhythm.Plan:
    """The run's length and rhythm: a budget tells how many steps a time is, else the first steps will."""
    run = recipe.run
    every = [rhythm.Seconds(seconds_of(v)) if isinstance(v := getattr(run, k), str) else v for k in rhythm.KINDS]
    plan = rhythm.Plan(run.steps, *every, run.keep, run.rollback)
    return plan if run.budget is None else plan.at_pace(run.budget / run.steps)
