"""Procedural street scenes as a data set: rendered on demand, no file read or written."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, get_args

from segkd.data.classes import SCENES
from segkd.data.samples import Sample
from segkd.foundation import audit
from segkd.foundation.errors import DataError
from segkd.procedural.scenes import render

Split = Literal["train", "val", "test"]

SPLIT_SEEDS = 1_000_000
"""Seeds that belong to each split, one range after the other: the most scenes that a split can have."""


class SceneSet:
    """The first ``count`` pictures of a split; splits never share a seed.

    Args:
        split: "train", "val" or "test".
        count: number of pictures, 1 to 1,000,000.
        size: height and width of each picture in pixels.

    Raises:
        DataError: for an unknown split or a count out of range.
    """

    classes = SCENES
    notes: tuple[str, ...] = ()

    def __init__(self, split: Split, count: int = 500, size: tuple[int, int] = (96, 128)) -> None:
        if split not in get_args(Split):
            raise DataError(f"scenes have no split '{split}'; known: {', '.join(get_args(Split))}")
        if not 1 <= count <= SPLIT_SEEDS:
            raise DataError(f"a split of scenes holds 1 to {SPLIT_SEEDS} pictures, not {count}")
        first = get_args(Split).index(split) * SPLIT_SEEDS
        self.split, self.size = split, size
        self.seeds = range(first, first + count)

    def __len__(self) -> int:
        return len(self.seeds)

    def __getitem__(self, index: int) -> Sample:
        """Picture ``index``, rendered now; counted by the audit.

        Raises:
            IndexError: when there is no such picture.
        """
        seed = self.seeds[index]
        image, mask = render(seed, self.size)
        audit.rendered()
        return Sample(f"scenes/{self.split}/{seed}", image, mask)

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))
