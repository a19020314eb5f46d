"""Procedural pictures as data sets, streets ("scenes") and rooms: rendered on demand, no file read or written."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, get_args

from segkd.data.classes import ROOMS, SCENES, Classes
from segkd.data.samples import Sample
from segkd.foundation import audit
from segkd.foundation.errors import DataError
from segkd.procedural import rooms
from segkd.procedural import scenes

Split = Literal["train", "val", "test"]

KINDS = {"scenes": (SCENES, scenes.render), "rooms": (ROOMS, rooms.render)}
"""The classes of each kind of picture, and what draws one from a seed."""

SPLIT_SEEDS = 1_000_000
"""Seeds that belong to each split, one range after the other: the most scenes that a split can have."""


class SceneSet:
    """The first ``count`` pictures of a split; splits never share a seed.

    Args:
        split: "train", "val" or "test".
        count: number of pictures, 1 to 1,000,000.
        size: height and width of each picture in pixels.
        kind: "scenes" or "rooms".

    Raises:
        DataError: for an unknown split or a count out of range.
    """

    classes: Classes
    notes: tuple[str, ...] = ()

    def __init__(self, split: Split, count: int = 500, size: tuple[int, int] = (96, 128), kind: str = "scenes") -> None:
        if split not in get_args(Split):
            raise DataError(f"{kind} have no split '{split}'; known: {', '.join(get_args(Split))}")
        if not 1 <= count <= SPLIT_SEEDS:
            raise DataError(f"a split of {kind} holds 1 to {SPLIT_SEEDS} pictures, not {count}")
        first = get_args(Split).index(split) * SPLIT_SEEDS
        self.classes, self._render = KINDS[kind]
        self.kind, self.split, self.size = kind, split, size
        self.seeds = range(first, first + count)

    def __len__(self) -> int:
        return len(self.seeds)

    def __getitem__(self, index: int) -> Sample:
        """Picture ``index``, rendered now; counted by the audit.

        Raises:
            IndexError: when there is no such picture.
        """
        seed = self.seeds[index]
        image, mask = self._render(seed, self.size)
        audit.rendered()
        return Sample(f"{self.kind}/{self.split}/{seed}", image, mask)

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))
