"""What a file in `data/sets/` says about its data set: class lists and the ids of label files, counts, where it is from."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from segkd.data.classes import UNKNOWN, Classes
from segkd.data.images import read_image, read_mask
from segkd.data.samples import FileSet, Report, Sample, check_size, label_error, refuse
from segkd.foundation.errors import DataError

Relabelling = Callable[[str, np.ndarray], np.ndarray]
"""From a label file's name and its ids (H,W) to the mask (H,W) uint8 that they mean; DataError for an id that means nothing."""


def relabelling(ids: Mapping[int, int], expected: str) -> Relabelling:
    """What label files mean by their ids: a class or `IGNORE` each; `expected` says in words which there are."""
    table = np.full(65536, UNKNOWN, np.uint8)
    table[list(ids)] = list(ids.values())

    def relabelled(source: str, raw: np.ndarray) -> np.ndarray:
        mask = table[raw]
        if not (allowed := mask != UNKNOWN).all():
            raise label_error(source, raw, allowed, expected)
        return mask

    return relabelled


@dataclass(frozen=True)
class Source:
    """A published file: its address and, where these are known for certain, its bytes and their SHA-256."""

    url: str
    bytes: int | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Preparation:
    """How `segkd data prepare` makes a set of its public files.

    Attributes:
        public: where these are, by their names.
        layout: the files and folders that are made, the lists last: a set without its lists is refused by its reader.
        stage: makes them in a `Workplace`, of a `--from` (None: of the public files, whose addresses come third).
    """

    public: Mapping[str, Source]
    layout: Sequence[str]
    stage: Callable[[Any, str | None, Mapping[str, Source]], None]


class LabelledSet(FileSet):
    """A data set that recipes and commands know: the last class of this kind in `data/sets/NAME.py` is the set NAME.

    As it stands it reads `pairs` of images and masks below `root`, with the ids of the chosen labelling.

    Attributes:
        labellings: its class lists, the usual one first, with what the ids in the label files mean (None: there are none).
        counts: the images of each split as published.
        unlabelled: splits whose labels are not public.
        one_size: whether all images have one size.
        alone: whether nothing else may lie in the folders of its files.
        preparation: how it is made of its public files.
        obtained: of a set that is not prepared, where its files are and how they must lie, in words; None: it has none.
    """

    labellings: ClassVar[Mapping[Classes, Relabelling | None]] = {}
    counts: ClassVar[Mapping[str, int]] = {}
    unlabelled: ClassVar[Sequence[str]] = ()
    one_size: ClassVar[bool] = True
    alone: ClassVar[bool] = False
    preparation: ClassVar[Preparation | None] = None
    obtained: ClassVar[str | None] = ""
    root: Path
    pairs: Sequence[tuple[Path, Path]] = ()

    def __init__(self, root: Path, split: str, report: Report = refuse) -> None:
        raise NotImplementedError

    @classmethod
    def at(cls, root: Path, split: str, classes: Classes | None, report: Report = refuse) -> Self:
        """The split of the set in a folder, in the labelling that has as many classes, if there are several."""
        return cls(root, split, report)

    @classmethod
    def splits(cls, root: Path) -> list[str]:
        """The splits that are to be verified in a folder."""
        return [*cls.counts]

    @classmethod
    def labellings_in(cls, root: Path) -> Sequence[Classes | None]:
        """Those of its labellings that are to be verified in a folder."""
        return [next(iter(cls.labellings), None)]

    @classmethod
    def check_split(cls, split: str) -> None:
        """Raises DataError for a split that was not published, or not with its labels."""
        name = cls.called()
        if split in cls.unlabelled:
            instead = "measure on val: --split val, or data.final=val in a recipe"
            raise DataError(f"{name}: the labels of its {split} images are not public; {instead}")
        if split not in cls.counts:
            raise DataError(f"{name} has no split '{split}'; there are {', '.join(cls.counts)}")

    @classmethod
    def unpacked(cls, root: str | os.PathLike[str], sign: str, *places: str) -> Path:
        """The folder that has `sign` in it: `root`, or the first of the places below it where archives leave it.

        Raises:
            DataError: none has, with how the set must lie.
        """
        folders = [Path(root), *(Path(root, place) for place in places)]
        if (found := next((folder for folder in folders if (folder / sign).is_dir()), None)) is None:
            raise DataError(f"{Path(root)}: no {sign} there; {cls.called()} {cls.obtained}")
        return found

    @classmethod
    def called(cls) -> str:
        """Its name: that of its file."""
        return cls.__module__.rpartition(".")[2]

    def __len__(self) -> int:
        return len(self.pairs)

    def read(self, index: int) -> Sample:
        """Read one sample: image and mask of one size, with the ids of the classes and `IGNORE`.

        Raises:
            DataError: a damaged file, two sizes, or an id that means nothing (with the file, the id and the pixel).
        """
        path, mask_path = self.pairs[index]
        image, mask = self.image(path), self.mask(mask_path)
        check_size(mask_path, mask, image)
        return Sample(path.relative_to(self.root).as_posix(), image, mask)

    def image(self, path: Path) -> np.ndarray:
        """The image (H,W,3) uint8 RGB in a file. Raises DataError."""
        return read_image(path)

    def mask(self, path: Path) -> np.ndarray:
        """The mask (H,W) uint8 in a label file. Raises DataError."""
        relabelled = self.labellings[self.classes]
        assert relabelled is not None
        return relabelled(str(path), read_mask(path))
