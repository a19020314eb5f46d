"""Images and masks in folders of one's own, paired by their names and described by a `dataset.yaml` beside them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from segkd.data.definition import LabelledSet
from segkd.data.description import IMAGES, MASKS, Description, read_description
from segkd.data.images import read_image
from segkd.data.labels import Labels
from segkd.data.lists import Known, read_lines
from segkd.data.pairing import (
    ANY_KIND,
    SPLIT,
    below,
    beside,
    compiled,
    files_of,
    paired,
    start,
    suggestion,
    whole,
)
from segkd.data.samples import Report, refuse
from segkd.foundation.errors import DataError

_NAMED = 3
"""Files that a line about many of them names."""


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

        Args:
            root: the folder with `dataset.yaml`.
            split: any name.
            report: is told of every file without its partner, and the set goes on without it; by default it raises.

        Raises:
            DataError: a mistake in the description, no such split, an empty one, files that do not match, or masks of
                which nobody has said whether 255 is a class.
        """
        self.root, self.split = Path(root), split
        self._labels = Labels(self.root)
        self.classes = self._labels.classes
        found = _Split(self.root, split, self._labels.description, report)
        self.pairs, self.notes = found.pairs(), tuple(found.notes())
        self._labels.ask_about_white([mask for _, mask in self.pairs], report)

    @classmethod
    def splits(cls, root: Path) -> list[str]:
        """Those that a folder has."""
        return splits_of(root)

    def image(self, path: Path) -> np.ndarray:
        """As the description says. Raises DataError."""
        said = self._labels.description
        return read_image(path, value_range=said.range, most_pixels=said.most_pixels)

    def mask(self, path: Path) -> np.ndarray:
        """As the description says. Raises DataError, also for an id or colour that it does not know."""
        return self._labels.read(path)


def splits_of(root: Path) -> list[str]:
    """The splits that a folder has, sorted; `all` where it has images and no splits.

    Raises:
        DataError: a mistake in the description, or no images.
    """
    description = read_description(root)
    if found := _folders(root, description):
        return sorted(found)
    images = "images" if description.images == IMAGES else description.images
    files = files_of(root, whole(images)) if SPLIT not in images and (root / start(whole(images))).is_dir() else None
    if files is None or not files.of:
        raise DataError(f"{root}: no split: neither a folder {description.images} nor a list SPLIT.txt of images")
    return sorted(_lists(root, description, Known(files.of, root))) or ["all"]


def _folders(root: Path, description: Description) -> set[str]:
    """The splits whose images the pattern finds, by name."""
    pattern = whole(description.images)
    if SPLIT not in pattern or not (root / start(pattern)).is_dir():
        return set()
    form = compiled(pattern)
    found = (form.fullmatch(path.relative_to(root).as_posix()) for path in below(root / start(pattern)))
    return {match["split"] for match in found if match}


def _lists(root: Path, description: Description, known: Known) -> set[str]:
    """The splits whose lists name an image."""
    pattern = description.list or f"{SPLIT}.txt"
    folder = root / start(pattern)
    if SPLIT not in pattern or not folder.is_dir():
        return set()
    form, found = compiled(pattern), set()
    for path in folder.iterdir() if folder == root else below(folder):
        match = form.fullmatch(path.relative_to(root).as_posix())
        if match and _names_any(path, known):
            found.add(match["split"])
    return found


def _names_any(listing: Path, known: Known) -> bool:
    try:
        return any(known.find(said) or known.find(_words(said)[0]) for _, said in read_lines(listing))
    except DataError:
        return False  # a text that is no list


def _words(said: str) -> list[str]:
    """The words of a line, which may be an image and its mask."""
    return said.replace(",", " ").replace(";", " ").split() or [said]


def _is_name(split: str) -> bool:
    return bool(split) and split not in (".", "..") and not set(split) & set("/\\*?[]{}")


