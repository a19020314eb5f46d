"""A folder in which a data set is being prepared: its sources, its files while they are not all there, and the lock."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from segkd.data.definition import Source
from segkd.data.prepare.archives import Archive
from segkd.data.prepare.download import Progress, Retries, download, is_url
from segkd.foundation.errors import StorageError, UsageError
from segkd.foundation.files import atomic_write, fsync_folder, sha256, write_failure

SOURCES = "sources.json"
_WHOLE = ".whole"  # in the staging folder: all is there, and is being published


@dataclass
class Staging:
    """The root of a data set under preparation.

    Files are made in `.preparing/`, and come to their places by renaming whole folders when all are there and good:
    whatever ends the work in between, nothing half-written looks finished. `sources.json` holds the SHA-256 of every
    source; a download must stay what it was when it was first used.
    """

    root: Path
    say: Callable[[str], None]
    progress: Callable[[str, int, int | None], None]
    retries: Retries = field(default_factory=Retries)

    @property
    def staging(self) -> Path:
        return self.root / ".preparing"

    @property
    def downloads(self) -> Path:
        return self.root / "downloads"

    def make(self) -> None:
        """Make the root."""
        self._folder(self.root)

    def sweep(self) -> None:
        """Remove what a killed process left of files that it was writing; only who holds the lock may."""
        for stray in (*self.root.glob(".tmp-*"), *self.downloads.glob(".tmp-*")):
            stray.unlink(missing_ok=True)

    def given(self, source: str) -> Path:
        """The file or folder that somebody named, by its path or its address; an archive is recorded under its name.

        Raises:
            UsageError: there is none.
            StorageError: as `fetched`.
        """
        if is_url(source):
            name = re.sub(r"[^\w.-]", "_", urlsplit(source).path.rpartition("/")[2]).lstrip(".")
            return self.fetched(name or "download", Source(source))
        path = Path(source)
        if not path.exists():
            raise UsageError(f"{source}: no such file or folder")
        return path if path.is_dir() or path.suffix.lower() == ".mat" else self.recorded(path.name, path, source)

    def extracted(self, archive: Archive, member: str, target: Path) -> None:
        """Copy a file out of an archive."""
        self._folder(target.parent)
        self.say(f"{target.name}: from {archive.path}")
        archive.extract(member, target)

    def fetched(self, name: str, source: Source) -> Path:
        """The file at an address, as `downloads/NAME`, checked against its record.

        Raises:
            StorageError: it cannot be downloaded, or is another file than it was on first use, or than is known.
        """
        self._folder(self.downloads)
        target, record = self.downloads / name, self._sources().get(name, {})
        origin = record.get("from", "")
        if target.is_file() and origin != source.url and is_url(origin):
            raise UsageError(f"{target}: is from {origin}; delete it to use {source.url}")
        if not target.is_file():
            self.say(f"{name}: from {source.url}")
        download(source.url, target, size=source.bytes, retries=self.retries, progress=self._bar(name))
        if source.sha256 is not None:
            return self._told(name, target, source.url, source.sha256, "known to segkd")
        expected = record.get("sha256") if origin == source.url else None
        return self._told(name, target, source.url, expected, "recorded before")

    def recorded(self, name: str, path: Path, origin: str) -> Path:
        """A file that somebody gave, itself; its SHA-256 is recorded, in place of that of another one."""
        return self._told(name, path, origin, None, "")

    def _told(self, name: str, path: Path, origin: str, expected: str | None, by: str) -> Path:
        """The file itself, once its SHA-256 is said and in `sources.json`; `by` says where the expected one is from."""
        found, size = sha256(path), path.stat().st_size
        if expected not in (None, found):
            remedy = f"delete it to fetch it again, or its entry in {self.root / SOURCES} to take it"
            raise StorageError(f"{path}: sha256 {found}, but {expected} is {by}; {remedy}")
        self.say(f"{name}: {size} bytes, sha256 {found} ({by if expected else 'recorded'})")
        sources = self._sources() | {name: {"from": origin, "bytes": size, "sha256": found}}
        atomic_write(self.root / SOURCES, json.dumps(sources, indent=2) + "\n")
        return path

    def stage(self, name: str, data: bytes) -> None:
        """Write a file, by its place below the root. It is synced with all others before they are published."""
        path = self.staging / name
        self._folder(path.parent)
        try:
            path.write_bytes(data)
        except OSError as error:
            raise StorageError(write_failure(path, len(data), error)) from error

    def unfinished(self, names: Sequence[str]) -> bool:
        """Whether anything is left to be made of the files and folders that the layout consists of.

        Raises:
            UsageError: some of them are there and were not made here.
        """
        there = [name for name in names if (self.root / name).exists()]
        if there and (self.staging / _WHOLE).exists():
            self.publish(names)  # it ended while it did this
        elif there and (len(there) < len(names) or self.staging.is_dir()):
            raise UsageError(f"{self.root / there[0]}: is there already, and not from segkd; choose an empty --root")
        return not there

    def publish(self, names: Sequence[str]) -> None:
        """Move what was staged to its place: whole folders, so that a reader finds a split whole or refuses it."""
        os.sync()
        atomic_write(self.staging / _WHOLE, b"")
        try:
            for name in names:
                if (self.staging / name).exists():
                    os.rename(self.staging / name, self.root / name)
            fsync_folder(self.root)
            shutil.rmtree(self.staging)
        except OSError as error:
            raise StorageError(f"{self.root}: cannot move the files to their places ({error})") from error

    def _sources(self) -> dict[str, dict[str, Any]]:
        path = self.root / SOURCES
        try:
            found = json.loads(path.read_text()) if path.exists() else {}
        except (OSError, ValueError) as error:
            raise StorageError(f"{path}: cannot be read ({error}); delete it to record the sources anew") from error
        return found

    def _folder(self, path: Path) -> None:
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"{path}: cannot make the folder ({error.strerror}); choose another --root") from error

    def _bar(self, name: str) -> Progress:
        return lambda done, total: self.progress(name, done, total)
