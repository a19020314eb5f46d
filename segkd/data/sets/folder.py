"""Images and masks in folders of one's own, paired by their names and described by a `dataset.yaml` beside them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from segkd.data.definition import LabelledSet
from segkd.data.description import read_description
from segkd.data.images import read_image
from segkd.data.labels import Labels
from segkd.data.samples import Report, refuse
from segkd.data.splits import Layout, splits_of


class Folder(LabelledSet):
    """One split of a folder; images are read and checked when asked for.

    The images of a split are in `images/SPLIT/` and its masks in `masks/SPLIT/`, or where the description says; each
    image has the mask of the same name. Where neither folder is there, `SPLIT.txt` lists the images that belong to the
    split, one a line, and the files are in `images/` and `masks/`; without any list these are one split, whatever it is
    called. Endings do not count: `a.jpg` has the mask `a.png`.
    """

    one_size = False
    obtained = "is your own: docs/data.md says how it may lie, and what its dataset.yaml says"

    def __init__(self, root: str | os.PathLike[str], split: str, report: Report = refuse) -> None:
        """Read the description and find the files.

        Raises:
            DataError: as for every set; also a mistake in the description, or masks of which nobody has said whether
                255 is a class.
        """
        self._labels = Labels(Path(root))
        self.classes = self._labels.classes
        super().__init__(root, split, report)
        self._labels.ask_about_white([mask for _, mask in self.pairs], report)

    def layout(self, split: str) -> Layout:
        """As the description says."""
        said = self._labels.description
        return Layout(said.images, said.masks, said.list)

    @classmethod
    def splits(cls, root: Path) -> list[str]:
        """Those that a folder has. Raises DataError for a mistake in the description, or no images."""
        said = read_description(root)
        return splits_of(root, Layout(said.images, said.masks, said.list))

    def image(self, path: Path) -> np.ndarray:
        """As the description says. Raises DataError."""
        said = self._labels.description
        return read_image(path, value_range=said.range, most_pixels=said.most_pixels)

    def mask(self, path: Path) -> np.ndarray:
        """As the description says. Raises DataError, also for an id or colour that it does not know."""
        return self._labels.read(path)
