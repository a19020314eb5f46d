"""Tests of segkd.data.sets.nyuv2 and of the official files behind it."""

import json
import multiprocessing
import os
import pickle
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.io import savemat

from segkd.data.classes import IGNORE
from segkd.data.resize import resize_protocol
from segkd.data.sets.folder import Folder
from segkd.data.sets.nyuv2 import NYUV2_13, NYUV2_40, NYUv2, frames_of
from segkd.foundation.errors import DataError

MAT = "nyu_depth_v2_labeled.mat"


@pytest.fixture
def official(nyu: Any, tmp_path: Path) -> Path:
    return nyu.write_official(tmp_path / "official")


@pytest.fixture
def prepared(nyu: Any, tmp_path: Path) -> Path:
    return nyu.write_prepared(tmp_path / "prepared")


def refused(root: Path, words: str, split: str = "train", classes: int = 40) -> None:
    with pytest.raises(DataError, match=words) as caught:
        list(NYUv2(root, split, classes))
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("classes", [13, 40])
def test_a_folder_of_ones_own_gives_the_same_masks(nyu: Any, official: Path, prepared: Path, classes: int):
    names = (NYUV2_13 if classes == 13 else NYUV2_40).names
    table = {0: "ignore"} | {place + 1: name for place, name in enumerate(names)}
    described = {"classes": list(names), "remap": table, "images": "images", "masks": f"labels{classes}"}
    (prepared / "dataset.yaml").write_text(json.dumps(described))
    own = {Path(sample.name).stem: sample for sample in Folder(prepared, "train")}
    read = NYUv2(official, "train", classes)
    assert own.keys() == {f"{frame:04d}" for frame in read.ids}
    for frame, sample in zip(read.ids, read, strict=True):
        assert np.array_equal(own[f"{frame:04d}"].image, sample.image)
        assert np.array_equal(own[f"{frame:04d}"].mask, sample.mask)


@pytest.mark.parametrize("classes", [13, 40])
def test_both_layouts_give_what_was_seen(nyu: Any, official: Path, prepared: Path, classes: int):
    for root in (official, prepared):
        data = NYUv2(root, "train", classes)
        assert data.classes is {13: NYUV2_13, 40: NYUV2_40}[classes]
        assert data.ids == [2, 3, 5] and len({sample.name for sample in data}) == 3
        for frame, sample in zip(data.ids, data, strict=True):
            ids = nyu.ids(classes)[frame - 1].astype(int)
            assert sample.image.dtype == sample.mask.dtype == np.uint8
            assert np.array_equal(sample.image, nyu.images[frame - 1])
            assert np.array_equal(sample.mask, np.where(ids == 0, IGNORE, ids - 1))
        assert [sample.name for sample in NYUv2(root, "test", classes)[:1]] == [NYUv2(root, "test", classes)[0].name]
        with pytest.raises(IndexError):
            data[3]


def test_rotating_for_transposing_would_show(nyu: Any, official: Path):
    """A rotation gives the same shape and a mirrored scene: only the pixels tell."""
    with h5py.File(official / MAT) as file:
        stored = file["labels"][1]
    assert np.array_equal(np.rot90(stored, -1), nyu.kinds[1][:, ::-1])
    mask = NYUv2(official, "train", 40)[0].mask
    assert np.array_equal(mask == IGNORE, nyu.kinds[1] == 0)
    assert not np.array_equal(mask, mask[:, ::-1])


def test_the_prepared_layout_is_read_first_and_jpeg_will_do(official: Path, prepared: Path):
    (prepared / MAT).write_bytes(b"not looked at")
    (prepared / "images" / "0002.png").rename(prepared / "images" / "0002.jpg")
    assert [sample.name for sample in NYUv2(prepared, "trainval")][:2] == ["images/0002.jpg", "images/0003.png"]
    assert NYUv2(official, "train")[0].name == f"{MAT}/0002"


@settings(deadline=None)
@given(st.permutations(range(1, 200)), st.integers(80, 190))
def test_val_is_held_out_of_train_in_blocks(order: list[int], count: int):
    official, test = order[:count], order[count:]
    train, val, both = (frames_of(split, official, test) for split in ("train", "val", "trainval"))
    assert sorted(train + val) == both == sorted(official) and frames_of("test", official, test) == sorted(test)
    assert val == [frame for place in range(70, count, 80) for frame in both[place : place + 10]]


