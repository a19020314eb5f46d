"""Lists of a split, a line an image, as people and their tools write them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from segkd.data.image_files import SUFFIXES
from segkd.foundation.errors import DataError

_UTF_16 = (b"\xff\xfe", b"\xfe\xff")  # what PowerShell writes
_MOST_BYTES = 1 << 26


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines that say something, with their numbers from 1; in UTF-8 or UTF-16, with a byte-order mark or without.

    Raises:
        DataError: the file cannot be read, is not text, or holds more than 64 MB.
    """
    try:
        data = path.read_bytes() if path.stat().st_size <= _MOST_BYTES else b""
        text = data.decode("utf-16" if data.startswith(_UTF_16) else "utf-8-sig")
        if path.stat().st_size > _MOST_BYTES or "\0" in text:
            raise DataError(f"{path}: cannot be read: no list of images")
    except (OSError, UnicodeDecodeError) as error:
        reason = "not UTF-8 text" if isinstance(error, UnicodeDecodeError) else error.strerror or error
        raise DataError(f"{path}: cannot be read: {reason}") from error
    for number, line in enumerate(text.splitlines(), start=1):
        if said := line.replace("\ufeff", "").strip():
            yield number, said


def without_suffix(name: str) -> str:
    """The name, without the ending of a kind of image."""
    stem = name.rpartition(".")[0]
    return stem if stem and name.lower().endswith(SUFFIXES) else name


class Known:
    """The files that a list may mean, by all that they may be called there.

    A line names a file by its name, or by its path, from the data set's root or from below it, or from anywhere on
    another machine (`/home/anybody/set/images/0001.jpg`); with its ending, another image's ending, or none.
    """

    def __init__(self, files: Mapping[str, Path], root: Path) -> None:
        self._whole: dict[str, str] = {}
        self._ends: dict[str, str | None] = {}
        for name, path in files.items():
            place = path.relative_to(root).as_posix()
            self._whole |= dict.fromkeys((name, place, without_suffix(place)), name)
            for end in _ends(place):
                for key in (end, without_suffix(end)):
                    self._ends[key] = name if self._ends.get(key, name) == name else None

    def __contains__(self, said: str) -> bool:
        return said in self._whole

    def find(self, said: str) -> str | None:
        """The name of the file that is meant; None where there is none, or more than one."""
        said = said.replace("\\", "/").removeprefix("./")
        if name := self._whole.get(said) or self._ends.get(said) or self._ends.get(without_suffix(said)):
            return name
        keys = (key for end in _ends(said) for key in (end, without_suffix(end)))
        return next((self._whole[key] for key in keys if key in self._whole), None)


def _ends(place: str) -> list[str]:
    """A path, and what is left of it without its first folder, its first two, and so on."""
    parts = PurePosixPath(place).parts
    return ["/".join(parts[first:]) for first in range(len(parts))]
