"""What `segkd visualize` does: the masks of trained networks, drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from segkd.evaluation import visualize as drawing
from segkd.evaluation.evaluate import predict
from segkd.foundation.errors import DataError, StorageError
from segkd.foundation.files import atomic_write
from segkd.foundation.resize import Size, side_of
from segkd.runs.drawings import Job, Kind, as_png, read_job
from segkd.runs.trained import Model, Precision, check_same_classes, device_and_bf16


def visualize(
    model: Model, jobs: Sequence[Job], kind: Kind = "panel", *, teacher: Model | None = None, size: Size | None = None,
    device: str = "auto", precision: Precision | None = None, done: Callable[[Job], None] | None = None,
    failed: Callable[[DataError], None] | None = None,
) -> None:  # fmt: skip
    """Draw the masks of a model, one PNG for each job, each whole or absent, in the image's own size.

    What is wrong with one image keeps no other from being drawn: `failed` is called with it, and an error ends it all.

    The networks are shown the images at `size`, by default the model's own, as it is measured.

    `panel`: image | ground truth | teacher | student | disagreement, as far as they are there; `mask`: class ids with
    the palette, which `read_mask` gives back; `overlay`: the image tinted by its mask. `done` is called after each.

    Raises:
        DataError: teacher and student have other classes; or, at the end, images that were not drawn.
        NumbersError: logits that are not finite.
        StorageError: the folder or a drawing cannot be written.
    """
    if teacher is not None:
        check_same_classes(teacher, model)
    size = model.size if size is None else size
    side_of(size)  # a wrong one is told before anything is drawn
    place, bf16 = device_and_bf16(device, precision or model.precision)
    players = [player for player in (model, teacher) if player is not None]
    for player in players:
        player.network.to(place)
    faults: list[DataError] = []
    for job in jobs:
        try:
            image, truth = read_job(job, model.classes)
        except DataError as error:
            faults.append(error)
            if failed is not None and len(jobs) > 1:
                failed(error)
            continue
        found = [
            predict(player.network, [image], mean=player.mean, std=player.std, device=place,
                    precision="bf16" if bf16 else "fp32", size=size)[0]
            for player in players
        ]  # fmt: skip
        _make_folder(job.out.parent)
        atomic_write(job.out, as_png(_drawing(kind, image, truth, found, model)))
        if done is not None:
            done(job)
    if faults:
        raise _total(faults, len(jobs), failed is not None)


def _total(faults: Sequence[DataError], jobs: int, named: bool) -> DataError:
    """The error of all images that were not drawn."""
    if jobs == 1:
        return faults[0]
    reasons = "named above" if named else "; ".join(map(str, faults))
    return DataError(f"{len(faults)} of {jobs} images not drawn: {reasons}")


def _drawing(
    kind: Kind, image: np.ndarray, truth: np.ndarray | None, found: list[np.ndarray], model: Model
) -> Image.Image:
    """The drawing of one job; `found` are the masks of the model and, where there is one, of its teacher."""
    classes, mask = model.classes, found[0]
    if kind == "mask":
        picture = Image.fromarray(mask)
        picture.putpalette([channel for colour in classes.palette for channel in colour])
    elif kind == "overlay":
        picture = Image.fromarray(drawing.overlay(image, mask, classes))
    else:
        lone_teacher = len(found) == 1 and model.who == "teacher"
        teacher, student = (mask, None) if lone_teacher else (found[1] if len(found) == 2 else None, mask)
        picture = Image.fromarray(drawing.panel(image, truth, teacher, student, classes=classes))
    return picture


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{folder}: cannot make the folder ({error.strerror}); choose another --out") from error
