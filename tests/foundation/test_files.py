"""Atomic writes, hashes and the lock, against real files, limits and processes."""

import hashlib
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from segkd.foundation import files
from segkd.foundation.errors import StorageError, UsageError
from segkd.foundation.files import (
    Hashing,
    RunLock,
    append,
    atomic_stream,
    atomic_write,
    check_target,
    make_folder,
    sha256,
    sweep,
)
from tests.waiting import PATIENCE


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("data", [b"\x00\xff bytes", "text \u00e9", b"", "x" * 3_000_000])
def test_writes_and_replaces(tmp_path: Path, data: bytes | str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"old")
    atomic_write(path, data)
    assert path.read_bytes() == (data.encode() if isinstance(data, str) else data)
    assert names(tmp_path) == ["a.json"]


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    atomic_write(tmp_path / "a", b"1")
    (tmp_path / "b").write_bytes(b"1")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_file_and_folder_are_synced_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    real_sync, real_replace = os.fsync, os.replace

    def sync(descriptor: int) -> None:
        seen.append("folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "file")
        real_sync(descriptor)

    def replace(source: Path, target: Path) -> None:
        assert source.parent == target.parent
        assert source.name == f".tmp-a-{os.getpid()}"
        seen.append("replace")
        real_replace(source, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", replace)
    atomic_write(tmp_path / "a", b"1")
    assert seen == ["file", "replace", "folder"]


@pytest.mark.parametrize("point", ["fsync", "replace"])
def test_a_failure_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    (tmp_path / "a").write_bytes(b"old")

    def fail(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, point, fail)
    with pytest.raises(
        StorageError, match=r"a: cannot write: No space left on device \(3 bytes needed, \d+ bytes free"
    ):
        atomic_write(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


_FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from segkd.foundation.errors import StorageError
from segkd.foundation.files import atomic_write
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
for limit in (0, 1, 100, 4096, 99_999):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        atomic_write(Path(sys.argv[1]), b"n" * 100_000)
    except StorageError as error:
        assert "100000 bytes needed" in str(error) and sys.argv[1] in str(error), error
    else:
        raise SystemExit(f"no error at {limit}")
"""


def test_disk_full_at_any_byte(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    subprocess.run([sys.executable, "-c", _FULL_DISK, tmp_path / "a"], check=True, timeout=PATIENCE)
    assert (tmp_path / "a").read_bytes() == b"old"
    assert names(tmp_path) == ["a"]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 0


def test_a_stream_is_named_by_its_hash(tmp_path: Path) -> None:
    def write(file: Hashing) -> None:
        for piece in (b"ab", memoryview(b"cd"), b""):
            file.write(piece)

    path = atomic_stream(tmp_path, "step-", ".ckpt", 4, write)
    assert path == tmp_path / f"step-{sha256(b'abcd')}.ckpt" and path.read_bytes() == b"abcd"
    assert names(tmp_path) == [path.name]


def test_a_writer_that_swallows_the_failure_does_not_hide_it(tmp_path: Path, small_files) -> None:
    def write(file: Hashing) -> None:
        try:
            for _ in range(100):
                file.write(b"n" * 10_000)
        except OSError:
            raise RuntimeError("writing failed somewhere") from None

    with (
        small_files(99_999),
        pytest.raises(StorageError, match=r"step-\.ckpt: cannot write: File too large \(1000000 bytes"),
    ):
        atomic_stream(tmp_path, "step-", ".ckpt", 1_000_000, write)
    with pytest.raises(ZeroDivisionError):
        atomic_stream(tmp_path, "step-", ".ckpt", 1, lambda file: 1 / 0)
    assert names(tmp_path) == []


@pytest.mark.parametrize("kind", ["symlink", "dangling symlink", "folder", "fifo"])
def test_refuses_what_is_not_a_regular_file(tmp_path: Path, kind: str) -> None:
    target, path = tmp_path / "target", tmp_path / "a"
    target.write_bytes(b"old")
    if kind == "symlink":
        path.symlink_to(target)
    elif kind == "dangling symlink":
        path.symlink_to(tmp_path / "nowhere")
    elif kind == "folder":
        path.mkdir()
    else:
        os.mkfifo(path)
    before = os.lstat(path)
    with pytest.raises(StorageError, match="refusing"):
        atomic_write(path, b"new")
    after = os.lstat(path)
    assert (before.st_ino, before.st_mode) == (after.st_ino, after.st_mode)
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == ["a", "target"]


@pytest.mark.parametrize("path", ["missing/a", "file/a"])
def test_a_folder_that_is_none(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="cannot write"):
        atomic_write(tmp_path / path, b"new")
    assert names(tmp_path) == ["file"]


def test_a_target_is_checked_before_there_is_anything_to_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_bytes(b"")
    for path in ("new", "file", tmp_path / "new"):
        check_target(path)
    for path in ("missing/a", "file/a"):
        with pytest.raises(UsageError, match=f"{path}: no folder {path[:-2]} to write to"):
            check_target(path)
    with pytest.raises(UsageError, match="is a folder"):
        check_target(tmp_path)
    assert names(tmp_path) == ["file"]


def test_sha256_of_bytes_and_files(tmp_path: Path) -> None:
    data = os.urandom(2_500_000)
    (tmp_path / "a").write_bytes(data)
    expected = hashlib.sha256(data).hexdigest()
    assert sha256(data) == sha256(tmp_path / "a") == sha256(str(tmp_path / "a")) == expected
    assert sha256(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    with pytest.raises(StorageError, match="cannot read"):
        sha256(tmp_path / "missing")


_HOLDER = """
import sys, time
from segkd.foundation.files import RunLock
with RunLock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(600)
"""


def test_lock_names_its_holder_and_dies_with_it(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _HOLDER, tmp_path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            with pytest.raises(StorageError, match=f"in use by process {holder.pid}") as caught, RunLock(tmp_path):
                pass
            assert str(tmp_path) in str(caught.value)
            assert "\n" not in str(caught.value)
        finally:
            holder.kill()
    with RunLock(tmp_path):
        assert (tmp_path / ".lock").read_text() == f"{os.getpid()}\n"


def test_lock_is_released_and_can_be_taken_again(tmp_path: Path) -> None:
    lock = RunLock(tmp_path)
    for _ in range(3):
        with lock, pytest.raises(StorageError), RunLock(tmp_path):
            pass
    with pytest.raises(ZeroDivisionError), lock:
        raise ZeroDivisionError
    with lock:
        pass


def test_a_lock_knows_whether_its_folder_is_still_there(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    with RunLock(folder) as lock:
        lock.check()
        folder.rename(tmp_path / "moved")
        with pytest.raises(StorageError, match="gone"):
            lock.check()
        folder.mkdir()
        (folder / ".lock").touch()
        with pytest.raises(StorageError, match="another folder has taken the place"):
            lock.check()
        shutil.rmtree(folder)
        (tmp_path / "moved").rename(folder)
        lock.check()


def test_append_adds_to_the_end_and_names_what_is_wrong(tmp_path: Path, small_files) -> None:
    path = tmp_path / "a"
    append(path, "one\n")
    append(path, "two \u00e9\n")
    assert path.read_text("utf-8") == "one\ntwo \u00e9\n"
    with small_files(5), pytest.raises(StorageError, match=r"a: cannot write: .* \(4 bytes needed, \d+ bytes free"):
        append(path, "more")
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(StorageError, match="symbolic link"):
        append(tmp_path / "link", "x")
    with pytest.raises(StorageError, match="cannot write"):
        append(tmp_path / "missing" / "a", "x")


def test_sweep_removes_what_killed_writes_left_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / ".tmp-a-1").write_bytes(b"half")
    (tmp_path / ".tmp-student-1").mkdir()
    (tmp_path / ".tmp-student-1" / "model").write_bytes(b"half")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "b").write_bytes(b"whole")
    (tmp_path / ".tmp-link").symlink_to(tmp_path / "outside")
    (tmp_path / "a.tmp").write_bytes(b"whole")
    sweep(tmp_path, "student-")
    assert names(tmp_path) == [".tmp-a-1", ".tmp-link", "a.tmp", "outside"]
    sweep(tmp_path)
    assert names(tmp_path) == ["a.tmp", "outside"] and names(tmp_path / "outside") == ["b"]


@pytest.mark.parametrize("kind", ["file", "link"])
def test_make_folder_refuses_what_is_none(tmp_path: Path, kind: str) -> None:
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    path = tmp_path / "c"
    path.touch() if kind == "file" else path.symlink_to(tmp_path / "a")
    with pytest.raises(StorageError, match="cannot make the folder" if kind == "file" else "symbolic link"):
        make_folder(path)


def test_lock_refuses_a_symlink(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("precious")
    (tmp_path / ".lock").symlink_to(tmp_path / "target")
    with pytest.raises(StorageError, match="symbolic link"), RunLock(tmp_path):
        pass
    assert (tmp_path / "target").read_text() == "precious"


def test_lock_needs_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot write"), RunLock(tmp_path / "file"):
        pass


def test_fsync_folder_refuses_files(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    files.fsync_folder(tmp_path)
    with pytest.raises(NotADirectoryError):
        files.fsync_folder(tmp_path / "a")
