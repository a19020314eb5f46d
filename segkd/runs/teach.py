"""`segkd teach`: a network trained on labelled images, its best weights kept, rounded, measured and written down."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from segkd import builders
from segkd.foundation.errors import StorageError, UsageError
from segkd.foundation.files import atomic_write, make_folder, refuse_irregular, sweep, write_failure
from segkd.models.adapters import Adapter, flops_of, parameters_of
from segkd.models.tensors import to_safetensors
from segkd.models.weights import load_weights
from segkd.recipe import TeachRecipe
from segkd.runs import card
from segkd.runs.folder import beginning
from segkd.runs.labelled import Labelled
from segkd.runs.options import Options
from segkd.runs.run import Run
from segkd.training.game import Events
from segkd.training.teaching import Teaching


def teach(recipe: TeachRecipe, options: Options | None = None) -> dict[str, Any]:
    """Train a network on labelled images; returns the summary. Resumes a run that its folder holds.

    The weights that are best on `data.watch` are kept (the last ones without it), rounded to fp16 where `output` asks
    for a file, and then measured once on `data.final`.
    """
    return Supervised(recipe, options).run()


class Supervised(Run[TeachRecipe]):
    """A network learns from labels."""

    made = "model"
    remedy = "lower train.optimizer.lr, or set run.precision=fp32"
    game: Teaching
    network: Adapter

    def announce(self) -> None:
        """Refuse several processes. Raises UsageError."""
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise UsageError("segkd teach trains in one process: start it without torchrun")

    def load(self) -> None:
        self.read_labelled()

    def build(self, recipe: TeachRecipe) -> Teaching:
        game, self.network = builders.teaching_of(recipe, self.place.device, self.place.bf16)
        return game

    def check_targets(self) -> None:
        """The file of a teacher, and its card."""
        if self.recipe.output is not None:
            check_output(Path(self.recipe.output), self.name)

    def events(self) -> Events:
        """The mIoU on the split that the recipe watches; the best weights are kept."""
        judged, watch = self._judged(), self.watch

        def look(step: int) -> dict[str, object]:
            miou = self.scores({"network": judged}, watch)["network"]["miou"]
            return {"val_miou": miou, "val_best": self.game.offer(miou, step, judged)}

        return Events(None if watch is None else look)

    def _judged(self) -> Adapter:
        """The averaged weights or the last ones, as the headline says."""
        player = self.game.player
        return player.ema_or_live if self.recipe.run.headline == "ema" else player.network

    def updates(self) -> tuple[str, int]:
        return self.game.player.name, self.done or 0

    def choose_weights(self) -> None:
        """Take the best weights, rounded before they are measured where a file is asked for: the score is that of the file."""
        self.network.load_state_dict(self.game.best["network"] or self._judged().state_dict())
        self.network.eval()
        if self.recipe.output is not None:
            load_weights(self.network.network, rounded(self.network), "the rounded weights")

    def result(self) -> Adapter:
        return self.network

    def measure(self, final: Labelled | None, rehearsed: bool) -> dict[str, Any]:
        """Its scores on the final split, under the keys that a distilled student's summary has too.

        FLOPs are at the size that was measured: None where that was mixed, nothing was, or they cannot be counted.
        """
        found: dict[str, Any] = {} if final is None else self.scores({"network": self.network}, final)["network"]
        best, miou, size = self.game.best["step"], found.get("miou"), found.get("size")
        return {
            "method": "labels", "variant": None, "student_miou": miou, "student_miou_ema": None, "student_miou_last": miou,
            "teacher_miou": None, "recovery": None, "agreement": None,
            "best_step": best or self.recipe.run.steps, "val_miou": self.game.best["miou"] if best else None,
            "per_class": found.get("per_class"), "pixel_accuracy": found.get("pixel_accuracy"), "images": found.get("images"),
            "student_parameters": parameters_of(self.network),
            "student_flops": flops_of(self.network, *size) if isinstance(size, list) else None,
        }  # fmt: skip

    def card(self, summary: dict[str, Any], images: int | None) -> list[str]:
        return card.of_taught(self.recipe, summary)

    def real_images(self) -> int:
        return 0 if self.recipe.data.name == "scenes" else len(self.game.samples)

    def rehearse(self, folder: Path, summary: dict[str, Any] | None) -> None:
        """The card of the file."""
        if summary is not None:
            card.of_file("rehearsal", self.recipe, summary)

    def write_elsewhere(self, summary: dict[str, Any]) -> None:
        """The file that is asked for."""
        if self.recipe.output is not None:
            write_teacher(Path(self.recipe.output), self.network, self.recipe, summary)


def rounded(network: Adapter) -> dict[str, torch.Tensor]:
    """The network's tensors in fp16, but for running statistics, which the BatchNorm judge compares with, in fp32."""
    return {
        key: value.half() if value.is_floating_point() and "running_" not in key else value
        for key, value in network.network.state_dict().items()
    }


def check_output(path: Path, recipe: str) -> None:
    """Make the folder of a teacher's file and of its card.

    Raises:
        StorageError: they could not be written at the end, or would replace what another recipe or somebody else made.
    """
    make_folder(path.parent)
    for file in (path, path.with_suffix(".md")):
        refuse_irregular(file)
    check_made_by(path, recipe)
    probe = path.parent / f".tmp-{path.name}-{os.getpid()}"  # whether one may write there, only writing tells
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise StorageError(f"{write_failure(path, 0, error)}; choose another output") from error


def check_made_by(path: Path, recipe: str) -> None:
    """Raises StorageError where a teacher's file, or its card, is there and was not made by `segkd teach` with this recipe."""
    if path.is_file():
        try:
            with safe_open(path, "pt") as file:
                made_by = (file.metadata() or {}).get("recipe")
        except (SafetensorError, OSError):
            made_by = None
        if made_by != recipe:
            whose = f"of the recipe {made_by}" if made_by else "that segkd teach has not made"
            raise StorageError(f"{path}: a file {whose} is there; move it away, or name another output")
    card = path.with_suffix(".md")
    if card.is_file() and "Made by `segkd teach" not in beginning(card):
        raise StorageError(
            f"{card}: a file that segkd teach has not made is there; move it away, or name another output"
        )


def write_teacher(path: Path, network: Adapter, recipe: TeachRecipe, summary: dict) -> None:
    """The fp16 weights at `path`, and beside them a model card with how they were made and what they score."""
    make_folder(path.parent)
    for file in (path, path.with_suffix(".md")):
        sweep(path.parent, f"{file.name}-")
    atomic_write(path, to_safetensors(rounded(network), format="pt", recipe=str(summary["recipe"])))
    atomic_write(path.with_suffix(".md"), card.of_file(path.stem, recipe, summary))
