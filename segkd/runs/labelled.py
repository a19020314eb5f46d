"""The labelled images that measure a run: read before its first step, and looked at during it and at its end."""

from __future__ import annotations

import itertools
from shlex import quote
from typing import Literal

from torch import nn

from segkd.data import catalogue
from segkd.data.resize import at_size
from segkd.data.samples import Dataset, Sample
from segkd.evaluation.evaluate import evaluate
from segkd.foundation import audit, terminal
from segkd.foundation.errors import Stopped
from segkd.machine import ranks
from segkd.recipe import DistillRecipe, Recipe, TeachRecipe, unset_root
from segkd.recipe.blocks import Model, Teacher
from segkd.runs.place import Place
from segkd.training.signals import StopFlag


class Labelled(list[Sample]):
    """A labelled set whose images are read or rendered once: looks during a run come back to the same few hundred.

    They are kept at the size at which they are measured: 654 frames of NYUv2 fill 800 MB as they are, 230 MB reduced.
    `most`: how many of them, the first ones.
    """

    def __init__(self, data: Dataset, size: Literal["protocol", "original"], most: int | None = None) -> None:
        super().__init__(at_size(sample, size) for sample in itertools.islice(data, most))
        self.classes, self.notes, self.size = data.classes, data.notes, size


def unmeasured(recipe: Recipe) -> list[str]:
    """What is not measured since nobody has said where SEGKD_DATA is, and the commands that would, in lines; else nothing.

    A folder that is named and missing is an error, and so are images that train and are away.
    """
    data = recipe.data
    trains = not isinstance(recipe, DistillRecipe) or recipe.synth.shows_set
    measures = data.name not in (None, "scenes") and (data.watch or data.final)
    if trains or not measures or data.root is None or not unset_root(data.root):
        return []
    split, root = data.final or data.watch, data.root.replace("${SEGKD_DATA}", "data")
    lines = [
        f"not measured: mIoU on {data.name}: its folder is {data.root}, and SEGKD_DATA is not set; all else is done. Measure it with"
    ]
    if catalogue.reader(data.name).public:
        lines.append(f"  segkd data prepare {data.name} --root {quote(root)}")
    return [
        *lines,
        f"  segkd eval {quote(recipe.run.dir)} --data {data.name} --root {quote(root)} --split {quote(split)}",
    ]


def labelled(recipe: Recipe, split: str | None) -> Labelled | None:
    """A split that measures, read whole before step 1 (a bad file is told then, not after hours); None without one.

    Labelled data that only measure may be away: see `unmeasured`.
    """
    if split is None or recipe.data.name is None or unmeasured(recipe):
        return None
    terminal.doing(f"preparing: the labelled images of {recipe.data.name} {split}")
    with audit.phase("evaluation"):
        data = catalogue.measuring(
            recipe.data.name, recipe.data.root, split, catalogue.class_map(*model_of(recipe).mapped_classes)
        )
        ranks.say(*data.notes)
        return Labelled(data, recipe.data.size)


def model_of(recipe: Recipe) -> Model | Teacher:
    """The block that says of which classes the networks of a run are, and what images they are shown."""
    return recipe.model if isinstance(recipe, TeachRecipe) else recipe.teacher


def score(network: nn.Module, data: Labelled, model: Model | Teacher, place: Place, stop: StopFlag) -> dict:
    """The scores of a network, shown images as `model` is, on a labelled set; several processes share its images.

    Raises:
        Stopped: a signal came while it ran.
    """
    with audit.phase("evaluation"):
        result = evaluate(
            ranks.with_mean_buffers(network), data, mean=model.mean, std=model.std, device=place.device, precision=place.precision,
            size=data.size, stop=stop,
        )  # fmt: skip
    if result is None:
        raise Stopped(stop.signum)
    return result
