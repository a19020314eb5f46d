"""Procedural street scenes as a data set: rendered on demand, no file read or written."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from segkd.data.classes import Classes
from segkd.data.definition import LabelledSet
from segkd.data.samples import Report, Sample, refuse
from segkd.foundation import audit
from segkd.foundation.errors import DataError
from segkd.procedural.scenes import STREET_NAMES, STREET_PALETTE, render

SCENES = Classes("scenes", tuple(STREET_NAMES), tuple((int(r), int(g), int(b)) for r, g, b in STREET_PALETTE))

SPLITS = ("train", "val", "test")
SPLIT_SEEDS = 1_000_000
"""Seeds that belong to each split, one range after the other: the most scenes that a split can have."""


class SceneSet(LabelledSet):
    """The first ``count`` pictures of a split; splits never share a seed.

    Args:
        split: "train", "val" or "test".
        count: number of pictures, 1 to 1,000,000.
        size: height and width of each picture in pixels.

    Raises:
        DataError: for an unknown split or a count out of range.
    """

    classes = SCENES
    labellings = {SCENES: None}
    counts = {"train": 4000, "val": 500, "test": 500}  # 4000: half a minute of rendering and 200 MB
    obtained = None

    def __init__(self, split: str, count: int = 500, size: tuple[int, int] = (96, 128)) -> None:
        if split not in SPLITS:
            raise DataError(f"scenes have no split '{split}'; known: {', '.join(SPLITS)}")
        if not 1 <= count <= SPLIT_SEEDS:
            raise DataError(f"a split of scenes holds 1 to {SPLIT_SEEDS} pictures, not {count}")
        first = SPLITS.index(split) * SPLIT_SEEDS
        self.split, self.size = split, size
        self.seeds = range(first, first + count)

    @classmethod
    def at(cls, root: Path | None, split: str, classes: Classes | None, report: Report = refuse) -> Self:
        """The pictures of a split, as many as a teacher trains on and is measured with; in no folder."""
        return cls(split, cls.counts.get(split, 1))

    def __len__(self) -> int:
        return len(self.seeds)

    def read(self, index: int) -> Sample:
        """Picture ``index``, rendered now; counted by the audit.

        Raises:
            IndexError: when there is no such picture.
        """
        seed = self.seeds[index]
        image, mask = render(seed, self.size)
        audit.rendered()
        return Sample(f"scenes/{self.split}/{seed}", image, mask)
