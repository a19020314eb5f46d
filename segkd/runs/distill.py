"""`segkd distill`: a teacher without its images, a game, a student folder, and an honest summary."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch

from segkd import builders
from segkd.data import catalogue
from segkd.data.classes import Classes
from segkd.data.photos import Photos
from segkd.evaluation.inspection import doubts
from segkd.evaluation.visualize import as_rgb, sample_grid, save_png
from segkd.foundation import audit, terminal
from segkd.foundation.errors import TeacherError, UsageError
from segkd.foundation.files import atomic_write, make_folder, sha256
from segkd.machine import ranks
from segkd.methods.finding import MethodFile
from segkd.models.adapters import Adapter, flops_of, parameters_of
from segkd.models.taps import few_statistics
from segkd.models.teacher import Teacher, input_range
from segkd.models.trial import try_measured
from segkd.recipe import DistillRecipe, expand_root, variant_of, with_values
from segkd.runs import card
from segkd.runs.costs import FirstSteps, forecast, table
from segkd.runs.folder import METHOD, PHOTOS, STATISTICS, TEACHER, TEACHER_FILE, teacher_hash
from segkd.runs.labelled import Labelled, unmeasured
from segkd.runs.options import Options
from segkd.runs.place import choose_precision, place_of
from segkd.runs.run import Run
from segkd.training.distiller import Distiller
from segkd.training.game import Events
from segkd.training.loop import FORECAST

APART = 0.1
"""The difference in agreement with the teacher from which on it is told that averaged and live student differ."""


def distill(recipe: DistillRecipe, options: Options | None = None) -> dict[str, Any]:
    """Distil a teacher into a student; returns the summary. Resumes a run that its folder holds.

    Real labelled images are opened for measuring only; the summary counts them, apart from those that trained.
    """
    return Distillation(recipe, options).run()


def planned(recipe: DistillRecipe, options: Options) -> list[str]:
    """Lines of `--plan`, see `costs.table`: measured on a game apart."""
    run = Distillation(recipe, options)
    with run.blaming():
        run.place = place_of(recipe)
        run.load_teacher()
        game = run.build(with_values(recipe, {"run.steps": 10} if recipe.run.budget else {}))
        terminal.doing("timing updates")
        return table(recipe, run.place, game)


class Distillation(Run[DistillRecipe]):
    """A student learns from a teacher."""

    made = "student"
    remedy = "see segkd inspect RECIPE"
    teacher: Teacher
    game: Distiller

    def __init__(self, recipe: DistillRecipe, options: Options | None = None) -> None:
        super().__init__(recipe, options)
        file = self.options.method_file
        self.own = None if file is None else MethodFile.read(file)
        self.about |= {} if self.own is None else {METHOD: self.own.sha256}
        self.brought = self.options.teacher
        if self.brought is not None and self.brought.file is not None:
            self.about[TEACHER_FILE] = self.brought.file.sha256

    def run(self) -> dict[str, Any]:
        with self.blaming():
            return super().run()

    @contextmanager
    def blaming(self) -> Iterator[None]:
        """What a user's own code raises inside the block is told as such, see `CodeFile.blamed`."""
        with ExitStack() as stack:
            for code in (self.own, self.brought):
                if code is not None:
                    stack.enter_context(code.blamed())
            yield

    def record(self) -> None:
        """Copies of a user's own method and teacher."""
        for code in (self.own, None if self.brought is None else self.brought.file):
            if code is not None:
                make_folder(self.folder / code.what)
                atomic_write(self.folder / code.what / code.path.name, code.text)

    def announce(self) -> None:
        if not self.options.quiet:
            ranks.say(*unmeasured(self.recipe))

    def load(self) -> None:
        """The teacher, whose classes are those of the data and of the student."""
        self.load_teacher()
        weights = self.recipe.teacher.weights
        taken = teacher_hash(weights, lambda: self.teacher.network)
        assert taken is not None  # its file has just been read
        self.about[TEACHER] = taken
        if ranks.any_of(ranks.broadcast(self.about[TEACHER]) != self.about[TEACHER]):
            raise TeacherError(
                f"{self.recipe.teacher.weights or self.brought.name}: the processes have different teachers"
            )
        synth, statistics = self.recipe.synth, self.recipe.teacher.statistics
        if (
            statistics is not None and (file := Path(expand_root(statistics))).is_file()
        ):  # else the game's building says so
            self.about[STATISTICS] = sha256(file)
        if synth.shows_folder:
            self.about[PHOTOS] = Photos(expand_root(synth.root)).listing()
        self.read_labelled()
        builders.check_classes(self.teacher, self.recipe.student, self.watch if self.final is None else self.final)
        terminal.doing("preparing: the student and the generator")

    def load_teacher(self) -> None:
        terminal.doing("preparing: the teacher")
        with audit.phase("training"):  # what a user's own code opens counts
            teacher = builders.teacher_of(self.recipe.teacher, self.options.trust_pickle, self.brought)
        self.teacher = teacher.to(self.place.device, memory_format=torch.channels_last)

    def build(self, recipe: DistillRecipe) -> Distiller:
        """A student and a source of images, each network in the precision in which it is quicker."""
        game = builders.distiller_of(recipe, self.teacher, self.place.device, self.place.bf16, self.own)
        self.place = choose_precision(self.place, game)
        return game

    def check(self) -> None:
        """The networks take the labelled images, and can be counted."""
        synth = self.recipe.synth
        networks, size = {"teacher": self.teacher, "student": self.game.student.network}, synth.size
        for data in (self.watch, self.final):
            for who, network in networks.items() if data is not None else ():
                try_measured(network, who, data[0].image.shape[:2], self.place.device)
        recorded = self.game.networks.images_recorded
        if recorded is not None:
            ranks.say(f"teacher: statistics recorded from {recorded} images")
        elif any("statistics" in needs for needs in self.game.needs.values()):
            ranks.say(*few_statistics(self.teacher.network))
        if real := self.game.source.real:
            ranks.say(
                f"not data-free: the student is shown {real} real images{f' of {synth.root}' if synth.shows_folder else ''}"
            )
        ranks.say(*doubts(self.teacher, size, self.place.bf16))
        self.sizes: dict[str, int | None] = {}
        for who, network in networks.items():
            self.sizes |= {f"{who}_parameters": parameters_of(network), f"{who}_flops": flops_of(network, *size)}
            if self.sizes[f"{who}_flops"] is None:
                ranks.say(
                    f"warning: {who}: the operations of this network cannot be counted, and the summary will not tell them"
                )

    def events(self) -> Events:
        """Agreement and, where the recipe watches a split, the student's mIoU on it; samples; and first what it will take."""
        first = FirstSteps(self.game)
        return Events(
            self._look,
            lambda step: self._save_samples(self.folder / "samples" / f"{step:08d}.png"),
            forecast=lambda: forecast(self.recipe, self.place, first, FORECAST),
            enough=self._enough,
        )

    def _look(self, step: int) -> dict[str, object]:
        run, monitor = self.recipe.run, self.game.monitor
        headline, students = run.headline, {name: monitor.measured(name) for name in ("ema", "last")}
        watched = students["last" if headline == "last" else "ema"]
        shown = monitor.shown(watched)
        learnt = "student" in self.game.method.moves(step - 1)  # rdskd begins with moves of the generator alone
        if learnt and (headline == "agreement" or run.patience is not None):
            monitor.offer(ranks.broadcast(shown["agreement_shown"]), step, watched)
        known = {student: self.game.monitor.agreement(student) for student in dict.fromkeys(students.values())}
        agreement = {name: known[student] for name, student in students.items()}
        notes = []
        if abs(agreement["ema"] - agreement["last"]) > APART:
            notes.append(
                f"step {step}: the averaged student agrees with its teacher on {agreement['ema']:.0%} of synthetic pixels,"
                f" the live one on {agreement['last']:.0%}; run.headline says which is the result ({headline})"
            )
        scores = {} if self.watch is None else self.scores(students, self.watch)
        return {
            "notes": notes,
            "agreement": agreement["last" if headline == "last" else "ema"],
            **shown,
            **{f"val_miou_{name}": found["miou"] for name, found in scores.items()},
        }

    def _enough(self) -> bool:
        """Whether the student has not agreed better for as many looks as the recipe is patient."""
        best, patience = self.game.monitor.best, self.recipe.run.patience
        return patience is not None and best is not None and best.since >= patience

    def updates(self) -> tuple[str, int]:
        return "student", sum(self.game.method.moves(step).count("student") for step in range(self.done or 0))

    def choose_weights(self) -> None:
        """Raises UsageError for weights that this run has not looked for."""
        if self._enough():
            best = self.game.monitor.best
            ranks.say(
                f"{self.folder}: ended after {self.done} of {self.recipe.run.steps} steps: no better agreement since step {best.step}"
            )
        if self.recipe.run.headline == "agreement" and self.game.monitor.best is None:
            raise UsageError(
                f"{self.folder}: run.headline=agreement, but this run has not looked for the weights that agree best; name another"
                " run.dir, or take run.headline=ema"
            )

    def result(self) -> Adapter:
        """The student that the headline names."""
        return self.game.monitor.measured(self.recipe.run.headline)

    def measure(self, final: Labelled | None, rehearsed: bool) -> dict[str, Any]:
        """The mIoU of teacher and student on the final split (every value None without one), and their agreement."""
        monitor, run = self.game.monitor, self.recipe.run
        networks = {
            "ema": monitor.measured("ema"),
            "last": monitor.measured("last"),
            "teacher": self.teacher,
        }
        if run.headline == "agreement":
            networks["agreement"] = monitor.measured("agreement")
        result = networks[run.headline]
        scores = dict.fromkeys(networks, {}) if final is None else self.scores(networks, final)
        headline, judged = scores[run.headline], scores["teacher"].get("miou")
        reached = headline.get("miou")
        return {
            "method": self.recipe.method, "variant": variant_of(self.recipe, self.game.method.variants),
            "student_miou": reached, "student_miou_ema": scores["ema"].get("miou"), "student_miou_last": scores["last"].get("miou"),
            "teacher_miou": judged, "recovery": reached / judged if reached is not None and judged else None,
            "per_class": headline.get("per_class"), "teacher_per_class": scores["teacher"].get("per_class"),
            "best_step": None if monitor.best is None else monitor.best.step, "agreement": monitor.agreement(result, 1 if rehearsed else 4),
            "agreement_shown": None if rehearsed else monitor.shown(result)["agreement_shown"], **self.sizes,
            "statistics_recorded_from": self.game.networks.images_recorded,
        }  # fmt: skip

    def card(self, summary: dict[str, Any], images: int | None) -> list[str]:
        return card.of_distilled(self.recipe, summary, images)

    def rehearse(self, folder: Path, summary: dict[str, Any] | None) -> None:
        """A sample."""
        self._save_samples(folder / "sample.png")

    def opened(self) -> int:
        """Images opened or rendered for training in this process.

        Not for `synth.kind` images or folder: each part of a run opens the same files again.
        """
        synth = self.recipe.synth
        return 0 if synth.shows_set or synth.shows_folder else audit.count("training") + audit.count("rendered")

    def real_images(self) -> int:
        """Those that the source shows, if it shows any (the audit counts the files of their labels, too), else what the audit saw."""
        return self.game.source.real or self._opened

    def _save_samples(self, path: Path) -> None:
        classes = catalogue.class_map(*self.recipe.teacher.mapped_classes).student
        save_samples(path, self.game, self.teacher, classes, self.recipe.run.headline)


def save_samples(path: Path, game: Distiller, teacher: Teacher, classes: Classes, headline: str, rows: int = 4) -> None:
    """The grid of a step: synthetic image | teacher mask | student mask | disagreement. The first process writes it."""
    images = next(iter(game.monitor.held_out(1)))[:rows]  # by all, whose BatchNorm may be one
    network = game.monitor.measured(headline)
    if ranks.rank():
        return
    guide, student = (list(ids.to(torch.uint8).numpy()) for ids in game.monitor.masks(images, network))
    low, high = (value.view(1, -1, 1, 1).to(images.device) for value in input_range(teacher.mean, teacher.std))
    pixels = (
        ((images - low) / (high - low) * 255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    )
    make_folder(path.parent)
    save_png(path, sample_grid([as_rgb(image) for image in pixels], guide, student, classes))
