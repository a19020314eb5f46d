"""What `segkd visualize` is to draw: the images that were named, their ground truth, and where each drawing goes."""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from segkd.data import catalogue
from segkd.data.classes import IGNORE, UNKNOWN, Classes, disagreement
from segkd.data.image_files import MAX_PIXELS, SUFFIXES
from segkd.data.images import read_image, read_mask
from segkd.data.labels import Labels, ask_about_white, labels_around
from segkd.data.pairing import Files, below, ending, files_of
from segkd.data.samples import check_labels
from segkd.foundation.errors import DataError, UsageError

Kind = Literal["panel", "mask", "overlay"]
_MARK = ("Software", "segkd visualize")
"""A text in each drawing, so that it is not taken for a photo the next time."""
_HEAD = 256  # bytes of a PNG in which its first text stands


@dataclass(frozen=True)
class Reading:
    """How files are read: the values of 16-bit images that are black and white, and the most pixels; None: not said."""

    value_range: tuple[int, int] | None = None
    most_pixels: int | None = None

    @classmethod
    def parsed(cls, value_range: str | None, megapixels: int | None) -> Reading:
        """The same from a command line. Raises UsageError for a range that is none."""
        low, high = None, None
        if value_range is not None:
            found = re.fullmatch(r"([0-9]{1,5}),([0-9]{1,5})", value_range)
            low, high = map(int, found.groups()) if found else (0, 0)
            if not low < high < 65536:
                raise UsageError(f"--range {value_range}: expected the values that are black and white, as 0,4095")
        most = None if megapixels is None else megapixels * 1_000_000
        return cls(None if low is None else (low, high), most)

    def over(self, other: Reading) -> Reading:
        """What this one says, and else what the other says."""
        return Reading(self.value_range or other.value_range, self.most_pixels or other.most_pixels)


@dataclass(frozen=True)
class Job:
    """One image to be drawn: its file, its ground truth if there is one, and the file that will show it.

    `labels` says what the ground truth's file holds, where a `dataset.yaml` does; else the classes do. `fault` is what
    speaks against drawing it.
    """

    image: Path
    truth: Path | None
    out: Path
    labels: Labels | None = None
    reading: Reading = Reading()
    fault: DataError | None = None


def plan_drawings(
    sources: Sequence[str | Path], out: str | Path, kind: Kind, classes: Classes, masks: str | Path | None = None, *,
    reading: Reading | None = None, note: Callable[[str], None] = lambda line: None,
) -> list[Job]:  # fmt: skip
    """What `visualize` will read and write.

    The images are named one by one, or by a folder with all below it. A drawing lies in `out` as its image lies in that
    folder, and is called STEM_KIND.png; images that would share a name get STEM-2, STEM-3 and so on, in the order given.
    Earlier drawings, and other files of a folder, are left out. A mask has its image's name, or the endings that the
    `dataset.yaml` in the masks' folder or above it tells; it means what that says, else it holds ids as the data set of
    these classes does.

    Args:
        reading: of 16-bit and of large images; by default as a `dataset.yaml` near the images says.
        note: is told what was left out.

    Raises:
        DataError: a folder without images, masks of which nobody has said whether 255 is a class, or a `dataset.yaml`
            of other classes. What speaks against a single image stands in its job.
        UsageError: a drawing would replace one of the images.
    """
    found: dict[Path, Path] = {}
    for source in sources:
        for image, place in images_of(Path(source), Path(out), note):
            found.setdefault(image, place)
    labels = None if masks is None else labels_around(Path(masks))
    if labels is not None and (wrong := disagreement(classes.names, labels.classes, "model")):
        raise DataError(wrong)
    truths = None if masks is None else files_of(Path(masks), "{name}.*", masks=True)
    taken: set[str] = set()
    jobs = []
    for image, place in found.items():
        how = (reading or Reading()).over(described(image, labels))
        job = Job(image, None, Path(out) / _free(place, kind, taken), labels, how)
        jobs.append(job if truths is None else _with_truth(job, place, truths))
    inputs = {path.resolve() for job in jobs for path in (job.image, job.truth) if path is not None}
    for job in jobs:
        if job.out.resolve() in inputs:
            raise UsageError(f"{job.out}: would replace an image or mask that is to be drawn; choose another --out")
    _ask([job.truth for job in jobs if job.truth is not None], labels, classes, Path(masks or ""))
    return jobs


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
    if job.labels is not None:
        return image, truth
    if (relabelled := catalogue.label_ids(classes)) is not None:
        return image, relabelled(str(job.truth), truth)
    check_labels(str(job.truth), truth, len(classes))
    return image, truth.astype(np.uint8)


def as_png(picture: Image.Image) -> bytes:
    """A drawing's file, marked as one."""
    mark, buffer = PngInfo(), io.BytesIO()
    mark.add_text(*_MARK)
    picture.save(buffer, "png", pnginfo=mark)
    return buffer.getvalue()


def is_drawing(path: Path) -> bool:
    """Whether a file is one that `as_png` made."""
    if path.suffix.lower() != ".png":
        return False
    try:
        with path.open("rb") as file:
            return b"tEXt" + "\0".join(_MARK).encode() in file.read(_HEAD)
    except OSError:
        return False  # it is told when it is read as an image


def images_of(source: Path, out: Path | None, note: Callable[[str], None]) -> Iterator[tuple[Path, Path]]:
    """The images that a source names, each with its place below the folder that was named; none that lie in `out`."""
    if not source.is_dir():
        if is_drawing(source):
            note(f"{source}: left out: a drawing of segkd visualize")
        else:
            yield source, Path(source.name)
        return
    inside = out.resolve() if out is not None and source.resolve() in out.resolve().parents else None
    kinds: dict[str, list[str]] = {"drawings": [], "others": [], "images": []}
    for path in sorted(below(source)):
        other = path.suffix.lower() not in SUFFIXES
        drawn = not other and (is_drawing(path) or (inside is not None and inside in path.resolve().parents))
        kinds["others" if other else "drawings" if drawn else "images"].append(path.relative_to(source).as_posix())
    for key, words in (("drawings", "drawings and files of --out"), ("others", "files of other kinds")):
        if names := kinds[key]:
            note(f"{source}: {len(names)} {words} left out ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})")
    if not kinds["images"]:
        raise DataError(f"{source}: no images in this folder ({', '.join(SUFFIXES)})")
    yield from ((source / name, Path(name)) for name in kinds["images"])


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


def described(image: Path, labels: Labels | None) -> Reading:
    """As the description of the masks says, or one near the image, should there be one."""
    try:
        near = labels or labels_around(image.parent)
    except DataError:
        near = None  # a dataset.yaml of somebody else's
    return Reading() if near is None else Reading(near.description.range, near.description.most_pixels)


def _ask(truths: Sequence[Path], labels: Labels | None, classes: Classes, masks: Path) -> None:
    """Raises DataError for masks of which nobody has said whether 255 is a class."""
    if labels is not None:
        labels.ask_about_white(truths)
    elif catalogue.label_ids(classes) is None:
        table = np.full(65536, UNKNOWN, np.uint8)
        table[: len(classes)], table[IGNORE] = np.arange(len(classes)), IGNORE
        ask_about_white(truths, table, classes.names, f"a dataset.yaml in {masks}")
