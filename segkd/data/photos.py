"""Images without labels: those that a command line names, one by one or by their folder."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from segkd.data.formats.header import GREY, PALETTE
from segkd.data.image_files import MAX_PIXELS, SUFFIXES
from segkd.data.images import read_image
from segkd.data.labels import Labels, labels_around
from segkd.data.pairing import below
from segkd.data.samples import FileSet, Sample
from segkd.foundation.errors import DataError, UsageError

DRAWN = ("Software", "segkd visualize")
"""A text in each PNG that segkd draws, so that it is not taken for a photo the next time."""
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

    @classmethod
    def near(cls, image: Path, labels: Labels | None) -> Reading:
        """As the description of the masks says, or one near the image, should there be one."""
        try:
            near = labels or labels_around(image.parent)
        except DataError:
            near = None  # a dataset.yaml of somebody else's
        return Reading() if near is None else Reading(near.description.range, near.description.most_pixels)

    def over(self, other: Reading) -> Reading:
        """What this one says, and else what the other says."""
        return Reading(self.value_range or other.value_range, self.most_pixels or other.most_pixels)


def is_drawing(path: Path) -> bool:
    """Whether a file is one that `segkd visualize` drew."""
    return path.suffix.lower() == ".png" and b"tEXt" + "\0".join(DRAWN).encode() in _beginning(path, _HEAD)


def _beginning(path: Path, most: int) -> bytes:
    """The first bytes of a file; none of a pipe, or of what cannot be read: that is told when it is read as an image."""
    if not path.is_file():
        return b""
    try:
        with path.open("rb") as file:
            return file.read(most)
    except OSError:
        return b""


def images_of(
    source: Path, out: Path | None, note: Callable[[str], None], masks: Path | None = None
) -> Iterator[tuple[Path, Path]]:
    """The images that a source names, each with its place below the folder that was named; none that lie in `out` or `masks`."""
    if not source.is_dir():
        if is_drawing(source):
            note(f"{source}: left out: a drawing of segkd visualize")
        else:
            yield source, Path(source.name)
        return
    apart = {
        place.resolve() for place in (out, masks) if place is not None and source.resolve() in place.resolve().parents
    }
    kinds: dict[str, list[str]] = {"drawings": [], "others": [], "images": []}
    for path in sorted(below(source)):
        other = path.suffix.lower() not in SUFFIXES
        drawn = not other and (is_drawing(path) or not apart.isdisjoint(path.resolve().parents))
        kinds["others" if other else "drawings" if drawn else "images"].append(path.relative_to(source).as_posix())
    for key, words in (("drawings", "drawings and files of --out or --masks"), ("others", "files of other kinds")):
        if names := kinds[key]:
            note(f"{source}: {len(names)} {words} left out ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})")
    if not kinds["images"]:
        raise DataError(f"{source}: no images in this folder ({', '.join(SUFFIXES)})")
    yield from ((source / name, Path(name)) for name in kinds["images"])


class Photos(FileSet):
    """The images of a folder and of those below it, by their paths; each is turned as its EXIF says.

    Args:
        folder: hidden files, earlier drawings of segkd, and files of other kinds are left out; `notes` tell how many.

    Raises:
        DataError: there is no such folder, or no image in it, or it holds masks beside its images, which would be taken for photos (a
            folder `masks` beside `images`, or a grey or palette PNG of the name that an image in colour has); when an
            image is asked for: it is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder")
        if (folder / "images").is_dir() and (folder / "masks").is_dir():
            images = folder / "images"
            raise DataError(f"{folder}: holds masks too; name {images}, or describe the masks in a dataset.yaml there")
        self.notes: list[str] = []
        self.paths = [path for path, _ in images_of(folder, None, self.notes.append)]
        if (pair := _mask_among(self.paths)) is not None:
            raise DataError(f"{pair[0]}: seems to be the mask of {pair[1]}; name the folder of the images alone")

    def __len__(self) -> int:
        return len(self.paths)

    def listing(self) -> str:
        """A hash of the names of the images and of how long their files are."""
        lines = (f"{path.relative_to(self.folder).as_posix()} {path.stat().st_size}\n" for path in self.paths)
        return hashlib.sha256("".join(lines).encode(errors="surrogateescape")).hexdigest()

    def read(self, index: int) -> Sample:
        """One image without a mask. Raises DataError."""
        path = self.paths[index]
        said = Reading.near(path, None)
        most = said.most_pixels or MAX_PIXELS
        image = read_image(path, apply_orientation=True, value_range=said.value_range, most_pixels=most)
        return Sample(path.relative_to(self.folder).as_posix(), image, None)


def _mask_among(paths: Sequence[Path]) -> tuple[Path, Path] | None:
    """The first file that seems to be a mask, and its image."""
    of_stem: dict[str, list[Path]] = {}
    for path in paths:
        of_stem.setdefault(path.stem, []).append(path)
    for same in of_stem.values():
        masks = [path for path in same if len(same) > 1 and _holds_ids(path)]
        if masks and len(masks) < len(same):
            return masks[0], next(path for path in same if path not in masks)
    return None


def _holds_ids(path: Path) -> bool:
    """Whether a file is a grey or palette PNG, by its header."""
    head = _beginning(path, 26)
    return head.startswith(b"\x89PNG") and len(head) == 26 and head[25] in (GREY, PALETTE)
