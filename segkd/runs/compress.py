"""`segkd compress`: look at a teacher, write a recipe, distil, compare, export: each in its place below one folder, and once."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from segkd.data.photos import Photos
from segkd.foundation import terminal
from segkd.foundation.channels import READ, name_of
from segkd.foundation.errors import NumbersError, RecipeError, StorageError, TeacherError, UsageError
from segkd.foundation.files import RunLock, atomic_write, make_folder, sha256, sweep
from segkd.recipe import DistillRecipe, differences, load, variant_of, with_values
from segkd.recipe.compression import Asked, from_file
from segkd.runs.distill import Distillation, distill
from segkd.runs.evaluate import evaluate
from segkd.runs.export import REPORT, Choices, check_choices, export
from segkd.runs.folder import NOTHING
from segkd.runs.inspect import inspect
from segkd.runs.options import Options
from segkd.runs.place import place_of
from segkd.runs.trained import load_guide, load_model

ASKED, INSPECTED, RECIPE, RUN, AGREED, EXPORTED = (
    "compress.json",
    "inspect.json",
    "recipe.yaml",
    "run",
    "agreement.json",
    "export",
)
"""What a compression's folder holds, in the order in which it comes."""


@dataclass(frozen=True)
class Compression:
    """What is compressed into which folder; `choices` are those of the export, whose photos the student is compared on, too."""

    asked: Asked
    out: Path
    options: Options
    choices: Choices

    def run(self) -> dict[str, Any]:
        """Do what is not done yet; returns what each stage has found, by its name: inspect, summary, agreement, export.

        Raises:
            UsageError: the folder holds another compression, or what is asked for cannot be.
            StorageError: the folder is somebody's, in use, or cannot be written.
            TeacherError: the teacher cannot be distilled as it is: nothing was trained.
            NumbersError: the exported file does not answer as the student does.
            Stopped: a signal came; the same call goes on.
        """
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise UsageError(
                f"segkd compress starts its run itself: without torchrun; {self.out / RECIPE} runs under it"
            )
        self.asked.tree(self.out, None)
        check_choices(self.choices)
        if self.choices.images is not None:
            photos = Photos(self.choices.images)  # what is wrong with one is told before hours of training
            for _ in photos if not (self.out / RUN / "summary.json").is_file() else ():
                terminal.doing("reading photos")
        self._check_folder()
        make_folder(self.out)
        with RunLock(self.out, "--out"):
            sweep(self.out)
            if not (self.out / RECIPE).is_file():
                self._write(ASKED, self.asked.as_dict())
                self._write_recipe()
            recipe = self.recipe()
            if self.choices.images is not None and recipe.teacher.channels not in READ:
                takes = name_of(recipe.teacher.channels)
                raise UsageError(f"--images {self.choices.images}: the teacher takes images of {takes}: leave it out")
            found: dict[str, Any] = {"inspect": _known(self.out / INSPECTED)}
            found["summary"] = distill(recipe, self.options)
            if self.choices.images is not None:
                found["agreement"] = self._once(AGREED, {"photos": str(self.choices.images.resolve())}, self._agreement)
            found["export"] = self._exported(recipe)
            return found

    def recipe(self) -> DistillRecipe:
        """That of the folder."""
        return recipe_in(self.out, self.options.teacher and self.options.teacher.name)

    def _check_folder(self) -> None:
        """Raises UsageError, or StorageError, where something else lies in the folder: it is left as it is."""
        if self.out.exists() and not self.out.is_dir():
            raise StorageError(f"{self.out}: is no folder; name a new one: --out DIR")
        held = sorted(set(os.listdir(self.out)) - {*NOTHING, ".lock"}) if self.out.is_dir() else []
        held = [name for name in held if not name.startswith(f".tmp-{ASKED}-")]
        if not held:
            return
        if ASKED not in held:
            raise StorageError(
                f"{self.out}: holds {held[0]}, and no compression; name a new or an empty folder: --out DIR"
            )
        if not (self.out / RECIPE).is_file():
            return  # nothing came of it: its teacher was refused, or it was stopped before
        if other := differences(_read(self.out / ASKED), self.asked.as_dict()):
            keys = ", ".join(key.removeprefix("values.") for key in other[:5])
            raise UsageError(
                f"{self.out}: holds another compression, with another {keys}; name another folder: --out DIR"
            )

    def _write(self, name: str, found: object) -> None:
        atomic_write(self.out / name, json.dumps(found, indent=2) + "\n")

    def _say(self, *lines: object) -> None:
        if not self.options.quiet:
            terminal.say(*lines)

    def _write_recipe(self) -> None:
        """Look at the teacher, and write the recipe that suits it.

        Raises:
            TeacherError: no recipe does.
        """
        method = self.asked.first
        report = inspect(self._draft(method), self.options, quick=True)
        if method is not None and report.method not in (None, method):
            method = report.method
            report = inspect(self._draft(method), self.options, quick=True)
        self._say(*report.lines())
        self._write(INSPECTED, report.as_dict())
        if report.verdict == "red":
            why = report.obstacle
            raise TeacherError(
                f"{self.asked.teacher or self.asked.teacher_file}: cannot be distilled as it is: {why.what}: {why.told};"
                f" nothing was trained ({self.out / INSPECTED})"
            )
        recipe = self._draft(method)
        variant = variant_of(recipe)
        if method is not None and self.asked.teacher is not None and not from_file(self.asked.teacher):
            self._tell_other_method(recipe)
        atomic_write(self.out / RECIPE, self.asked.text(self.out, method, self._logits(method)))
        self._say(
            f"{self.out / RECIPE}: {recipe.method}{f' ({variant})' if variant else ''}; once it is changed, that holds"
        )

    def _draft(self, method: Mapping[str, Any] | None, logits: str | None = None) -> DistillRecipe:
        own = self.options.teacher and self.options.teacher.name
        recipe = load(self.asked.tree(self.out, method, logits), (), "distill", own_teacher=own)
        assert isinstance(recipe, DistillRecipe)
        return recipe

    def _tell_other_method(self, taken: DistillRecipe) -> None:
        own = self._draft(None)
        if _called(own) != _called(taken):
            keeps = " ".join(filter(None, (f"method={own.method}", own.variant and f"variant={own.variant}")))
            terminal.say(
                f"{self.asked.teacher}: has method {_called(own)}; {_called(taken)} is taken, as segkd inspect advises ({keeps} keeps it)"
            )

    def _logits(self, method: Mapping[str, Any] | None) -> str | None:
        """Where logits are compared, of which the recipe can be played: at the heads' own size if they have one, which takes less.

        None: as the recipe says, whose student that is.

        Raises:
            RecipeError: the recipe cannot be played.
        """
        asked = self.asked
        given = "logits" in (asked.given().get("game") or {})
        settled = given or (asked.student is None and asked.teacher is not None and not from_file(asked.teacher))
        choices = [None] if settled else ["head", "full"]
        for logits in choices:
            recipe = self._draft(method, logits)
            run = Distillation(with_values(recipe, {"run.steps": 10, "run.budget": None}), self.options)
            with run.blaming(), suppress(*[] if logits == choices[-1] else [RecipeError]):
                run.place = place_of(recipe)
                run.load_teacher()
                terminal.doing("preparing: the student and the generator")
                run.build(run.recipe)
                return logits
        raise AssertionError("the last choice was built")

    def _once(self, name: str, what: dict[str, Any], measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What a file says of this student, or else what is measured now, and kept there."""
        path, what = self.out / name, {**what, "student": self._student()}
        if what.items() <= (known := _known(path)).items():
            return known
        found = {**what, **measure()}
        self._write(name, found)
        return found

    def _student(self) -> str:
        """Which one it is."""
        return sha256(self.out / RUN / "student" / "model.safetensors")

    def _agreement(self) -> dict[str, Any]:
        """On how many pixels of the user's photos the student gives its teacher's class."""
        run = self.out / RUN
        own, trust = self.options.teacher, self.options.trust_pickle
        terminal.doing("comparing with the teacher on photos")
        scores = evaluate(
            load_model(run), data="folder", root=str(self.choices.images), against=load_guide(run, trust, own)
        )
        kept = ("images", "agreement", "agreement_miou", "agreement_per_class")
        return {key: scores[key] for key in kept if key in scores} | {"notes": scores["notes"]}

    def _exported(self, recipe: DistillRecipe) -> dict[str, Any]:
        """The student as a file, made again where it was of another student or asked for otherwise."""
        choices, folder = self.choices, self.out / EXPORTED
        if choices.int8 and choices.calibration is None and not recipe.synth.replay:
            choices = replace(choices, calibration="pictures")  # its run keeps no images
        known = _known(folder / REPORT)
        asked = {
            "format": choices.format,
            "student_sha256": self._student(),
            "photos": choices.images and str(choices.images.resolve()),
        }
        files = known.get("files", {})
        whole = all(each["passed"] and (folder / name).is_file() for name, each in files.items())
        if asked.items() <= known.items() and whole and (not choices.int8 or "model.int8.onnx" in files):
            return known
        sweep(folder)
        try:
            return export(self.out / RUN, folder, choices, self.options.trust_pickle, self.options.teacher)
        except NumbersError as error:
            raise NumbersError(f"{error}, and the student is in {self.out / RUN}") from error


def recipe_in(out: Path, own_teacher: str | None) -> DistillRecipe:
    """What the recipe of a compression's folder says, for the run below it, wherever the folder lies now."""
    recipe = load(out / RECIPE, [f"run.dir={json.dumps(str(out / RUN))}"], "distill", own_teacher=own_teacher)
    assert isinstance(recipe, DistillRecipe)
    return recipe


def _called(recipe: DistillRecipe) -> str:
    variant = variant_of(recipe)
    return f"{recipe.method}.{variant}" if variant else recipe.method


def _read(path: Path) -> dict[str, Any]:
    """Raises StorageError where no such file is there, or it is damaged."""
    try:
        found = json.loads(path.read_text("utf-8"))
        if not isinstance(found, dict):
            raise ValueError("expected a JSON object")
        return found
    except (OSError, ValueError) as error:
        raise StorageError(f"{path}: cannot be read ({error}); name another folder: --out DIR") from error


def _known(path: Path) -> dict[str, Any]:
    """The same, and nothing where it cannot be read: it is made anew."""
    with suppress(StorageError):
        return _read(path)
    return {}
