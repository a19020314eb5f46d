"""Every file of a data set looked at, and each bad one named: what `segkd data verify` says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from segkd.data.samples import Dataset, Report
from segkd.data.sets.camvid import CamVid
from segkd.data.sets.folder import Folder, splits_of
from segkd.data.sets.nyuv2 import NYUv2, labellings
from segkd.foundation.errors import DataError

Name = Literal["camvid", "nyuv2", "folder"]
COUNTS: dict[str, dict[str, int]] = {
    "camvid": {"train": 367, "val": 101, "test": 233},
    "nyuv2": {"train": 700, "val": 95, "test": 654},
}
"""Images of the splits as published (NYUv2's 795 for training are held here as train and val)."""


@dataclass
class Findings:
    """What was found: a line for each split that could be read, what was left out of it, and one for each problem."""

    splits: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def note(self, error: DataError) -> None:
        """Add an error's lines to the problems; what NYUv2's two labellings both see is told once."""
        self.problems += [line for line in str(error).splitlines() if line not in self.problems]

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Note the error that ends the block, and go on behind it."""
        try:
            yield
        except DataError as error:
            self.note(error)


def verify(
    name: Name, root: Path, splits: Sequence[str] = (), *,
    counts: Mapping[str, Mapping[str, int]] = COUNTS, progress: Callable[[int, int], None] | None = None,
) -> Findings:  # fmt: skip
    """Read every image and mask of a data set, whatever is wrong with the others.

    Args:
        name: which set.
        root: its folder.
        splits: those to look at; none: all, and then, if nothing else is wrong, files that belong to none.
        counts: images that the splits of a set should have.
        progress: is called with the images done and their number.
    """
    findings = Findings()
    sets: list[tuple[str, str, Dataset]] = []
    with findings.noting():
        if not root.is_dir():
            raise DataError(f"{root}: no such folder")
        for split in splits or ([*counts[name]] if name in counts else splits_of(root)):
            with findings.noting():
                for label, data in _opened(name, root, split, findings.note):
                    sets.append((split, label, data))
    done, total = 0, sum(len(data) for _, _, data in sets)
    for split, label, data in sets:
        sizes: dict[str, tuple[int, ...]] = {}
        for index in range(len(data)):
            with findings.noting():
                sample = data[index]
                sizes[sample.name] = sample.image.shape[:2]
            done += 1
            if progress is not None:
                progress(done, total)
        expected = counts.get(name, {}).get(split, len(data))
        if len(data) != expected:
            findings.note(DataError(f"{root}: {label}: {len(data)} images, where {expected} were published"))
        findings.splits += [f"{label}: {len(data)} images{_size(name, root, sizes, findings.note)}", *data.notes]
    if not splits and not findings.problems:
        _note_strangers(name, root, [data for _, _, data in sets], findings.note)
    return findings


def _opened(name: Name, root: Path, split: str, report: Report) -> Iterator[tuple[str, Dataset]]:
    """The sets of a split, each with what to call it: one, but for NYUv2 one for each labelling."""
    if name == "camvid":
        yield split, CamVid(root, split, report)
    elif name == "folder":
        yield split, Folder(root, split, report)
    else:
        for classes in labellings(root):
            yield f"{split} ({classes} classes)", NYUv2(root, split, classes, report)


def _size(name: Name, root: Path, sizes: Mapping[str, tuple[int, ...]], report: Report) -> str:
    """In words, the size that the images of a split have; those of a published set all have one."""
    ranked = Counter(sizes.values()).most_common()
    if len(ranked) != 1:
        for image, (height, width) in sizes.items() if name != "folder" else ():
            if (height, width) != ranked[0][0]:
                most = f"{ranked[0][1]} images have {ranked[0][0][1]}x{ranked[0][0][0]}"
                report(DataError(f"{root / image}: {width}x{height} pixels, where {most}"))
        return f" of {len(ranked)} sizes" if ranked else ""
    return f" of {ranked[0][0][1]}x{ranked[0][0][0]} pixels"


def _note_strangers(name: Name, root: Path, sets: Sequence[Dataset], report: Report) -> None:
    """Report the files of a published set that belong to no split; a folder of one's own says itself which are which."""
    known = {path for data in sets if isinstance(data, CamVid) for pair in data.pairs for path in pair}
    frames = {f"{frame:04d}" for data in sets if isinstance(data, NYUv2) for frame in data.ids}
    nyuv2 = [root / folder for folder in ("images", "labels40", "labels13") if name == "nyuv2"]
    for folder in nyuv2 or sorted({path.parent for path in known}):
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if path not in known and path.stem not in frames and not path.name.startswith("."):
                report(DataError(f"{path}: belongs to no split"))
