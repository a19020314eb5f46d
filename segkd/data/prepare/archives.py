"""Folders, zip and tar files as one thing: regular files by name, read one by one; nothing is unpacked by its own path."""

from __future__ import annotations

import gzip
import io
import lzma
import shutil
import tarfile
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from segkd.data.pairing import below
from segkd.foundation.errors import DataError, StorageError
from segkd.foundation.files import write_failure

MAX_MEMBERS = 200_000
_DAMAGE = (
    zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, lzma.LZMAError, zlib.error, EOFError, NotImplementedError,
    RuntimeError, ValueError,
)  # fmt: skip


class Archive(ABC):
    """Regular files by their names, such as `CamVid/train/a.png`, in the order in which they are stored."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sizes: dict[str, int] = {}

    @abstractmethod
    def _open(self, name: str) -> IO[bytes]: ...

    def _add(self, name: str, size: int) -> None:
        if name in self.sizes or len(self.sizes) >= MAX_MEMBERS:
            raise DataError(f"{self.path}: '{name[:80]}' is in it twice, or it holds more than {MAX_MEMBERS} files")
        self.sizes[name] = size

    def read(self, name: str, limit: int) -> bytes:
        """The bytes of a file.

        Raises:
            DataError: it is damaged, or larger than `limit` bytes.
        """
        with self._guarded(name), self._open(name) as file:
            data = file.read(limit + 1)
            if len(data) > limit or len(data) != self.sizes[name]:
                raise DataError(f"{self.path}: {name}: more than {limit} bytes, or not as long as it says")
            return data

    def extract(self, name: str, target: Path) -> None:
        """Copy a file to `target`, which appears when it is whole."""
        fresh = target.with_name(f".tmp-{target.name}")
        try:
            with self._guarded(name), self._open(name) as file, fresh.open("wb") as out:
                shutil.copyfileobj(file, out, 1 << 20)
            if fresh.stat().st_size != self.sizes[name]:
                raise DataError(f"{self.path}: {name} is not as long as it says")
            fresh.replace(target)
        except OSError as error:
            raise StorageError(write_failure(target, self.sizes[name], error)) from error
        finally:
            fresh.unlink(missing_ok=True)

    @contextmanager
    def _guarded(self, name: str) -> Iterator[None]:
        try:
            yield
        except _DAMAGE as error:
            raise DataError(f"{self.path}: {name}: damaged ({error}); fetch the archive again") from error
        except OSError as error:
            if error.errno is not None:
                raise
            raise DataError(f"{self.path}: {name}: damaged ({error}); fetch the archive again") from error  # bz2's word


class _Folder(Archive):
    def __init__(self, path: Path) -> None:
        super().__init__(path)
        for file in sorted(below(path)):
            if file.is_file():
                self._add(file.relative_to(path).as_posix(), file.stat().st_size)

    def _open(self, name: str) -> IO[bytes]:
        try:
            return (self.path / name).open("rb")
        except OSError as error:
            raise DataError(f"{self.path / name}: cannot be read: {error.strerror}") from error


class _Zip(Archive):
    def __init__(self, path: Path, file: zipfile.ZipFile) -> None:
        super().__init__(path)
        self._file = file
        for info in file.infolist():
            kind = info.external_attr >> 28  # of the file's mode: 8 is regular, 0 unknown
            if not info.is_dir() and kind in (0, 8):
                self._add(_inside(path, info.filename), info.file_size)

    def _open(self, name: str) -> IO[bytes]:
        return self._file.open(name)


class _Tar(Archive):
    def __init__(self, path: Path, file: tarfile.TarFile) -> None:
        super().__init__(path)
        self._file = file
        self._members: dict[str, tarfile.TarInfo] = {}
        for info in file:
            if info.isreg():
                name = _inside(path, info.name.removeprefix("./"))
                self._add(name, info.size)
                self._members[name] = info
        if not isinstance(file.fileobj, io.BufferedReader):
            while file.fileobj.read(1 << 20):
                pass  # up to the sum at the end of a compressed one, which tarfile does not look at

    def _open(self, name: str) -> IO[bytes]:
        file = self._file.extractfile(self._members[name])
        assert file is not None  # it is a regular file
        return file


def _inside(archive: Path, name: str) -> str:
    """The name of a member. None is ever used as a path; but who writes such names means no good with the rest."""
    if name.startswith("/") or ".." in name.replace("\\", "/").split("/") or "\0" in name:
        raise DataError(f"{archive}: a file in it is called '{name[:80]}', which leads out of it; not to be trusted")
    return name


@contextmanager
def opened(path: Path) -> Iterator[Archive]:
    """The files of a folder, zip or tar (also compressed).

    Raises:
        DataError: it is none of these, or damaged, or a name in it leads out of it.
    """
    with ExitStack() as stack:
        try:
            if path.is_dir():
                archive: Archive = _Folder(path)
            elif zipfile.is_zipfile(path):
                archive = _Zip(path, stack.enter_context(zipfile.ZipFile(path)))
            elif path.is_file() and tarfile.is_tarfile(path):
                archive = _Tar(path, stack.enter_context(tarfile.open(path)))
            else:
                raise DataError(f"{path}: not a folder, zip or tar file")
        except (*_DAMAGE, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise DataError(f"{path}: cannot be read: {error.strerror}") from error
            raise DataError(f"{path}: damaged ({error}); fetch it again") from error
        yield archive
