"""What `segkd eval` does: a trained network is scored on a labelled set, or compared with another one on any images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from segkd.data import catalogue
from segkd.data.class_map import ClassMap
from segkd.data.classes import disagreement
from segkd.data.description import FILE
from segkd.data.photos import Photos
from segkd.data.samples import Dataset
from segkd.evaluation.agreement import compare
from segkd.evaluation.evaluate import Shown
from segkd.evaluation.evaluate import evaluate as score
from segkd.evaluation.inference import Inference
from segkd.foundation.errors import DataError, UsageError
from segkd.foundation.resize import PROTOCOL_SIDE, Size, side_of
from segkd.recipe import expand_root
from segkd.runs.trained import Model, Precision, check_reads, check_same_classes, device_and_bf16, seen_at

SIZE_NAMES = {PROTOCOL_SIDE: "protocol", None: "original"}
WITHOUT_LABELS = "without labels: --data folder --root DIR --against TEACHER"


def evaluate(
    model: Model,
    *,
    data: str | None = None,
    root: str | None = None,
    split: str | None = None,
    size: Size | None = None,
    inference: Inference | None = None,
    against: Model | None = None,
    confusion: bool = False,
    device: str = "auto",
    precision: Precision | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> dict[str, Any]:
    """Score a model on a labelled set, by the rules of `segkd.evaluation.evaluate`; same keys, and `options`.

    What is not given is as in the model's recipe: the data set, its root, its final split (or `test`), the precision; and
    the size is the model's own. `inference` shows the network windows, scales or mirror images of each image.
    `progress(done, total)` is called after every batch. `options` are the data, split, size, slide, scales, flip and
    precision that were used; `notes` are lines for whoever reads the figures: first what size it was shown, last what
    files of the set were left out.

    With `against`, another model of the same classes, the keys of `segkd.evaluation.agreement.compare` are added, on the
    same images shown alike. The set `folder` then needs no labels: of a root without a description all images are taken,
    and there are no other keys; `confusion` says that the confusion with the truth is wanted.

    Raises:
        UsageError: no data set, neither given nor in a recipe.
        DataError: the set cannot be read, or not for images of the model's channels; or its classes are not as many, or not called, as the model's.
    """
    check_reads(model, against)
    if against is not None:
        check_same_classes(against, model)
    size, size_from = model.size if size is None else (size, "as asked")
    inference, side = inference or Inference(), side_of(size)
    name, split, images = _images(model, data, root, split, against)
    if confusion and isinstance(images, Photos):
        raise UsageError(
            "the confusion matrix is drawn of labels, and there are none; the JSON holds agreement_confusion"
        )
    place, bf16 = device_and_bf16(device, precision or model.precision)
    student = _shown(model, inference, place, bf16)
    found: dict[str, Any] = {}
    if not isinstance(images, Photos):
        found = score(
            student.model, images, mean=model.mean, std=model.std, device=place, precision=student.precision, size=size,
            progress=progress,
        )  # fmt: skip
    notes = [seen_at(size, size_from), *inference.notes(student.model), *images.notes]
    options = {"data": name, "split": split, "size": SIZE_NAMES.get(side, side), "shorter_side": side}
    options |= {**inference.as_dict(), "precision": student.precision}
    if against is not None:
        teacher = _shown(against, inference, place, bf16)
        found |= compare(student, teacher, images, model.classes, size=size, progress=progress)
        options["against"] = against.name
        notes.append(
            f"agreement is with {against.name}, on the same images shown alike; it is no measurement of the truth"
        )
    return {**found, "options": options, "notes": notes}


def _images(
    model: Model, data: str | None, root: str | None, split: str | None, against: Model | None
) -> tuple[str, str | None, Dataset | Photos]:
    """The set that is asked for, or that of the model's recipe: its name, its split (None: it has none), its images."""
    own = None if model.recipe is None else model.recipe.data
    name = data or (own.name if own is not None else None)
    if name is None:
        labelled = "--data NAME --root DIR (docs/data.md), or --data scenes"
        raise UsageError(f"nothing to measure on: give {labelled}; {WITHOUT_LABELS}")
    folder = None if name != "folder" or root is None else expand_root(root)
    if folder is not None and folder.is_dir() and not (folder / FILE).is_file():
        if against is None:
            raise DataError(f"{folder}: no {FILE} says what its masks mean (docs/data.md); {WITHOUT_LABELS}")
        if split is not None:
            raise UsageError(f"split {split}: {folder} has no {FILE}, so all its images are taken; leave the split out")
        return name, None, Photos(folder)
    if own is not None and own.name == name:
        root, split = root or own.root, split or own.final
    split = split or catalogue.reader(name).final
    mapping = model.mapping or (against and against.mapping)
    labelled = catalogue.measuring(name, root, split, mapping or ClassMap.of(model.classes))
    if wrong := disagreement(model.classes.names, labelled.classes, "model"):
        merged = mapping is None and len(model.classes) < len(labelled.classes)
        advice = "; where it has merged these (teacher.student_classes), name the folder of its run, which knows how"
        raise DataError(wrong + advice * merged)
    return name, split, labelled


def _shown(model: Model, inference: Inference, place: torch.device, bf16: bool) -> Shown:
    """The model on its device, shown images as `inference` says."""
    network = inference.of(model.network).to(place)
    return Shown(network, model.mean, model.std, place, "bf16" if bf16 else "fp32")
