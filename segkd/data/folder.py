"""Images and masks in folders of one's own, matched by their stems and described by a `dataset.yaml` beside them."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from segkd.data.description import FILE, IMAGES, MASKS, UNKNOWN, Description, read_description
from segkd.data.images import read_image, read_mask
from segkd.data.samples import FileSet, Report, Sample, check_size, label_error, refuse
from segkd.foundation.errors import DataError

_IMAGES = (".png", ".jpg", ".jpeg")
_MASKS = (".png",)
_ABOVE = 3
"""How far above a folder of masks its description is looked for."""


class Labels:
    """How the masks of a described folder become class ids.

    Attributes:
        classes: what the ids stand for.
    """

    def __init__(self, root: Path) -> None:
        """Read the description in `root`. Raises DataError for one that is missing or has mistakes."""
        self.description, self._source = read_description(root), root / FILE
        self.classes = self.description.class_list(root.resolve().name)
        self._table, self._colours = self.description.id_table(), self.description.colour_map()

    def read(self, path: Path) -> np.ndarray:
        """The mask (H,W) uint8 in a file, `IGNORE` where it does not count.

        Raises:
            DataError: a damaged file, or an id or colour that the description does not know.
        """
        mask = read_mask(path, colour_map=self._colours)
        if self._colours is not None:
            return mask
        ids = self._table[mask]
        if not (allowed := ids != UNKNOWN).all():
            raise label_error(str(path), mask, allowed, f"{self._source} has no such id")
        return ids


def labels_around(masks: Path) -> Labels | None:
    """Those that the nearest `dataset.yaml` describes, in a folder of masks or up to three above it; None without one."""
    folder = masks.resolve()
    roots = (folder, *folder.parents[:_ABOVE])
    root = next((place for place in roots if (place / FILE).is_file()), None)
    return None if root is None else Labels(root)


class Folder(FileSet):
    """One split of a folder; images are read and checked when asked for.

    The images of a split are in `images/SPLIT/` and its masks in `masks/SPLIT/`, or where the description says; each
    image has the mask of the same stem. Where neither folder is there, `SPLIT.txt` lists the stems that belong to the
    split, one a line, and the files are in `images/` and `masks/`. Images are PNG or JPEG, masks PNG.
    """

    def __init__(self, root: str | os.PathLike[str], split: str, report: Report = refuse) -> None:
        """Read the description and find the files.

        Args:
            root: the folder with `dataset.yaml`.
            split: any name.
            report: is told of every file without its partner, and the set goes on without it; by default it raises.

        Raises:
            DataError: a mistake in the description, no such split, an empty one, or files that do not match.
        """
        self.root, self.split = Path(root), split
        self._labels = Labels(self.root)
        self.classes = self._labels.classes
        self.pairs = _pairs(self.root, split, self._labels.description, report)

    def __len__(self) -> int:
        return len(self.pairs)

    def read(self, index: int) -> Sample:
        """Read one sample: image and mask of one size, with the ids of the classes and `IGNORE`.

        Raises:
            DataError: a damaged file, two sizes, or an id or colour that the description does not know.
        """
        path, mask_path = self.pairs[index]
        image, mask = read_image(path), self._labels.read(mask_path)
        check_size(mask_path, mask, image)
        return Sample(path.relative_to(self.root).as_posix(), image, mask)


def splits_of(root: Path) -> list[str]:
    """The splits that a folder has, sorted.

    Raises:
        DataError: a mistake in the description, or no split.
    """
    description = read_description(root)
    before, split, after = description.images.partition("{split}")
    found: set[str] = set()
    if split:
        folders = (path for path in root.glob(f"{glob.escape(before)}*{glob.escape(after)}") if path.is_dir())
        found = {path.relative_to(root).as_posix()[len(before) :].removesuffix(after) for path in folders}
    images = root / (before if not split else "images")
    if not found and images.is_dir():
        stems = {path.stem for path in images.iterdir()}
        texts = {path.stem: path.read_bytes().decode(errors="replace") for path in root.glob("*.txt")}
        found = {name for name, text in texts.items() if stems & {line.strip() for line in text.splitlines()}}
    if not found:
        raise DataError(f"{root}: no split: neither a folder {description.images} nor a list SPLIT.txt of stems")
    return sorted(found)


def _is_name(split: str) -> bool:
    return bool(split) and split not in (".", "..") and not set(split) & set("/\\*?[]{}")


def _pairs(root: Path, split: str, description: Description, report: Report) -> list[tuple[Path, Path]]:
    if not _is_name(split):
        raise DataError(f"{root}: '{split}' is no name of a split")
    images, masks = (root / pattern.replace("{split}", split) for pattern in (description.images, description.masks))
    listing = root / f"{split}.txt"
    listed = "{split}" not in description.images
    if (description.images, description.masks) == (IMAGES, MASKS) and not images.is_dir() and not masks.is_dir():
        images, masks, listed = root / "images", root / "masks", True
    if listed and not listing.is_file():
        folders = f", nor folders images/{split} and masks/{split}" if "{split}" in description.images else ""
        raise DataError(f"{listing}: no such list of stems{folders}")
    for folder in (images, masks):
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder")
    image_of, mask_of = _by_stem(images, _IMAGES, "image", report), _by_stem(masks, _MASKS, "mask", report)
    if listed:
        stems = list(_stems(listing, image_of, images, report))
    else:
        stems = sorted(image_of)
        for stem in sorted(mask_of.keys() - image_of.keys()):
            report(DataError(f"{mask_of[stem]}: mask without an image in {images}"))
    for stem in stems:
        if stem not in mask_of:
            report(DataError(f"{image_of[stem]}: image without a mask {stem}.png in {masks}"))
    pairs = [(image_of[stem], mask_of[stem]) for stem in stems if stem in mask_of]
    if not pairs:
        raise DataError(f"{listing if listed else images}: no image with a mask ({', '.join(_IMAGES)})")
    return pairs


def _by_stem(folder: Path, suffixes: Sequence[str], kind: str, report: Report) -> dict[str, Path]:
    """The files of a folder by their names without suffixes; hidden files and other kinds are not looked at."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in suffixes or path.name.startswith("."):
            continue
        if path.stem in found:
            report(DataError(f"{path}: a second {kind} called '{path.stem}', beside {found[path.stem].name}"))
        else:
            found[path.stem] = path
    return found


def _stems(listing: Path, known: Iterable[str], images: Path, report: Report) -> Iterable[str]:
    """The stems of a list that are images, in its order."""
    try:
        lines = listing.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{listing}: cannot be read: {error}") from error
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        stem = line.strip()
        if stem in seen:
            report(DataError(f"{listing}:{number}: '{stem}' stands on line {seen[stem]} already"))
        elif stem and stem not in known:
            report(DataError(f"{listing}:{number}: no image called '{stem}' in {images}"))
        elif stem:
            seen[stem] = number
            yield stem
