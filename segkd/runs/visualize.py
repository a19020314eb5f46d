"""What `segkd visualize` does: the masks of trained networks, drawn."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from segkd.data import nyuv2
from segkd.data.camvid import VOID
from segkd.data.classes import CAMVID, IGNORE, NYUV2_13, NYUV2_40, Classes, disagreement
from segkd.data.images import read_image, read_mask
from segkd.data.labels import Labels, labels_around
from segkd.data.samples import check_labels
from segkd.evaluation import visualize as drawing
from segkd.evaluation.evaluate import predict
from segkd.foundation.errors import DataError, StorageError, UsageError
from segkd.foundation.files import atomic_write
from segkd.foundation.resize import Size, side_of
from segkd.runs.trained import Model, Precision, device_and_bf16

Kind = Literal["panel", "mask", "overlay"]
SUFFIXES = (".png", ".jpg", ".jpeg")
"""The images of a folder; a file that is named on its own may be called anything."""


@dataclass(frozen=True)
class Job:
    """One image to be drawn: its file, its ground truth if there is one, and the file that will show it.

    `labels` says what the ground truth's file holds, where a `dataset.yaml` does; else the classes do.
    """

    image: Path
    truth: Path | None
    out: Path
    labels: Labels | None = None


def plan_drawings(
    sources: Sequence[str | Path], out: str | Path, kind: Kind, classes: Classes, masks: str | Path | None = None
) -> list[Job]:
    """What `visualize` will read and write, with every input read once, so that a bad one stops all before the first.

    The images are named one by one or by their folder (not its subfolders). A drawing is called STEM_KIND.png;
    images that share a stem get STEM-2, STEM-3 and so on, in the order given. Masks mean what the `dataset.yaml` in
    their folder or above it says, else they hold ids as the data set of these classes does.

    Raises:
        DataError: a file that is missing or damaged, a folder without images, an image without mask, a label that is
            neither one of `classes` nor ignore, or a `dataset.yaml` of other classes.
        UsageError: a drawing would replace one of the images.
    """
    images = list(dict.fromkeys(image for source in sources for image in _images(Path(source))))
    labels = None if masks is None else labels_around(Path(masks))
    if labels is not None and (wrong := disagreement(classes.names, labels.classes, "model")):
        raise DataError(wrong)
    taken: set[str] = set()
    jobs = []
    for image in images:
        truth = None if masks is None else Path(masks) / f"{image.stem}.png"
        if truth is not None and not truth.is_file():
            raise DataError(f"{truth}: no such mask for {image}")
        jobs.append(Job(image, truth, Path(out) / f"{_free(image.stem, taken)}_{kind}.png", labels))
    inputs = {path.resolve() for job in jobs for path in (job.image, job.truth) if path is not None}
    for job in jobs:
        if job.out.resolve() in inputs:
            raise UsageError(f"{job.out}: would replace an image or mask that is to be drawn; choose another --out")
        _read(job, classes)
    return jobs


def visualize(
    model: Model, jobs: Sequence[Job], kind: Kind = "panel", *, teacher: Model | None = None, size: Size | None = None,
    device: str = "auto", precision: Precision | None = None, done: Callable[[Job], None] | None = None,
) -> None:  # fmt: skip
    """Draw the masks of a model, one PNG for each job, each whole or absent, in the image's own size.

    The networks are shown the images at `size`, by default the model's own, as it is measured.

    `panel`: image | ground truth | teacher | student | disagreement, as far as they are there; `mask`: class ids with
    the palette, which `read_mask` gives back; `overlay`: the image tinted by its mask. `done` is called after each.

    Raises:
        DataError: teacher and student have other classes.
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
    for job in jobs:
        image, truth = _read(job, model.classes)
        found = [
            predict(player.network, [image], mean=player.mean, std=player.std, device=place,
                    precision="bf16" if bf16 else "fp32", size=size)[0]
            for player in players
        ]  # fmt: skip
        _make_folder(job.out.parent)
        atomic_write(job.out, _drawing(kind, image, truth, found, model))
        if done is not None:
            done(job)


def check_same_classes(teacher: Model, model: Model) -> None:
    """Raises DataError where two models that are to be compared have other classes: their numbers, or the first name."""
    ours, theirs = model.classes, teacher.classes
    if len(ours) != len(theirs):
        raise DataError(f"classes disagree: teacher {len(theirs)}, {model.who} {len(ours)}")
    if wrong := disagreement(theirs.names, ours, "teacher"):
        raise DataError(f"{wrong}, whose classes the {model.who} has")


def _drawing(kind: Kind, image: np.ndarray, truth: np.ndarray | None, found: list[np.ndarray], model: Model) -> bytes:
    """The PNG of one job; `found` are the masks of the model and, where there is one, of its teacher."""
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
    buffer = io.BytesIO()
    picture.save(buffer, "png")
    return buffer.getvalue()


def _images(source: Path) -> list[Path]:
    if not source.is_dir():
        return [source]
    found = sorted(path for path in source.iterdir() if path.suffix.lower() in SUFFIXES)
    if not found:
        raise DataError(f"{source}: no images in this folder ({', '.join(SUFFIXES)})")
    return found


def _free(stem: str, taken: set[str]) -> str:
    """The stem, or the first of STEM-2, STEM-3, ... that no other drawing has."""
    numbered = (stem if number == 1 else f"{stem}-{number}" for number in itertools.count(1))
    # Folded: some file systems hold A and a for one name.
    name = next(name for name in numbered if name.casefold() not in taken)
    taken.add(name.casefold())
    return name


def _read(job: Job, classes: Classes) -> tuple[np.ndarray, np.ndarray | None]:
    """Image and class ids; an image alone is turned as its EXIF says, one with a mask is refused if it is turned."""
    image = read_image(job.image, apply_orientation=job.truth is None)
    if job.truth is None:
        return image, None
    truth = read_mask(job.truth) if job.labels is None else job.labels.read(job.truth)
    if truth.shape != image.shape[:2]:
        raise DataError(f"{job.truth}: the mask is {truth.shape}, the image {image.shape[:2]} (height, width)")
    if job.labels is not None:
        return image, truth
    if classes in (NYUV2_13, NYUV2_40):
        return image, nyuv2.class_ids(str(job.truth), truth, len(classes))
    if classes == CAMVID:
        truth = np.where(truth == VOID, IGNORE, truth)  # its files have an id of their own for void
    check_labels(str(job.truth), truth, len(classes))
    return image, truth.astype(np.uint8)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{folder}: cannot make the folder ({error.strerror}); choose another --out") from error
