"""Tests of segkd.data.prepare.archives: what is in them, whole; and nothing that leads out of them."""

import io
import tarfile
import zipfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from segkd.data.prepare.archives import opened
from segkd.foundation.errors import DataError, StorageError

FILES = {"x/b.png": bytes(range(256)) * 40, "x/y/a.txt": b"words", "c": b""}


def packed(path: Path, files: dict[str, bytes]) -> Path:
    """The files in a folder, zip or tar, as the path's name says."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in files.items():
                archive.writestr(name, data)
    elif not path.suffix:
        for name, data in files.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(data)
    else:
        with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
            for name, data in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize("name", ["folder", "a.zip", "a.tar", "a.tar.gz"])
def test_files_by_name(tmp_path: Path, name: str):
    with opened(packed(tmp_path / name, FILES)) as archive:
        assert archive.sizes == {key: len(data) for key, data in FILES.items()}
        assert {key: archive.read(key, 20_000) for key in archive.sizes} == FILES
        archive.extract("x/b.png", tmp_path / "out.png")
        with pytest.raises(DataError, match=r"x/b\.png: more than 10239 bytes"):
            archive.read("x/b.png", 10_239)
    assert (tmp_path / "out.png").read_bytes() == FILES["x/b.png"]
    assert not list(tmp_path.glob(".tmp-*"))


def test_hidden_files_of_a_folder_are_none_of_it(tmp_path: Path):
    """Among them what an interrupted preparation has staged, where its root lies inside its source."""
    packed(tmp_path / "folder", FILES | {".DS_Store": b"x", "data/.preparing/x/b.png": b"y"})
    with opened(tmp_path / "folder") as archive:
        assert archive.sizes.keys() == FILES.keys()


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz"])
@pytest.mark.parametrize("member", ["../evil.png", "/etc/evil.png", "x/../../evil.png", "x\\..\\..\\evil.png"])
def test_names_that_lead_out_are_refused(tmp_path: Path, name: str, member: str):
    (tmp_path / "inner").mkdir()
    path = packed(tmp_path / "inner" / name, {**FILES, member: b"evil"})
    with pytest.raises(DataError, match="leads out of it; not to be trusted"), opened(path):
        pass
    assert not list(tmp_path.rglob("*evil*"))


@pytest.mark.parametrize("kind", ["tar link", "tar hard link", "tar device", "zip link"])
def test_links_and_devices_are_no_files(tmp_path: Path, kind: str):
    path = tmp_path / ("a.zip" if kind == "zip link" else "a.tar")
    if kind == "zip link":
        with zipfile.ZipFile(path, "w") as archive:
            info = zipfile.ZipInfo("CamVid/train/a.png")
            info.external_attr = 0o120777 << 16
            archive.writestr(info, "/etc/passwd")
    else:
        with tarfile.open(path, "w") as archive:
            info = tarfile.TarInfo("CamVid/train/a.png")
            info.type = {"tar link": tarfile.SYMTYPE, "tar hard link": tarfile.LNKTYPE, "tar device": tarfile.CHRTYPE}[
                kind
            ]
            info.linkname = "/etc/passwd"
            archive.addfile(info)
    with opened(path) as archive:
        assert archive.sizes == {}


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz"])
@pytest.mark.parametrize("fault", ["cut", "flipped", "text", "empty"])
def test_damage_is_named(tmp_path: Path, name: str, fault: str):
    if (name, fault) == ("a.tar", "flipped"):
        pytest.skip("a plain tar has no sums")
    data = packed(tmp_path / name, {"x/b.png": FILES["x/b.png"] + bytes(50_000)}).read_bytes()
    middle = len(data) // 2
    spoilt = {
        "cut": data[:middle], "text": b"<html>moved</html>", "empty": b"",
        "flipped": data[:middle] + bytes([data[middle] ^ 0xFF]) + data[middle + 1 :],
    }[fault]  # fmt: skip
    (tmp_path / name).write_bytes(spoilt)
    words = rf"{name}: .*(damaged|not a folder, zip or tar|not as long)"
    with pytest.raises(DataError, match=words), opened(tmp_path / name) as archive:
        for member in archive.sizes:
            archive.read(member, 1_000_000)


def test_a_member_that_is_there_twice_or_encrypted(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a", b"1")
        with pytest.warns(UserWarning):
            archive.writestr("a", b"2")
    with pytest.raises(DataError, match="'a' is in it twice"), opened(tmp_path / "a.zip"):
        pass
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("a", b"1")
    data = bytearray((tmp_path / "b.zip").read_bytes())
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "b.zip").write_bytes(data)
    with opened(tmp_path / "b.zip") as archive, pytest.raises(DataError, match="b.zip: a: damaged .*encrypted"):
        archive.read("a", 10)


def test_errors_of_the_body_are_its_own(tmp_path: Path):
    with pytest.raises(ValueError, match="mine"), opened(packed(tmp_path / "a.zip", FILES)):
        raise ValueError("mine")


def test_a_full_disk_leaves_nothing(tmp_path: Path, small_files: Callable[[int], AbstractContextManager[None]]):
    with opened(packed(tmp_path / "a.zip", FILES)) as archive, small_files(5000):
        with pytest.raises(StorageError, match=r"out\.png: cannot write"):
            archive.extract("x/b.png", tmp_path / "out.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip"]
