"""What a data set holds: samples with masks, and the rule for their labels."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any, Protocol

import numpy as np

from segkd.data.classes import IGNORE, Classes
from segkd.foundation.errors import DataError


@dataclass(frozen=True, eq=False)
class Sample:
    """One image with its labels.

    Attributes:
        name: the image's path relative to its data set, or another name that is unique in it; shown in errors.
        image: (H,W,3) uint8, RGB.
        mask: (H,W) uint8, class ids with `IGNORE` (255) for void, or None for an image without labels.
    """

    name: str
    image: np.ndarray
    mask: np.ndarray | None


class Dataset(Protocol):
    """A sequence of samples with named classes; samples are read when asked for, `list(dataset)` keeps them all.

    `notes` are lines for whoever uses it: files that are there and do not belong to it.
    """

    classes: Classes
    notes: Sequence[str]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...

    def __iter__(self) -> Iterator[Sample]: ...


Report = Callable[[DataError], None]
"""What a data set tells of a fault among its files."""


class FileSet(Sequence[Sample]):
    """A `Dataset` in files, which are read and checked when a sample is asked for."""

    classes: Classes
    notes: Sequence[str] = ()

    @abstractmethod
    def read(self, index: int) -> Sample:
        """Read one sample: image and mask of one size. Raises DataError for a damaged file or a wrong id."""

    def __getitem__(self, index: int | slice) -> Any:
        """One sample, or a list of several; see `read`."""
        if isinstance(index, slice):
            return [self.read(i) for i in range(*index.indices(len(self)))]
        return self.read(index)


def label_error(source: str, mask: np.ndarray, allowed: np.ndarray, expected: str) -> DataError:
    """The error for the first pixel, in reading order, whose id is not allowed.

    Args:
        source: the file's name.
        mask: (H,W) integer ids as they stand in the file.
        allowed: (H,W) bool, False at the wrong pixels (at least one).
        expected: which ids are right, in words.
    """
    row, column = np.unravel_index(np.argmin(allowed), mask.shape)
    wrong = mask.size - int(np.count_nonzero(allowed))
    more = f" and {wrong - 1} more" if wrong > 1 else ""
    return DataError(f"{source}: label {mask[row, column]} at pixel (row {row}, column {column}){more}; {expected}")


def check_labels(source: str, mask: np.ndarray, count: int) -> None:
    """Check that every id of a mask (H,W) is in 0..count-1 or `IGNORE`.

    Raises:
        DataError: naming the source, the first wrong id and its pixel.
    """
    allowed = ((mask >= 0) & (mask < count)) | (mask == IGNORE)
    if not allowed.all():
        raise label_error(source, mask, allowed, f"expected 0 to {count - 1}, or {IGNORE} to ignore")


def check_size(source: str | PathLike[str], mask: np.ndarray, image: np.ndarray) -> None:
    """Check that a mask (H,W) is as large as its image (H,W,3).

    Raises:
        DataError: naming the source, the mask's file.
    """
    if mask.shape != image.shape[:2]:
        sizes = f"{mask.shape[1]}x{mask.shape[0]} but its image {image.shape[1]}x{image.shape[0]}"
        raise DataError(f"{source}: the mask has {sizes}")


def refuse(error: DataError) -> None:
    """Raise the error: what a data set does about a fault among its files, unless it is told to report and go on."""
    raise error