def test_splits_that_are_not_there(prepared: Path):
    refused(prepared, "no split 'valid'; there are train, val, trainval, test", split="valid")
    refused(prepared, "no frames in val", split="val")
    refused(prepared, "13 or 40 classes, not 11", classes=11)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (lambda root: (root / "images" / "0003.png").unlink(), r"images/0003: missing image"),
        (
            lambda root: (root / "labels40" / "0005.png").unlink(),
            r"images/0005\.png: image without a mask labels40/0005\.png",
        ),
        (
            lambda root: (root / "images" / "0003.jpg").write_bytes(b""),
            r"images/0003\.png: a second image called '0003', beside 0003\.jpg",
        ),
        (lambda root: (root / "labels40").rename(root / "labels894"), "labels40: no such folder"),
        (lambda root: (root / "test.txt").unlink(), r"test\.txt: cannot be read"),
        (lambda root: (root / "test.txt").write_text("1\n5\n"), r"test\.txt: frame 5 is also in train\.txt"),
        (lambda root: (root / "train.txt").write_text("2\n\n0002\n"), r"train\.txt:3: frame 2 stands on line 1"),
        (lambda root: (root / "train.txt").write_text("2\n0\n"), r"train\.txt:2: .*found '0'"),
        (lambda root: (root / "train.txt").write_text("images/0002.png\n"), r"train\.txt:1: expected the number"),
        (lambda root: (root / "train.txt").write_text("²\n"), r"train\.txt:1: expected the number"),
        (lambda root: (root / "train.txt").write_text("\n"), "no frames in train"),
        (lambda root: (root / "train.txt").write_bytes(b"\xff"), r"train\.txt: cannot be read"),
        (lambda root: (root / "train.txt").unlink(), "neither images/ and train.txt"),
    ],
)
def test_faults_of_a_prepared_folder(prepared: Path, fault: Callable[[Path], object], words: str):
    fault(prepared)
    refused(prepared, words)


def test_faults_are_reported_one_by_one_where_asked(prepared: Path):
    (prepared / "images" / "0003.png").unlink()
    (prepared / "labels40" / "0005.png").unlink()
    found: list[DataError] = []
    assert NYUv2(prepared, "train", 40, found.append).ids == [2]
    assert ["0003" in str(found[0]), "0005" in str(found[1]), len(found)] == [True, True, 2]


@pytest.mark.parametrize(("classes", "wrong"), [(13, 14), (40, 41), (40, 255)])
def test_a_wrong_id_in_a_prepared_mask(nyu: Any, prepared: Path, classes: int, wrong: int):
    ids = nyu.ids(classes)[2].copy()
    ids[7, 3] = wrong
    Image.fromarray(ids).save(prepared / f"labels{classes}" / "0003.png")
    refused(prepared, rf"labels{classes}/0003\.png: label {wrong} at pixel \(row 7, column 3\)", classes=classes)


def test_damaged_and_differing_files_of_a_prepared_folder(prepared: Path):
    path = prepared / "labels40" / "0003.png"
    data = path.read_bytes()
    path.write_bytes(data[:-20])
    refused(prepared, r"labels40/0003\.png: truncated PNG")
    Image.fromarray(np.zeros((16, 12), np.uint8)).save(path)
    refused(prepared, r"labels40/0003\.png: the mask has 12x16 but its image 16x12")


def rewritten(root: Path, change: Callable[[h5py.File], object]) -> None:
    with h5py.File(root / MAT, "r+") as file:
        change(file)


