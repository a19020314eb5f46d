"""What `segkd visualize` does: the masks of trained networks, drawn beside the images that were named and their ground truth."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from segkd.data import catalogue
from segkd.data.class_map import ClassMap
from segkd.data.classes import IGNORE, UNKNOWN, Classes, disagreement
from segkd.data.image_files import MAX_PIXELS
from segkd.data.images import read_image, read_mask
from segkd.data.labels import Labels, ask_about_white, labels_around
from segkd.data.pairing import Files, ending, files_of
from segkd.data.photos import Reading, images_of
from segkd.data.samples import check_labels
from segkd.evaluation import visualize as drawing
from segkd.evaluation.evaluate import predict
from segkd.evaluation.inference import Inference
from segkd.foundation.errors import DataError, StorageError, UsageError
from segkd.foundation.files import atomic_write
from segkd.foundation.resize import Size, side_of
from segkd.runs.trained import Model, Precision, check_reads, check_same_classes, device_and_bf16, seen_at

Kind = Literal["panel", "mask", "overlay"]


@dataclass(frozen=True)
class Job:
    """One image to be drawn: its file, its ground truth if there is one, and the file that will show it.

    `labels` says what the ground truth's file holds, where a `dataset.yaml` does; else the classes do. `mapping` is of those
    that are drawn, where it is of their teacher's. `fault` is what speaks against drawing it.
    """

    image: Path
    truth: Path | None
    out: Path
    labels: Labels | None = None
    mapping: ClassMap | None = None
    reading: Reading = Reading()
    fault: DataError | None = None


def plan_drawings(
    sources: Sequence[str | Path], out: str | Path, kind: Kind, classes: Classes, masks: str | Path | None = None, *,
    mapping: ClassMap | None = None, reading: Reading | None = None, note: Callable[[str], None] = lambda line: None,
) -> list[Job]:  # fmt: skip
    """What `visualize` will read and write.

    The images are named one by one, or by a folder with all below it. A drawing lies in `out` as its image lies in that
    folder, and is called STEM_KIND.png; images that would share a name get STEM-2, STEM-3 and so on, in the order given.
    Earlier drawings, and other files of a folder, are left out. A mask has its image's name, or the endings that the
    `dataset.yaml` in the masks' folder or above it tells; it means what that says, else it holds ids as the data set of
    these classes does.

    Args:
        mapping: how these classes were made of a teacher's: masks of the teacher's are then drawn so, too.
        reading: of 16-bit and of large images; by default as a `dataset.yaml` near the images says.
        note: is told what was left out.

    Raises:
        DataError: a folder without images, masks of which nobody has said whether 255 is a class, or a `dataset.yaml`
            of other classes. What speaks against a single image stands in its job.
        UsageError: a drawing would replace one of the images.
    """
    found: dict[Path, Path] = {}
    for source in sources:
        for image, place in images_of(Path(source), Path(out), note, None if masks is None else Path(masks)):
            found.setdefault(image, place)
    if not found:
        raise DataError("nothing to draw: all that was named are drawings of segkd visualize")
    labels = None if masks is None else labels_around(Path(masks))
    told = _classes_of_masks(labels, classes, mapping)
    mapping = mapping if mapping is not None and mapping.covers(told) else None
    if mapping is None and (wrong := disagreement(classes.names, told, "model")):
        raise DataError(wrong)
    truths = None if masks is None else files_of(Path(masks), "{name}.*", masks=True)
    taken: set[str] = set()
    jobs = []
    for image, place in found.items():
        how = (reading or Reading()).over(Reading.near(image, labels))
        job = Job(image, None, Path(out) / _free(place, kind, taken), labels, mapping, how)
        jobs.append(job if truths is None else _with_truth(job, place, truths))
    inputs = {path.resolve() for job in jobs for path in (job.image, job.truth) if path is not None}
    for job in jobs:
        if job.out.resolve() in inputs:
            raise UsageError(f"{job.out}: would replace an image or mask that is to be drawn; choose another --out")
    _ask([job.truth for job in jobs if job.truth is not None], labels, told, Path(masks or ""))
    return jobs


def _classes_of_masks(labels: Labels | None, classes: Classes, mapping: ClassMap | None) -> Classes:
    """What masks tell apart: as a `dataset.yaml` says, or as the data set of the classes, or else of their teacher's, does."""
    if labels is not None:
        return labels.classes
    known = classes if mapping is None or catalogue.label_ids(classes) is not None else mapping.teacher
    return classes if catalogue.label_ids(known) is None else known


