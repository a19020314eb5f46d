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
from segkd.data.splits import Layout, Split
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


class LabelledSet(FileSet):
    """A data set that recipes and commands know: the last class of this kind in `data/sets/NAME.py` is the set NAME.

    Images and masks are found by its `layout`, read and checked when asked for.

    Attributes:
        labellings: its class lists, the usual one first, with what the ids in label files mean (None: it has none).
        counts: the images of each split as published.
        final: the split that is measured in the end where nobody says which; a literal, since recipes read it without NumPy.
        unlabelled: splits whose labels are not public.
        folders: what splits are called in paths, where that differs.
        sign, places: a folder that is in the root of the set, and where below it archives leave that root.
        one_size: whether all images have one size.
        alone: whether nothing else may lie in the folders of its files.
        public, made: the public files by name, and what `stage` makes of them for `segkd data prepare`: lists last, without
            which no reader takes it.
        obtained: of a set that is not prepared, where it is and how it must lie, in words; None: it has no files.
    """

    labellings: ClassVar[Mapping[Classes, Relabelling | None]] = {}
    counts: ClassVar[Mapping[str, int]] = {}
    final: ClassVar[str] = "test"
    unlabelled: ClassVar[Sequence[str]] = ()
    folders: ClassVar[Mapping[str, str]] = {}
    sign: ClassVar[str] = ""
    places: ClassVar[Sequence[str]] = ()
    one_size: ClassVar[bool] = True
    alone: ClassVar[bool] = False
    public: ClassVar[Mapping[str, Source]] = {}
    made: ClassVar[Sequence[str]] = ()
    obtained: ClassVar[str | None] = "is made there by segkd data prepare"
    root: Path
    pairs: Sequence[tuple[Path, Path]] = ()

    def __init__(self, root: str | os.PathLike[str], split: str, report: Report = refuse) -> None:
        """Find the files of a split.

        Args:
            report: is told of every file without its partner, and the set goes on without it; by default it raises.

        Raises:
            DataError: no such folder or list, a split that is empty or has no public labels, or files that do not match.
        """
        self.root = self.unpacked(root, split)
        found = Split(self.root, self.folders.get(split, split), self.layout(split), report)
        self.pairs, self.notes = found.pairs(), tuple(found.notes())

    @classmethod
    def unpacked(cls, root: str | os.PathLike[str], split: str = "") -> Path:
        """The folder that has `sign` in it. Raises DataError for none, or a split whose labels are not public."""
        name = cls.__module__.rpartition(".")[2]
        if split in cls.unlabelled:
            instead = f"measure on {cls.final}: --split {cls.final}, or data.final={cls.final} in a recipe"
            raise DataError(f"{name}: the labels of its {split} images are not public; {instead}")
        folders = [Path(root), *(Path(root, place) for place in cls.places)]
        if (found := next((folder for folder in folders if (folder / cls.sign).is_dir()), None)) is None:
            lacks = f"no {cls.sign} there" if cls.sign and Path(root).is_dir() else "no such folder"
            raise DataError(f"{Path(root)}: {lacks}; {name} {cls.obtained}")
        return found

    @staticmethod
    def stage(place: Any, source: str | None, public: Mapping[str, Source]) -> None:
        """Make the set in a `Staging`, of what `--from` names, or of the public files. Raises as `prepare` does."""
        raise NotImplementedError

    def layout(self, split: str) -> Layout:
        """Where images and masks of a split are below `root`."""
        raise NotImplementedError

    @classmethod
    def at(cls, root: Path, split: str, classes: Classes | None, report: Report = refuse) -> Self:
        """The split of the set in a folder, in the labelling that has as many classes, if there are several."""
        return cls(root, split, report)

    @classmethod
    def splits(cls, root: Path) -> Sequence[str]:
        """The splits that are to be verified in a folder."""
        return [*cls.counts]

    @classmethod
    def labellings_in(cls, root: Path) -> Sequence[Classes | None]:
        """The labellings that are to be verified in a folder; [None]: one of its own."""
        return [*cls.labellings] or [None]

    def __len__(self) -> int:
        return len(self.pairs)

    def read(self, index: int) -> Sample:
        """One sample: image and mask of one size. Raises DataError for a damaged file, two sizes, or an id without meaning."""
        path, mask_path = self.pairs[index]
        image, mask = self.image(path), self.mask(mask_path)
        check_size(mask_path, mask, image)
        return Sample(path.relative_to(self.root).as_posix(), image, mask)

    def image(self, path: Path) -> np.ndarray:
        """The image (H,W,3) uint8 RGB in a file. Raises DataError."""
        return read_image(path)

    def mask(self, path: Path) -> np.ndarray:
        """The mask (H,W) uint8 in a label file. Raises DataError."""
        return self.labellings[self.classes](str(path), read_mask(path))  # type: ignore[misc]