def replace(file: h5py.File, name: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    data = change(file[name][()])
    del file[name]
    file[name] = data


def put(kinds: np.ndarray) -> np.ndarray:
    kinds[2, 3, 7] = 895  # frame 3, column 3, row 7
    return kinds


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (lambda r: (r / MAT).write_bytes((r / MAT).read_bytes()[:-100]), r"labeled\.mat: damaged, or not HDF5 \(.*"),
        (lambda r: (r / MAT).write_bytes(b"<html>sorry</html>"), r"labeled\.mat: damaged, or not HDF5"),
        (lambda r: (r / MAT).unlink(), "neither images/ and train.txt"),
        (lambda r: rewritten(r, lambda f: f.pop("labels")), "holds no array called labels"),
        (lambda r: rewritten(r, lambda f: (f.pop("images"), f.create_group("images"))), "no array called images"),
        (lambda r: rewritten(r, lambda f: replace(f, "images", lambda x: x.transpose(0, 3, 2, 1))), r"\(N,3,W,H\)"),
        (lambda r: rewritten(r, lambda f: replace(f, "images", lambda x: x[:4])), r"found images \(4, 3, 16, 12\)"),
        (lambda r: rewritten(r, lambda f: replace(f, "images", lambda x: x / 255.0)), "found .* float64"),
        (lambda r: rewritten(r, lambda f: replace(f, "labels", lambda x: np.uint8(5))), r"labels \(\) uint8"),
        (
            lambda r: rewritten(r, lambda f: replace(f, "labels", put)),
            r"frame 3: label 895 at pixel \(row 7, column 3\)",
        ),
        (lambda r: (r / "splits.mat").unlink(), r"splits\.mat: missing"),
        (lambda r: (r / "splits.mat").write_bytes(b"\0" * 300), r"splits\.mat: damaged, or not of MATLAB 5"),
        (lambda r: (r / "splits.mat").write_bytes((r / "splits.mat").read_bytes()[:150]), r"splits\.mat: damaged"),
        (lambda r: savemat(r / "splits.mat", {"trainNdxs": [[1]]}), r"splits\.mat: holds no testNdxs"),
        (lambda r: savemat(r / "splits.mat", {"trainNdxs": [[1, 6]], "testNdxs": [[2]]}), "from 1 to 6.*frames 1 to 5"),
        (lambda r: savemat(r / "splits.mat", {"trainNdxs": [[0, 1]], "testNdxs": [[2]]}), "from 0 to 1"),
        (lambda r: savemat(r / "splits.mat", {"trainNdxs": [[1, 1]], "testNdxs": [[2]]}), "with 1 repeated"),
        (lambda r: savemat(r / "splits.mat", {"trainNdxs": [[1, 2]], "testNdxs": [[2]]}), "frame 2 is in both"),
        (lambda r: savemat(r / "splits.mat", {"trainNdxs": [[1.5]], "testNdxs": [[2]]}), "holds no frame numbers"),
        (lambda r: savemat(r / "classMapping40.mat", {"mapClass": [[1, 41]]}), "does not lead to classes 1 to 40"),
        (lambda r: savemat(r / "classMapping40.mat", {"mapClass": [[0, 1]]}), "does not lead to classes 1 to 40"),
        (lambda r: (r / "class13Mapping.mat").unlink(), r"class13Mapping\.mat: missing"),
        (lambda r: savemat(r / "class13Mapping.mat", {"classMapping13": [[1]]}), "no struct with labels13"),
        (
            lambda r: savemat(r / "class13Mapping.mat", {"classMapping13": {"labels13": [[1]]}}),
            "maps 1 classes, not 40",
        ),
    ],
)
def test_faults_of_the_official_files(official: Path, fault: Callable[[Path], object], words: str):
    fault(official)
    refused(official, words, classes=13)


