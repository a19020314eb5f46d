"""Files that are whole or absent: atomic writes, hashes, and the lock on a run folder."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from segkd.foundation.errors import StorageError, UsageError

_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)  # Windows has none

_CHUNK = 1 << 20


def atomic_write(path: str | Path, data: bytes | str) -> None:
    """Writes `data` to `path` so that a reader, or a run after a crash, sees the old file or the new one, never a part.

    The bytes go to `.tmp-NAME-PID` in the same folder, are flushed and synced, and replace the target; then the
    folder is synced. Text is written as UTF-8. The folder must exist.

    Raises:
        StorageError: the disk is full, the folder is missing or read-only, or the target is a symlink or anything
            but a regular file. No part of the new bytes is left under either name.
    """
    path = Path(path)
    payload = data.encode() if isinstance(data, str) else data
    refuse_irregular(path)
    _replace(path.parent, path.name, len(payload), lambda file: file.write(payload), lambda: path)


def atomic_stream(folder: Path, start: str, end: str, needed: int, write: Callable[[Hashing], object]) -> Path:
    """As `atomic_write` for what is written piece by piece, into a file called `start`, the SHA-256 of its bytes, and `end`.

    Nothing is held in memory but the piece that is written.

    Args:
        needed: about how many bytes it will be, for the message of a full disk.
        write: is given a file to write to; what it raises because that failed is told as any other failure.

    Returns:
        The file's path.

    Raises:
        StorageError: as `atomic_write`.
    """
    hashing = Hashing()

    def fill(file: BinaryIO) -> None:
        hashing.file = file
        try:
            write(hashing)
        except Exception as error:
            if hashing.error is not None:
                raise hashing.error from error
            raise

    def target() -> Path:
        path = folder / f"{start}{hashing.digest.hexdigest()}{end}"
        refuse_irregular(path)
        return path

    return _replace(folder, f"{start}{end}", needed, fill, target)


class Hashing:
    """A file to write to, which knows the hash of what was written, and why it could not be, whatever the writer says."""

    def __init__(self) -> None:
        self.file: BinaryIO | None = None
        self.digest = hashlib.sha256()
        self.error: OSError | None = None

    def write(self, data: bytes | memoryview) -> int:
        self.digest.update(data)
        try:
            return self.file.write(data)
        except OSError as error:
            self.error = self.error or error
            raise

    def flush(self) -> None:
        """The whole is flushed at its end."""


def _replace(
    folder: Path, name: str, needed: int, write: Callable[[BinaryIO], object], target: Callable[[], Path]
) -> Path:
    """Let `write` fill a file beside its place, which is asked for at the end, and move it there. Raises StorageError."""
    temporary = folder / f".tmp-{name}-{os.getpid()}"
    try:
        _write_synced(temporary, write)
        path = target()
        os.replace(temporary, path)
        fsync_folder(folder)
        return path
    except OSError as error:
        # Measured before the clean-up, which would make the free space look sufficient again.
        message = write_failure(folder / name, needed, error)
        raise StorageError(message) from error
    finally:
        # After a successful replace the name is gone, and there is nothing to remove.
        with contextlib.suppress(OSError):
            temporary.unlink()


def _write_synced(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Creates `path` with the default permissions, never through a symlink, and syncs its bytes."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _NO_FOLLOW
    with os.fdopen(os.open(path, flags, 0o666), "wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())


def append(path: str | Path, text: str) -> None:
    """Adds text (UTF-8) to the end of a file, which is made if it is missing.

    Raises:
        StorageError: as `atomic_write`, but a part of the text may be in the file.
    """
    path, payload = Path(path), text.encode()
    refuse_irregular(path)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | _NO_FOLLOW
    try:
        with os.fdopen(os.open(path, flags, 0o666), "ab") as file:
            file.write(payload)
    except OSError as error:
        raise StorageError(write_failure(path, len(payload), error)) from error


def remove(path: str | Path) -> None:
    """Removes a file, if it is there, so that it stays removed after a power cut. Raises StorageError."""
    path = Path(path)
    try:
        path.unlink(missing_ok=True)
        fsync_folder(path.parent)
    except OSError as error:
        raise StorageError(f"{path}: cannot be removed: {error.strerror or error}") from error


def make_folder(path: str | Path) -> None:
    """Makes a folder and those above it. Raises StorageError if it cannot be made, or is a symlink or no folder."""
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{path}: cannot make the folder: {error.strerror or error}") from error
    if path.is_symlink():
        raise StorageError(f"{path}: refusing to write through a symbolic link; remove it or choose another path")


def sweep(folder: str | Path, target: str = "") -> None:
    """Removes what killed writes have left in a folder, of all targets or of one (`NAME-`): only for who alone writes there."""
    for path in Path(folder).glob(f".tmp-{glob.escape(target)}{'[0-9]' if target else ''}*"):
        with contextlib.suppress(OSError):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def write_failure(path: Path, needed: int, error: Exception) -> str:
    """One line about a failed write: the path, the reason, and the bytes needed and free."""
    try:
        free = f"{shutil.disk_usage(path.parent).free} bytes free"
    except OSError:
        free = "free space unknown"
    return f"{path}: cannot write: {getattr(error, 'strerror', None) or error} ({needed} bytes needed, {free})"


def check_target(path: str | Path, ending: str = "") -> None:
    """Raises UsageError if `path` is a folder, lies in none, or has a name that is too long or ends otherwise.

    It is said before long work.
    """
    if not os.path.isdir(Path(path).absolute().parent):
        raise UsageError(f"{path}: no folder {Path(path).parent} to write to")
    if (length := len(os.fsencode(Path(path).name))) > 230:  # of 255 bytes: temporary files have longer names
        raise UsageError(f"{path}: a name of {length} bytes: at most 230")
    if os.path.isdir(path):
        raise UsageError(f"{path}: is a folder; name a file in it")
    if not str(path).lower().endswith(ending):
        raise UsageError(f"{path}: what is written is a {ending[1:].upper()}: name a file that ends in {ending}")


def refuse_irregular(path: Path) -> None:
    """Raises StorageError if `path` exists and is a symlink, folder, fifo, socket or device."""
    try:
        mode = os.lstat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise StorageError(f"{path}: cannot look at the target: {error.strerror or error}") from error
    if stat.S_ISLNK(mode):
        raise StorageError(f"{path}: refusing to write through a symbolic link; remove it or choose another path")
    if not stat.S_ISREG(mode):
        raise StorageError(f"{path}: refusing to replace what is not a regular file; choose another path")


def fsync_files(folder: str | Path) -> None:
    """Syncs every file in a folder that others have written. Raises OSError."""
    for path in Path(folder).rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())


def fsync_folder(path: str | Path) -> None:
    """Syncs a folder, so that a rename in it survives a power cut. Raises OSError."""
    if not hasattr(os, "O_DIRECTORY"):
        return  # Windows opens no folders
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(source: str | Path | bytes) -> str:
    """The SHA-256 of a file or of bytes, as 64 hexadecimal digits.

    Raises:
        StorageError: the file cannot be read.
    """
    digest = hashlib.sha256()
    if isinstance(source, bytes | bytearray | memoryview):
        digest.update(source)
        return digest.hexdigest()
    try:
        with open(source, "rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except OSError as error:
        raise StorageError(f"{source}: cannot read: {error.strerror or error}") from error
    return digest.hexdigest()


def in_use(folder: Path) -> bool:
    """Whether another process holds a folder by its `RunLock`; nothing of it is changed."""
    path = folder / ".lock"
    if not path.is_file():
        return False
    from filelock import Timeout, UnixFileLock

    lock = UnixFileLock(path, 0, thread_local=False, preserve_lock_file=True)
    try:
        lock.acquire()
    except Timeout:
        return True
    except OSError:
        return False  # it may not be opened: of another user
    lock.release()
    return False


class RunLock:
    """Holds a folder for one process: `with RunLock(folder): ...`; `chosen_by` names what chooses another folder.

    `mark` is what the lock says of its folder, beside the number of the process that had it last.

    The kernel releases it when the process dies, however it dies. `folder/.lock` stays behind on purpose: deleting it
    would let two processes lock two files of one name.

    Raises:
        StorageError: on entry, when another process holds the folder (its pid is named) or it cannot be written.
    """

    def __init__(self, folder: str | Path, chosen_by: str = "run.dir", mark: str = "") -> None:
        self.folder = Path(folder)
        self.chosen_by, self.mark = chosen_by, mark

    def __enter__(self) -> RunLock:
        from filelock import Timeout, UnixFileLock, has_fcntl  # its import takes a tenth of what --help may

        path, self._said = self.folder / ".lock", f"{os.getpid()} {self.mark}".rstrip() + "\n"
        refuse_irregular(path)
        if not has_fcntl:
            raise StorageError(
                f"{self.folder}: this system has no file locks, which runs need: use Linux, macOS, or WSL on Windows"
            )
        # preserved: no fallback to a lock that is a file only, and would outlive a process that is killed
        self._lock = UnixFileLock(path, 0, thread_local=False, preserve_lock_file=True, on_acquired=self._taken)
        try:
            self._lock.acquire()
        except Timeout as error:
            holder = (path.read_text(errors="replace").split() or ["unknown"])[0]
            raise StorageError(
                f"{self.folder}: in use by process {holder}; wait for it, or choose another {self.chosen_by}"
            ) from error
        except OSError as error:
            raise StorageError(write_failure(path, len(self._said), error)) from error
        return self

    def _taken(self, descriptor: int) -> None:
        os.pwrite(descriptor, self._said.encode(), 0)  # before the cut: who is killed between leaves the mark
        os.ftruncate(descriptor, len(self._said))
        self._descriptor = descriptor

    def check(self) -> None:
        """Raises StorageError if the folder at the path is no longer the one that is held: removed, or replaced."""
        try:
            there, held = os.stat(self.folder / ".lock", follow_symlinks=False), os.fstat(self._descriptor)
        except OSError as error:
            raise StorageError(f"{self.folder}: the run folder is gone ({error.strerror or error})") from error
        if (there.st_dev, there.st_ino) != (held.st_dev, held.st_ino):
            raise StorageError(
                f"{self.folder}: another folder has taken the place of the run's; nothing is written there"
            )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()
