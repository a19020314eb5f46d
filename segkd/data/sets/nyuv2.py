"""NYUv2 with 13 or 40 classes (Silberman, Hoiem, Kohli, Fergus, ECCV 2012): prepared, or in its official files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from segkd.data.classes import IGNORE, NYUV2_13, NYUV2_40
from segkd.data.images import read_image, read_mask
from segkd.data.lists import read_lines
from segkd.data.samples import FileSet, Report, Sample, check_size, label_error, refuse
from segkd.data.sets.nyuv2_mat import FRAMES, MAP_13, MAP_40, SPLITS, OfficialFiles
from segkd.foundation.errors import DataError

CLASSES = {13: NYUV2_13, 40: NYUV2_40}
_SUFFIXES = (".png", ".jpg", ".jpeg")


class NYUv2(FileSet):
    """One split of NYUv2; frames are read and checked when asked for.

    `root` holds either the prepared layout (`images/0001.png` or `.jpg`, `labels13/0001.png`, `labels40/0001.png`
    with 0 for void and classes from 1, `train.txt` and `test.txt` with a number a line) or the official files
    (`nyu_depth_v2_labeled.mat`, `splits.mat`, `classMapping40.mat` and, for 13 classes, `class13Mapping.mat`). Where
    both are, the prepared one is read.

    Splits: `test` is the official one; of the official training frames `val` is a fixed eighth and `train` the rest;
    `trainval` is both. `val` is taken in blocks of ten, since neighbouring frames show the same room.

    Attributes:
        ids: the numbers of the frames, from 1.
    """

    def __init__(self, root: str | os.PathLike[str], split: str, classes: int = 40, report: Report = refuse) -> None:
        """Find the frames of a split.

        Args:
            root: the folder.
            split: "train", "val", "trainval" or "test".
            classes: 13 or 40.
            report: is told of every frame that lacks a file, and the set goes on without it; by default it raises.

        Raises:
            DataError: neither layout is there, a file is missing or damaged, or an impossible split or class count.
        """
        if classes not in CLASSES:
            raise DataError(f"nyuv2 has 13 or 40 classes, not {classes}; set classes to nyuv2_13 or nyuv2_40")
        self.root, self.split, self.classes = Path(root), split, CLASSES[classes]
        self._source = _source(self.root, classes)
        chosen = frames_of(split, self._source.train, self._source.test)
        self.ids = self._source.present(chosen, report)

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, index: int) -> Sample:
        """Read one frame: image and mask of one size, void as `IGNORE`, classes from 0.

        Raises:
            DataError: a damaged file, two sizes, or an id that is no class (with the file, the id and the pixel).
        """
        name, image, source, ids = self._source.read(self.ids[index])
        return Sample(name, image, class_ids(source, ids, len(self.classes)))


def class_ids(source: str, ids: np.ndarray, classes: int) -> np.ndarray:
    """Ids (H,W) as in NYUv2's label files, 0 for void and classes from 1, as a mask (H,W) uint8.

    Raises:
        DataError: an id above `classes`, with the source and the pixel.
    """
    if not (allowed := ids <= classes).all():
        raise label_error(source, ids, allowed, f"NYUv2 has 1 to {classes}, and 0 for void")
    return np.where(ids == 0, IGNORE, ids.astype(np.int16) - 1).astype(np.uint8)


def labellings(root: Path) -> list[int]:
    """The numbers of classes that NYUv2 is labelled with in a folder; [40] where it is not there at all."""
    if (root / "images").is_dir():
        return [classes for classes in (40, 13) if (root / f"labels{classes}").is_dir()] or [40]
    return [40, 13] if (root / MAP_13).is_file() else [40]


def frames_of(split: str, train: Sequence[int], test: Sequence[int]) -> list[int]:
    """The frames of a split, given the official two."""
    train = sorted(train)
    held_out = [(position // 10) % 8 == 7 for position in range(len(train))]
    splits = {
        "train": [frame for frame, held in zip(train, held_out, strict=True) if not held],
        "val": [frame for frame, held in zip(train, held_out, strict=True) if held],
        "trainval": train,
        "test": sorted(test),
    }
    if split not in splits:
        raise DataError(f"nyuv2 has no split '{split}'; there are {', '.join(splits)}")
    if not splits[split]:
        raise DataError(f"nyuv2: no frames in {split}: the official training frames are {len(train)}")
    return splits[split]


def _source(root: Path, classes: int) -> _Prepared | _Official:
    if (root / "images").is_dir() and (root / "train.txt").is_file():
        return _Prepared(root, classes)
    if (root / FRAMES).is_file():
        return _Official(root, classes)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; NYUv2 is expected there")
    raise DataError(f"{root}: no NYUv2: neither images/ and train.txt (see segkd data prepare) nor {FRAMES}")


class _Official:
    """The official files in one folder."""

    def __init__(self, root: Path, classes: int) -> None:
        self.files = OfficialFiles({name: root / name for name in (FRAMES, SPLITS, MAP_40, MAP_13)}, (classes,))
        self.train, self.test, self.classes = self.files.train, self.files.test, classes

    def present(self, frames: Sequence[int], report: Report) -> list[int]:
        """All of them: the split was compared with the frames when it was read."""
        return list(frames)

    def read(self, frame: int) -> tuple[str, np.ndarray, str, np.ndarray]:
        """Name, image, where the labels come from, and ids as in the label files."""
        image, kinds = self.files.read(frame)
        return f"{FRAMES}/{frame:04d}", image, f"{self.files.path}: frame {frame}", self.files.ids(kinds, self.classes)


class _Prepared:
    """Folders of images and of label files, and lists of numbers."""

    def __init__(self, root: Path, classes: int) -> None:
        self.root, self.classes = root, classes
        self.labels = root / f"labels{classes}"
        if not self.labels.is_dir():
            raise DataError(f"{self.labels}: no such folder; it holds the labels of {classes} classes")
        self.train, self.test = (_numbers(root / f"{name}.txt") for name in ("train", "test"))
        if both := set(self.train) & set(self.test):
            raise DataError(f"{root / 'test.txt'}: frame {min(both)} is also in train.txt")

    def present(self, frames: Sequence[int], report: Report) -> list[int]:
        found = []
        for frame in frames:
            images = self._images(frame)
            if not images:
                report(DataError(f"{self.root / 'images' / f'{frame:04d}.png'}: missing image"))
            elif len(images) > 1:
                report(DataError(f"{images[1]}: a second image of frame {frame}, beside {images[0].name}"))
            elif not self._mask(frame).is_file():
                report(DataError(f"{self._mask(frame)}: missing mask"))
            else:
                found.append(frame)
        return found

    def read(self, frame: int) -> tuple[str, np.ndarray, str, np.ndarray]:
        """As `_Official.read`."""
        path, mask = self._images(frame)[0], self._mask(frame)
        image, ids = read_image(path), read_mask(mask)
        check_size(mask, ids, image)
        return path.relative_to(self.root).as_posix(), image, str(mask), ids

    def _images(self, frame: int) -> list[Path]:
        candidates = (self.root / "images" / f"{frame:04d}{suffix}" for suffix in _SUFFIXES)
        return [path for path in candidates if path.is_file()]

    def _mask(self, frame: int) -> Path:
        return self.labels / f"{frame:04d}.png"


def _numbers(path: Path) -> list[int]:
    """The frame numbers of a list, one a line."""
    found: dict[int, int] = {}
    for number, text in read_lines(path):
        if not (text.isascii() and text.isdigit() and 0 < int(text[:9]) and len(text) < 9):
            raise DataError(f"{path}:{number}: expected the number of a frame, from 1, found '{text[:40]}'")
        if int(text) in found:
            raise DataError(f"{path}:{number}: frame {int(text)} stands on line {found[int(text)]} already")
        found[int(text)] = number
    return list(found)
