"""What the masks of a folder hold, as the `dataset.yaml` beside them says."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from segkd.data.classes import IGNORE, UNKNOWN
from segkd.data.description import FILE, read_description
from segkd.data.image_files import MAX_PIXELS
from segkd.data.images import read_mask
from segkd.data.samples import Report, label_error, refuse
from segkd.foundation.errors import DataError

_ABOVE = 3
"""How far above a folder of masks its description is looked for."""
_WHITE = 255
"""By convention ignored; but drawing programs write it for a foreground."""


class Labels:
    """How the masks of a described folder become class ids.

    Attributes:
        description: the `dataset.yaml`.
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
        mask = read_mask(path, colour_map=self._colours, most_pixels=self.description.most_pixels)
        if self._colours is not None:
            return mask
        ids = self._table[mask]
        if not (allowed := ids != UNKNOWN).all():
            wrong = int(mask.reshape(-1)[np.argmin(allowed)])
            told = f"{self._source} has no such id; in it remap: {{{wrong}: CLASS}} would say what it is"
            raise label_error(str(path), mask, allowed, told)
        return ids

    def ask_about_white(self, masks: Sequence[Path], report: Report = refuse) -> None:
        """Report masks in which 255 may be a class, where the description leaves open what it is."""
        said = self.description
        if said.labels == "ids" and said.ignore is None and _WHITE not in said.remap:
            ask_about_white(masks, self._table, self.classes.names, str(self._source), report, said.most_pixels)


def labels_around(masks: Path) -> Labels | None:
    """Those that the nearest `dataset.yaml` describes, in a folder of masks or up to three above it; None without one."""
    folder = masks.resolve()
    roots = (folder, *folder.parents[:_ABOVE])
    root = next((place for place in roots if os.path.isfile(place / FILE)), None)  # a place that is not ours has none
    return None if root is None else Labels(root)


def ask_about_white(
    masks: Sequence[Path], table: np.ndarray, names: Sequence[str], source: str, report: Report = refuse,
    most_pixels: int = MAX_PIXELS,
) -> None:  # fmt: skip
    """Report masks of which nobody has said whether 255 is to be ignored, and which look as if it were a class.

    Where it stands beside several classes it is to be ignored. But a set that shows one class and 255, or of two classes
    never the second beside 255, was probably drawn in black and white.

    Args:
        masks: those of one set; read until it is clear.
        table: (65536,) uint8, the class of each id, `IGNORE` or `UNKNOWN`; 255 is ignored.
        names: of the classes.
        source: the file that would say what 255 is.
    """
    seen: set[int] = set()
    white: list[Path] = []
    beside = False
    for path in masks:
        try:
            raw = np.unique(read_mask(path, most_pixels=most_pixels))
        except DataError:
            continue  # is told when the sample is read
        found = {int(index) for index in table[raw]} - {IGNORE, UNKNOWN}
        seen |= found
        if _WHITE in raw:
            white.append(path)
            beside |= 1 in found
        if len(seen) > 1 and (beside or len(names) > 2):
            return
    if white and seen:
        report(DataError(_question(white, len(masks), seen, table, names, source)))


def _question(
    white: Sequence[Path], count: int, seen: set[int], table: np.ndarray, names: Sequence[str], source: str
) -> str:
    """The line that asks what 255 is."""
    foreground = 1 if len(seen) > 1 else 1 - min(seen)
    shown = "the only class beside it" if len(seen) == 1 else "never in one mask with it"
    known = min(seen) if len(seen) == 1 else 1
    ids = {int(np.flatnonzero(table == index)[0]): names[index] for index in sorted(seen)}
    told = ", ".join(f"{key}: {name}" for key, name in ids.items())
    meant = names[foreground] if len(names) == 2 else "CLASS"
    return (
        f"{white[0]}: {len(white)} of {count} masks hold 255, which would be ignored, and '{names[known]}' is {shown};"
        f" say in {source} what 255 is: remap: {{{told}, 255: {meant}}}, or ignore: 255"
    )
