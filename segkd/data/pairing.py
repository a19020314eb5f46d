"""Which files of a folder are images, and which mask belongs to each: patterns such as `images/{split}/{name}.jpg`."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from segkd.data.image_files import SUFFIXES
from segkd.foundation.errors import DataError

NAME, SPLIT, ANY_KIND = "{name}", "{split}", ".*"
_LOSSY = (".jpg", ".jpeg")
_SUFFIX = "|".join(suffix[1:] for suffix in SUFFIXES)
_PARTS = re.compile(r"(\{name\}|\{split\}|\*)")


def whole(pattern: str) -> str:
    """The pattern, which may be a folder: then all kinds of images in it and below it are meant."""
    return pattern if NAME in pattern else f"{pattern.rstrip('/')}/{NAME}{ANY_KIND}"


def start(pattern: str) -> str:
    """The folder in which the files of a pattern lie: what stands before its first placeholder."""
    fixed = _PARTS.split(pattern)[0]
    return fixed.rpartition("/")[0]


def ending(pattern: str) -> str:
    """What a file's name has behind `{name}` and before its last dot: `_mask` of `masks/{name}_mask.png`."""
    return whole(pattern).rpartition(NAME)[2].rpartition(".")[0]


def compiled(pattern: str) -> re.Pattern[str]:
    """What a file's path below the root must be; groups `name` and `split` are what the placeholders stand for.

    A name may lie in folders, `*` and a split may not. The last letters, with the ending, count in any case.
    """
    body = pattern.removesuffix(ANY_KIND)
    form, known, parts = "", {NAME: "(?P<name>.+)", SPLIT: "(?P<split>[^/]+?)", "*": "[^/]*"}, _PARTS.split(body)
    for number, part in enumerate(parts):
        escaped = re.escape(part) if number < len(parts) - 1 else f"(?i:{re.escape(part)})"
        form += known.get(part, escaped)
        if part in (NAME, SPLIT):
            known[part] = f"(?P={part[1:-1]})"  # the same again
    return re.compile(form + (rf"\.(?i:{_SUFFIX})" if body != pattern else ""))


@dataclass
class Files:
    """The files of a pattern by their names, and what lies beside them."""

    pattern: str
    folder: Path
    of: dict[str, Path] = field(default_factory=dict)
    others: list[Path] = field(default_factory=list)
    twice: list[tuple[Path, str]] = field(default_factory=list)

    def shown(self, name: str) -> str:
        """The path, below the root, of the file of this name."""
        return self.pattern.replace(NAME, name)


def files_of(root: Path, pattern: str, *, masks: bool = False) -> Files:
    """The files that a pattern (with its split filled in) describes. Of masks a JPEG counts where there is no other.

    Raises:
        DataError: no such folder, or it may not be read.
    """
    folder = root / start(pattern)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    found, form = Files(pattern, folder), compiled(pattern)
    places = sorted(below(folder), key=lambda path: (masks and path.suffix.lower() in _LOSSY, path))
    for path in places:
        matched = form.fullmatch(path.relative_to(root).as_posix())
        if matched is None:
            found.others.append(path)
        elif matched["name"] not in found.of:
            found.of[matched["name"]] = path
        elif masks and path.suffix.lower() in _LOSSY:
            found.others.append(path)
        else:
            found.twice.append((path, matched["name"]))
    return found


def paired(
    images: Files, masks: Files, report: Callable[[DataError], None], chosen: Mapping[str, str] | None = None,
    strays: bool = True,
) -> list[tuple[Path, Path]]:  # fmt: skip
    """Each image with its mask; whatever has no partner, or another one's name, is reported.

    Args:
        chosen: the names of images and those of their masks, in order; by default all, sorted, each with its namesake.
        strays: masks without an image are reported too.

    Raises:
        DataError: there is no pair.
    """
    for files, kind in ((images, "image"), (masks, "mask")):
        for path, name in files.twice:
            report(DataError(f"{path}: a second {kind} called '{name}', beside {files.of[name].name}"))
    for name in sorted(masks.of.keys() - images.of.keys()) if strays else ():
        told = f"mask without an image {images.shown(name)}{beside(name, images)}"
        report(DataError(f"{masks.of[name]}: {told}"))
    chosen = {name: name for name in sorted(images.of)} if chosen is None else chosen
    for name, label in chosen.items():
        if name not in images.of:
            report(DataError(f"{images.folder / name}: missing image"))
        elif label not in masks.of:
            told = f"image without a mask {masks.shown(label)}{beside(label, masks)}"
            report(DataError(f"{images.of[name]}: {told}"))
    found = [
        (images.of[name], masks.of[label]) for name, label in chosen.items() if name in images.of and label in masks.of
    ]
    if not found:
        raise DataError(f"{images.folder}: no image with a mask")
    return found


def beside(name: str, files: Files) -> str:
    """Words about a file of this name that is there and of a kind that is not read; or none."""
    stem = Path(name).name
    there = [path.name for path in files.others if path.stem in (stem, Path(stem).stem)]
    return f"; {there[0]} is of a kind that is not read" if there else ""


def below(folder: Path) -> Iterator[Path]:
    """The files in a folder and in those below it, links followed, but for hidden ones. Raises DataError."""

    def unreadable(error: OSError) -> None:
        raise DataError(f"{error.filename}: cannot be read: {error.strerror}") from error

    seen = set()
    for place, folders, files in os.walk(folder, onerror=unreadable, followlinks=True):
        real = os.path.realpath(place)
        folders[:] = sorted(name for name in folders if not name.startswith(".") and real not in seen)
        if real not in seen:
            yield from (Path(place, name) for name in files if not name.startswith("."))
        seen.add(real)


def suggestion(images: Files, masks: Files, declared: tuple[str, str]) -> str:
    """The two lines of dataset.yaml that would pair files which begin alike, as `a_rgb.png` and `a_label.png`; or nothing."""
    if not images.of or not masks.of:
        return ""
    first = min(images.of)
    partner = max(masks.of, key=lambda name: (len(os.path.commonprefix([name, first])), -len(name)))
    common = os.path.commonprefix([first, partner])
    common = common.rstrip("_-. ") if len(common) < max(len(first), len(partner)) else common
    if not common.rpartition("/")[2]:
        return ""
    ends = (first[len(common) :], partner[len(common) :])
    told = (pattern.replace(NAME, NAME + end) for pattern, end in zip(map(whole, declared), ends, strict=True))
    return '; if they pair so, write images: "{}" and masks: "{}" in dataset.yaml'.format(*told)
