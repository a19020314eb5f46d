"""The splits of a folder: which images belong to each, and their masks, by patterns or by lists."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from segkd.data.lists import Known, read_lines, without_suffix
from segkd.data.pairing import ANY_KIND, SPLIT, below, beside, compiled, files_of, paired, start, suggestion, whole
from segkd.data.samples import Report
from segkd.foundation.errors import DataError

_NAMED = 3
"""Files that a line about many of them names."""


class Layout(NamedTuple):
    """Where a folder has images and masks: patterns as in a `dataset.yaml`, and the list of a split if it has one."""

    images: str = "images/{split}"
    masks: str = "masks/{split}"
    list: str | None = None


def splits_of(root: Path, layout: Layout) -> list[str]:
    """The splits that a folder has, sorted; `all` where it has images and no splits. Raises DataError for no images."""
    if found := _folders(root, layout):
        return sorted(found)
    images = "images" if layout.images == Layout().images else layout.images
    files = files_of(root, whole(images)) if SPLIT not in images and (root / start(whole(images))).is_dir() else None
    if files is None or not files.of:
        raise DataError(f"{root}: no split: neither a folder {layout.images} nor a list SPLIT.txt of images")
    return sorted(_lists(root, layout, Known(files.of, root))) or ["all"]


def _folders(root: Path, layout: Layout) -> set[str]:
    """The splits whose images the pattern finds, by name."""
    pattern = whole(layout.images)
    if SPLIT not in pattern or not (root / start(pattern)).is_dir():
        return set()
    form = compiled(pattern)
    found = (form.fullmatch(path.relative_to(root).as_posix()) for path in below(root / start(pattern)))
    return {match["split"] for match in found if match}


def _lists(root: Path, layout: Layout, known: Known) -> set[str]:
    """The splits whose lists name an image."""
    pattern = layout.list or f"{SPLIT}.txt"
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


class Split:
    """The search for the pairs of one split; what has no partner is told to `report`, or raised by it.

    Raises:
        DataError: an impossible name, no such folder or list, or no pair at all.
    """

    def __init__(self, root: Path, split: str, layout: Layout, report: Report) -> None:
        if not split or split in (".", "..") or set(split) & set("/\\*?[]{}"):
            raise DataError(f"{root}: '{split}' is no name of a split")
        self.root, self.split, self.layout, self.report = root, split, layout, report
        patterns = [whole(pattern.replace(SPLIT, split)) for pattern in layout[:2]]
        self.flat = layout[:2] == Layout()[:2] and not any((root / start(pattern)).is_dir() for pattern in patterns)
        self.declared = ("images", "masks") if self.flat else layout[:2]
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
        chosen = None if self.listing is None else self._listed(self.listing)
        if chosen is None and not images.of.keys() & masks.of.keys():
            raise DataError(self._why())
        if chosen == {}:
            raise DataError(f"{self.listing}: no image with a mask")
        strays = self.listing is None and (SPLIT in self.declared[1] or not self.parted)
        return paired(images, masks, self.report, chosen, strays)

    def notes(self) -> Iterator[str]:
        """What to say of files that do not belong to it."""
        if not self.parted:
            yield f"{self.root}: has no splits: '{self.split}' is all that is there"
        if self._unread():
            yield (
                f"{self.root / f'{self.split}.txt'}: not read, since {self.images.folder} is a folder; it lists other images"
                f' than lie there: in dataset.yaml list: "{SPLIT}.txt" would choose them'
            )
        for files in (self.images, self.masks) if self.listing is None else ():
            if files.others and (files is self.images or files.pattern.endswith(ANY_KIND)):
                yield f"{files.folder}: left out: {_some(files.others, files.folder)}"

    def _listing(self) -> Path | None:
        """The split's list, if it has one."""
        said = self.layout
        if said.list is not None or SPLIT in self.declared[0]:
            return None if said.list is None else self.root / said.list.replace(SPLIT, self.split)
        listing = self.root / f"{self.split}.txt"
        if listing.is_file():
            return listing
        others = _lists(self.root, said, Known(self.images.of, self.root)) or _folders(self.root, said)
        if others:
            folders = f", nor folders images/{self.split} and masks/{self.split}" if self.flat else ""
            there = f"there are the splits {', '.join(sorted(others))}"
            raise DataError(f"{listing}: no such list of images{folders}; {there}")
        return None

    def _unread(self) -> bool:
        """Whether a list of other images lies beside the folders of the split, which hold without it."""
        listing = self.root / f"{self.split}.txt"
        if self.flat or self.layout != Layout() or not listing.is_file():
            return False
        known = Known(self.images.of, self.root)
        return _names_any(listing, known) and {known.find(said) for _, said in read_lines(listing)} != set(
            self.images.of
        )

    def _listed(self, listing: Path) -> dict[str, str]:
        """The names of a list's images, each with that of its mask: its own, or the one that stands beside it."""
        known, labels = Known(self.images.of, self.root), Known(self.masks.of, self.root)
        chosen: dict[str, str] = {}
        lines: dict[str, int] = {}
        for number, said in read_lines(listing):
            words = _words(said)
            # The end of a pair may be an image's name too; and names may hold spaces.
            pair = (
                len(words) == 2 and said not in known and (known.find(words[0]) or without_suffix(words[0]) != words[0])
            )
            name, label = (known.find(words[0]), labels.find(words[1])) if pair else [known.find(said)] * 2
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