class _Split:
    """The search for the pairs of one split."""

    def __init__(self, root: Path, split: str, description: Description, report: Report) -> None:
        if not _is_name(split):
            raise DataError(f"{root}: '{split}' is no name of a split")
        self.root, self.split, self.description, self.report = root, split, description, report
        patterns = [whole(self._filled(pattern)) for pattern in (description.images, description.masks)]
        self.flat = (description.images, description.masks) == (IMAGES, MASKS) and not any(
            (root / start(pattern)).is_dir() for pattern in patterns
        )
        self.declared = ("images", "masks") if self.flat else (description.images, description.masks)
        images, masks = map(whole, self.declared) if self.flat else patterns
        self.images, self.masks = files_of(root, images), files_of(root, masks, masks=True)
        belong = set(self.masks.of.values())  # both may be in one folder
        self.images.of = {name: path for name, path in self.images.of.items() if path not in belong}
        self.images.others = [path for path in self.images.others if path not in belong]
        self.listing = self._listing()
        self.parted = self.listing is not None or SPLIT in self.declared[0]

    def pairs(self) -> list[tuple[Path, Path]]:
        """Images with their masks, in the order of their names or of their list."""
        images, masks = self.images, self.masks
        if self.listing is not None:
            chosen = self._listed(self.listing)
        elif images.of.keys() & masks.of.keys():
            chosen = {name: name for name in sorted(images.of)}
        else:
            raise DataError(self._why())
        if not chosen:
            raise DataError(f"{self.listing}: no image with a mask")
        strays = self.listing is None and (SPLIT in self.declared[1] or not self.parted)
        return paired(images, masks, self.report, chosen, strays)

    def notes(self) -> Iterator[str]:
        """What to say of files that do not belong to it."""
        if not self.parted:
            yield f"{self.root}: has no splits: '{self.split}' is all that is there"
        for files in (self.images, self.masks) if self.listing is None else ():
            if files.others and (files is self.images or files.pattern.endswith(ANY_KIND)):
                yield f"{files.folder}: left out: {_some(files.others, files.folder)}"

    def _listing(self) -> Path | None:
        """The split's list, if it has one."""
        said = self.description
        if said.list is not None or SPLIT in self.declared[0]:
            return None if said.list is None else self.root / self._filled(said.list)
        listing = self.root / f"{self.split}.txt"
        if listing.is_file():
            return listing
        others = _lists(self.root, said, Known(self.images.of, self.root)) or _folders(self.root, said)
        if others:
            folders = f", nor folders images/{self.split} and masks/{self.split}" if self.flat else ""
            raise DataError(
                f"{listing}: no such list of images{folders}; there are the splits {', '.join(sorted(others))}"
            )
        return None

    def _filled(self, pattern: str) -> str:
        return pattern.replace(SPLIT, self.split)

    def _listed(self, listing: Path) -> dict[str, str]:
        """The names of a list's images, each with that of its mask: its own, or the one that stands beside it."""
        known, labels = Known(self.images.of, self.root), Known(self.masks.of, self.root)
        chosen: dict[str, str] = {}
        lines: dict[str, int] = {}
        for number, said in read_lines(listing):
            name = label = known.find(said)
            words = _words(said)
            if name is None and len(words) == 2:
                name, label = known.find(words[0]), labels.find(words[1])
            if name is None or label is None:
                kind, files = ("image", self.images) if name is None else ("mask", self.masks)
                told = f"no {kind} called '{said}' in {files.folder}{beside(said, files)}"
                self.report(DataError(f"{listing}:{number}: {told}"))
            elif name in chosen:
                self.report(DataError(f"{listing}:{number}: '{said}' stands on line {lines[name]} already"))
            else:
                chosen[name], lines[name] = label, number
        return chosen

    def _why(self) -> str:
        """Why nothing pairs, and what would."""
        images, masks = self.images, self.masks
        for files, kind in ((images, "image"), (masks, "mask")):
            if not files.of:
                there = f"; there are {_some(files.others, files.folder)}" if files.others else ""
                return f"{files.folder}: no {kind} {files.pattern}{there}"
        name, other = min(images.of), min(masks.of)
        told = f"{images.of[name].name} would need {masks.shown(name)}, and there is {masks.of[other].name}"
        return f"{images.folder}: none of {len(images.of)} images has a mask: {told}{suggestion(images, masks, self.declared)}"


def _some(paths: list[Path], folder: Path) -> str:
    """How many files, and the first of them."""
    names = ", ".join(path.relative_to(folder).as_posix() for path in paths[:_NAMED])
    kinds = "file of another kind or name" if len(paths) == 1 else "files of other kinds or names"
    return f"{len(paths)} {kinds} ({names}{', ...' if len(paths) > _NAMED else ''})"
