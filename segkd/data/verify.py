"""Every file of a data set looked at, and each bad one named: what `segkd data verify` says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from segkd.data import catalogue
from segkd.data.definition import LabelledSet
from segkd.data.samples import Report
from segkd.foundation.errors import DataError, UsageError


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
    name: str, root: Path, splits: Sequence[str] = (), *,
    counts: Mapping[str, int] | None = None, progress: Callable[[int, int], None] | None = None,
) -> Findings:  # fmt: skip
    """Read every image and mask of a data set, whatever is wrong with the others.

    Args:
        name: which set.
        root: its folder.
        splits: those to look at; none: all, and then, if nothing else is wrong, files that belong to none.
        counts: images that the splits should have, in place of the published numbers.
        progress: is called with the images done and their number.

    Raises:
        UsageError: a set that is in no folder.
    """
    kind, findings = catalogue.reader(name), Findings()
    if kind.obtained is None:
        raise UsageError(f"{name} are rendered: there are no files to verify")
    expected = kind.counts if counts is None else counts
    sets: list[tuple[str, str, LabelledSet]] = []
    with findings.noting():
        if not root.is_dir():
            raise DataError(f"{root}: no such folder")
        for split in splits or ([*counts] if counts else kind.splits(root)):
            with findings.noting():
                for classes in kind.labellings_in(root):
                    several = classes is not None and len(kind.labellings) > 1
                    label = f"{split} ({len(classes)} classes)" if several else split
                    sets.append((split, label, kind.at(root, split, classes, findings.note)))
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
        if len(data) != expected.get(split, len(data)):
            findings.note(DataError(f"{root}: {label}: {len(data)} images, where {expected[split]} were published"))
        findings.splits += [f"{label}: {len(data)} images{_size(data, sizes, findings.note)}", *data.notes]
    if not splits and not findings.problems:
        _note_strangers([data for _, _, data in sets if data.alone], findings.note)
    return findings


def _size(data: LabelledSet, sizes: Mapping[str, tuple[int, ...]], report: Report) -> str:
    """In words, the size that the images of a split have; those of some sets all have one."""
    ranked = Counter(sizes.values()).most_common()
    if len(ranked) != 1:
        for image, (height, width) in sizes.items() if data.one_size else ():
            if (height, width) != ranked[0][0]:
                most = f"{ranked[0][1]} images have {ranked[0][0][1]}x{ranked[0][0][0]}"
                report(DataError(f"{data.root / image}: {width}x{height} pixels, where {most}"))
        return f" of {len(ranked)} sizes" if ranked else ""
    return f" of {ranked[0][0][1]}x{ranked[0][0][0]} pixels"


def _note_strangers(sets: Sequence[LabelledSet], report: Report) -> None:
    """Report the files beside those of the sets that belong to no split."""
    known = {path for data in sets for pair in data.pairs for path in pair}
    for folder in sorted({path.parent for path in known}):
        for path in sorted(folder.iterdir()):
            if path not in known and not path.name.startswith("."):
                report(DataError(f"{path}: belongs to no split"))
