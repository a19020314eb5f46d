"""CamVid with 11 classes, in the SegNet tutorial's layout (Brostow, Fauqueur, Cipolla, PRL 2009; arXiv:1511.00561)."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

import numpy as np

from segkd.data.classes import CAMVID, IGNORE
from segkd.data.image_files import SUFFIXES
from segkd.data.images import read_image, read_mask
from segkd.data.lists import read_lines
from segkd.data.samples import FileSet, Report, Sample, check_size, label_error, refuse
from segkd.foundation.errors import DataError

VOID = 11
"""The id of void in CamVid's label files."""


class CamVid(FileSet):
    """One split of CamVid; images are read and checked when asked for.

    `root/SPLIT.txt` lists pairs "image mask", one a line; of each path only the last two parts count, so that the
    published lists with their absolute `/SegNet/CamVid/...` paths work anywhere. Without a list all images of
    `root/SPLIT/` are taken, with the masks of the same names in `root/SPLITannot/`. Files are of the kinds that `images` reads.
    """

    classes = CAMVID

    def __init__(self, root: str | os.PathLike[str], split: str, report: Report = refuse) -> None:
        """Find the files of a split ("train", "val" or "test"); every image and mask must be there.

        Args:
            root, split: the folder, and which of its lists or folders.
            report: is told of every file without its partner, and the set goes on without it; by default it raises.

        Raises:
            DataError: no such folder, an empty split, a malformed list, or an image or mask that is missing.
        """
        self.root = Path(root)
        self.split = split
        if not self.root.is_dir():
            raise DataError(f"{self.root}: no such folder; CamVid is expected there, with {split}/ and {split}annot/")
        listing = self.root / f"{split}.txt"
        listed = listing.is_file()
        self.pairs = _listed_pairs(self.root, listing, report) if listed else _folder_pairs(self.root, split, report)

    def __len__(self) -> int:
        return len(self.pairs)

    def read(self, index: int) -> Sample:
        """Read one sample: image and mask of one size, void as `IGNORE`.

        Raises:
            DataError: a damaged file, two sizes, or an id other than 0 to 11 (with the file, the id and the pixel).
        """
        image_path, mask_path = self.pairs[index]
        image = read_image(image_path)
        raw = read_mask(mask_path)
        check_size(mask_path, raw, image)
        if not (allowed := raw <= VOID).all():
            raise label_error(str(mask_path), raw, allowed, f"CamVid has 0 to {VOID - 1}, and {VOID} for void")
        mask = np.where(raw == VOID, IGNORE, raw).astype(np.uint8)
        return Sample(image_path.relative_to(self.root).as_posix(), image, mask)


def _listed_pairs(root: Path, listing: Path, report: Report) -> list[tuple[Path, Path]]:
    pairs = []
    for number, line in read_lines(listing):
        words = line.split()
        try:
            if len(words) != 2:
                raise DataError(f"{listing}:{number}: expected an image and a mask, found {len(words)} words")
            image, mask = (_last_two(word, f"{listing}:{number}") for word in words)
            pairs.append((_existing(root / image, "image"), _existing(root / mask, "mask")))
        except DataError as error:
            report(error)
    if not pairs:
        raise DataError(f"{listing}: lists no images")
    return pairs


def _last_two(word: str, where: str) -> PurePosixPath:
    parts = PurePosixPath(word).parts[-2:]
    if len(parts) != 2 or ".." in parts or "/" in parts:
        raise DataError(f"{where}: '{word}' is not a file in a folder")
    return PurePosixPath(*parts)


def _existing(path: Path, kind: str) -> Path:
    """The file, or the one of that name with another suffix: the published lists say .png, many copies are .jpg."""
    for candidate in (path, *(path.with_suffix(suffix) for suffix in SUFFIXES)):
        if candidate.is_file():
            return candidate
    raise DataError(f"{path}: missing {kind}")


def _folder_pairs(root: Path, split: str, report: Report) -> list[tuple[Path, Path]]:
    images, masks = root / split, root / f"{split}annot"
    for folder in (images, masks):
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder, and no list {root / split}.txt")
    found = sorted(path for path in images.iterdir() if path.suffix.lower() in SUFFIXES)
    if not found:
        raise DataError(f"{images}: no images ({', '.join(SUFFIXES)})")
    pairs = []
    for path in found:
        try:
            pairs.append((path, _existing(masks / f"{path.stem}.png", "mask")))
        except DataError as error:
            report(error)
    for mask in sorted(masks.iterdir()):
        if mask.suffix.lower() in SUFFIXES and mask.stem not in {path.stem for path in found}:
            report(DataError(f"{mask}: mask without an image in {images}"))
    return pairs