def _free(place: Path, kind: Kind, taken: set[str]) -> Path:
    """PLACE_KIND.png, or the first of PLACE-2, PLACE-3, ... that no other drawing has."""
    stems = (place.stem if number == 1 else f"{place.stem}-{number}" for number in itertools.count(1))
    paths = (place.with_name(f"{stem}_{kind}.png") for stem in stems)
    # Folded: some file systems hold A and a for one name.
    path = next(path for path in paths if str(path).casefold() not in taken)
    taken.add(str(path).casefold())
    return path


def _with_truth(job: Job, place: Path, truths: Files) -> Job:
    """The job with its mask, or with what is wrong."""
    name = place.with_suffix("").as_posix()
    if job.labels is not None:
        said = job.labels.description
        name = name.removesuffix(ending(said.images)) + ending(said.masks)
    truth = truths.of.get(name) or truths.of.get(Path(name).name)
    if truth is None:
        return replace(job, fault=DataError(f"{truths.folder / name}.png: no such mask for {job.image}"))
    return replace(job, truth=truth)


def _ask(truths: Sequence[Path], labels: Labels | None, classes: Classes, masks: Path) -> None:
    """Raises DataError for masks of which nobody has said whether 255 is a class."""
    if labels is not None:
        labels.ask_about_white(truths)
    elif catalogue.label_ids(classes) is None:
        table = np.full(65536, UNKNOWN, np.uint8)
        table[: len(classes)], table[IGNORE] = np.arange(len(classes)), IGNORE
        ask_about_white(truths, table, classes.names, f"a dataset.yaml in {masks}")


def read_job(job: Job, classes: Classes) -> tuple[np.ndarray, np.ndarray | None]:
    """Image and class ids; an image alone is turned as its EXIF says, one with a mask is refused if it is turned.

    Raises:
        DataError: the job's fault, a damaged file, two sizes, or a label that is neither one of `classes` nor ignore.
    """
    if job.fault is not None:
        raise job.fault
    most, alone = job.reading.most_pixels or MAX_PIXELS, job.truth is None
    image = read_image(job.image, apply_orientation=alone, value_range=job.reading.value_range, most_pixels=most)
    if job.truth is None:
        return image, None
    truth = read_mask(job.truth, most_pixels=most) if job.labels is None else job.labels.read(job.truth)
    if truth.shape != image.shape[:2]:
        raise DataError(f"{job.truth}: the mask is {truth.shape}, the image {image.shape[:2]} (height, width)")
    if job.labels is None:
        known = classes if job.mapping is None else job.mapping.teacher
        if (relabelled := catalogue.label_ids(known)) is not None:
            truth = relabelled(str(job.truth), truth)
        else:
            check_labels(str(job.truth), truth, len(known))
    truth = truth.astype(np.uint8)
    return image, truth if job.mapping is None else job.mapping.labels(truth)


def visualize(
    model: Model, jobs: Sequence[Job], kind: Kind = "panel", *, teacher: Model | None = None, size: Size | None = None,
    inference: Inference | None = None, device: str = "auto", precision: Precision | None = None,
    done: Callable[[Job], None] | None = None, failed: Callable[[DataError], None] | None = None,
) -> list[str]:  # fmt: skip
    """Draw the masks of a model, one PNG for each job, each whole or absent, in the image's own size.

    Returns lines for whoever looks at them: first what size the networks were shown, then what windows were cut.

    What is wrong with one image keeps no other from being drawn: `failed` is called with it, and an error ends it all.

    The networks are shown the images at `size`, by default the model's own, as it is measured; `inference` shows them
    windows of each.

    `panel`: image | ground truth | teacher | student | disagreement, as far as they are there; `mask`: class ids with
    the palette, which `read_mask` gives back; `overlay`: the image tinted by its mask. `done` is called after each.

    Raises:
        DataError: teacher and student have other classes, or take images that are neither RGB nor grey; or, at the end, images that were not drawn.
        NumbersError: logits that are not finite.
        StorageError: the folder or a drawing cannot be written.
    """
    check_reads(model, teacher)
    if teacher is not None:
        check_same_classes(teacher, model)
    inference, (size, size_from) = inference or Inference(), model.size if size is None else (size, "as asked")
    side_of(size)  # a wrong one is told before anything is drawn
    place, bf16 = device_and_bf16(device, precision or model.precision)
    players = [player for player in (model, teacher) if player is not None]
    networks = [inference.of(player.network).to(place) for player in players]
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
            predict(network, [image], mean=player.mean, std=player.std, device=place,
                    precision="bf16" if bf16 else "fp32", size=size)[0]
            for player, network in zip(players, networks, strict=True)
        ]  # fmt: skip
        _make_folder(job.out.parent)
        atomic_write(job.out, drawing.as_png(_drawing(kind, image, truth, found, model)))
        if done is not None:
            done(job)
    if faults:
        raise _total(faults, len(jobs), failed is not None)
    return [seen_at(size, size_from), *inference.notes(networks[0])]


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