def test_a_flipped_byte_of_a_frame_is_noticed(official: Path):
    """HDF5 itself keeps no sums here; those of the compressed chunks are checked by its reader."""
    with h5py.File(official / MAT) as file:
        place = file["labels"].id.get_chunk_info(0)
        base = file.userblock_size
    data = bytearray((official / MAT).read_bytes())
    data[base + place.byte_offset + place.size // 2] ^= 0x10
    (official / MAT).write_bytes(data)
    refused(official, r"labeled\.mat: damaged, or not HDF5", classes=40)


def test_40_classes_need_no_mapping_to_13(official: Path):
    (official / "class13Mapping.mat").unlink()
    assert len(NYUv2(official, "trainval", 40)) == 3


def open_files() -> list[str]:
    return [
        os.readlink(f"/proc/self/fd/{fd}")
        for fd in os.listdir("/proc/self/fd")
        if os.path.exists(f"/proc/self/fd/{fd}")
    ]


def read_twice(data: NYUv2) -> list[tuple[int, int]]:
    return [(int(sample.image.sum()), int(sample.mask.sum())) for _ in range(2) for sample in data]


def test_it_travels_to_other_processes_and_leaves_nothing_open(official: Path):
    data = NYUv2(official, "train", 13)
    here = read_twice(data)
    assert not any(MAT in name for name in open_files())
    assert read_twice(pickle.loads(pickle.dumps(data))) == here
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(read_twice, [data] * 6) == [here] * 6


def test_a_frame_costs_the_memory_of_a_frame(tmp_path: Path, nyu: Any):
    """As many frames as there are in truth, none of them written: 1.8 GB that would be read as zeros."""
    nyu.write_official(tmp_path)
    with h5py.File(tmp_path / MAT, "w") as file:
        file.create_dataset("images", (1449, 3, 640, 480), np.uint8, chunks=(1, 3, 640, 480))
        file.create_dataset("labels", (1449, 640, 480), np.uint16, chunks=(1, 640, 480))
    data = NYUv2(tmp_path, "train", 40)
    tracemalloc.start()
    assert data[1].image.shape == (480, 640, 3) and (data[1].mask == IGNORE).all()
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()


def test_the_audit_counts_each_frame_in_its_phase(official: Path):
    code = f"""
from segkd.foundation import audit
audit.install()
from segkd.data.sets.nyuv2 import NYUv2
with audit.phase('evaluation'):
    data = NYUv2({str(official)!r}, 'train', 40)
    before = audit.count('evaluation')
    data[0]
assert audit.count('evaluation') == before + 1
with audit.phase('training'):
    data[0], data[2]
assert audit.count('training') == 2
audit.ignore({str(official)!r})
with audit.phase('training'):
    data[1]
assert audit.count('training') == 2
assert audit.count('none') == 0
"""
    root = str(Path(__file__).parents[3])
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | {"PYTHONPATH": root}
    )
    assert done.returncode == 0, done.stderr


def test_the_reader_of_matlab_files_is_not_loaded_before_it_is_needed():
    code = "import sys, segkd.data.sets.nyuv2; assert not {'h5py', 'scipy'} & set(sys.modules)"
    root = str(Path(__file__).parents[3])
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"PYTHONPATH": root})


@pytest.mark.realdata
def test_class_lists_are_those_of_the_data(real: Path):
    told = json.loads((real / "nyuv2_256" / "classes.json").read_text())
    assert list(NYUV2_13.names) == told["classes13"] and list(NYUV2_40.names) == told["classes40"]


@pytest.mark.realdata
@pytest.mark.parametrize(("split", "count"), [("train", 700), ("val", 95), ("trainval", 795), ("test", 654)])
def test_nyuv2_256(real: Path, split: str, count: int):
    for classes in (13, 40):
        data = NYUv2(real / "nyuv2_256", split, classes)
        assert len(data) == count
        seen = np.zeros(256, dtype=np.int64)
        for sample in data[:: max(1, count // 40)]:
            assert sample.image.shape == (256, 341, 3)
            seen += np.bincount(sample.mask.ravel(), minlength=256)
        found = np.flatnonzero(seen)
        assert found[-1] == IGNORE and found[-2] < classes and len(found) > 0.8 * classes


@pytest.mark.realdata
def test_the_official_files_and_the_prepared_folder_agree_on_every_pixel(real: Path, tmp_path: Path):
    for name, source in (
        (MAT, "nyuv2_mini_mat/nyu_depth_v2_labeled_mini.mat"), ("splits.mat", "nyuv2_mini_mat/splits_mini.mat"),
        ("classMapping40.mat", "nyuv2_meta/classMapping40.mat"), ("class13Mapping.mat", "nyuv2_meta/class13Mapping.mat"),
    ):  # fmt: skip
        (tmp_path / name).symlink_to(real / source)
    for classes in (13, 40):
        prepared = {frame: i for i, frame in enumerate(NYUv2(real / "nyuv2_256", "trainval", classes).ids)}
        tested = {frame: i for i, frame in enumerate(NYUv2(real / "nyuv2_256", "test", classes).ids)}
        for split, count in (("train", 6), ("test", 2)):
            data = NYUv2(tmp_path, split, classes)
            assert len(data) == count
            for frame, sample in zip(data.ids, data, strict=True):
                assert sample.image.shape == (480, 640, 3)
                known, places = ("trainval", prepared) if frame in prepared else ("test", tested)
                small = NYUv2(real / "nyuv2_256", known, classes)[places[frame]]
                resized = resize_protocol(sample)
                assert np.array_equal(resized.mask, small.mask)
                assert np.abs(resized.image.astype(int) - small.image).mean() < 3
                assert np.abs(resized.image[:, ::-1].astype(int) - small.image).mean() > 20
