"""Tests of segkd.data.sets.camvid: the public layouts read as they are, and every fault of a data set is one line."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segkd.data.classes import IGNORE
from segkd.data.resize import resize_protocol
from segkd.data.samples import check_labels
from segkd.data.sets.camvid import CAMVID, CamVid
from segkd.foundation.errors import DataError


def picture(seed: int, height: int = 12, width: int = 16) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def labels(seed: int, height: int = 12, width: int = 16) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 12, (height, width), dtype=np.uint8)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three labelled images of a split "train", without a list."""
    (tmp_path / "train").mkdir()
    (tmp_path / "trainannot").mkdir()
    for index, suffix in enumerate(("png", "jpg", "png")):
        Image.fromarray(picture(index)).save(tmp_path / "train" / f"i{index}.{suffix}")
        Image.fromarray(labels(index)).save(tmp_path / "trainannot" / f"i{index}.png")
    return tmp_path


def refused(root: Path, words: str, split: str = "train") -> None:
    with pytest.raises(DataError, match=words) as caught:
        list(CamVid(root, split))
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 3


def test_camvid_is_the_tutorials_table():
    assert len(CAMVID) == 11
    table = dict(zip(CAMVID.names, CAMVID.palette, strict=True))
    assert table["sky"] == (128, 128, 128)
    assert table["pavement"] == (60, 40, 222)
    assert CAMVID.names[3] == "road"
    assert CAMVID.names[10] == "bicyclist"


def test_folders_without_a_list(root: Path):
    dataset = CamVid(root, "train")
    assert dataset.classes is CAMVID
    assert [sample.name for sample in dataset] == ["train/i0.png", "train/i1.jpg", "train/i2.png"]
    sample = dataset[-1]
    assert np.array_equal(sample.image, picture(2))
    assert sample.mask is not None
    assert sample.mask.dtype == np.uint8
    assert np.array_equal(sample.mask == IGNORE, labels(2) == 11)
    assert np.array_equal(sample.mask[sample.mask != IGNORE], labels(2)[labels(2) != 11])
    assert [sample.name for sample in dataset[1:]] == ["train/i1.jpg", "train/i2.png"]
    with pytest.raises(IndexError):
        dataset[3]


@pytest.mark.parametrize("prefix", ["", "/SegNet/CamVid/", "somewhere/else/"])
def test_lists_with_any_prefix(root: Path, prefix: str):
    lines = [f"{prefix}train/i{i}.png {prefix}trainannot/i{i}.png" for i in (2, 1)]
    (root / "train.txt").write_text("\n".join(lines) + "\n\n")
    assert [sample.name for sample in CamVid(root, "train")] == ["train/i2.png", "train/i1.jpg"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("train/i0.png", r"train\.txt:2: 'train/i0\.png' stands on line 1 already"),
        ("train/i0.png trainannot/i0.png 7", r"train\.txt:2: no image called '.* 7'"),
        ("train/../secret.png trainannot/i0.png", r"train\.txt:2: no image called 'train/\.\./secret"),
        ("train/i9.png trainannot/i0.png", r"train\.txt:2: no image called 'train/i9\.png"),
        ("train/i1.png trainannot/i9.png", r"train\.txt:2: no mask called 'train/i1\.png trainannot/i9\.png'"),
    ],
)
def test_malformed_lists(root: Path, line: str, words: str):
    (root / "train.txt").write_text(f"train/i0.png trainannot/i0.png\n{line}\n")
    refused(root, words)


def test_missing_and_empty(root: Path, tmp_path: Path):
    refused(tmp_path / "nowhere", "nowhere: no such folder")
    refused(root, "val: no such folder", split="val")
    os.remove(root / "trainannot" / "i1.png")
    refused(root, "i1.jpg: image without a mask trainannot/i1")
    os.remove(root / "train" / "i1.jpg")
    assert len(CamVid(root, "train")) == 2
    os.remove(root / "train" / "i0.png")
    refused(root, "i0.png: mask without an image")
    os.remove(root / "train" / "i2.png")
    refused(root, "train: no image train")
    (root / "train.txt").write_text("\n")
    refused(root, "train.txt: no image with a mask")
    (root / "train.txt").write_bytes(b"\xff\xfe\x00")
    refused(root, "train.txt: cannot be read")


@pytest.mark.parametrize(("label", "dtype"), [(12, np.uint8), (255, np.uint8), (300, np.uint16), (65_535, np.uint16)])
def test_label_out_of_range_names_file_id_and_pixel(root: Path, label: int, dtype: type):
    mask = labels(1).astype(dtype)
    mask[7, 3] = label
    path = root / "trainannot" / "i1.png"
    Image.fromarray(mask).save(path)
    refused(root, rf"trainannot/i1\.png: label {label} at pixel \(row 7, column 3\)")


def test_mask_of_another_size(root: Path):
    Image.fromarray(labels(0, 16, 12)).save(root / "trainannot" / "i0.png")
    refused(root, r"i0\.png: the mask has 12x16 but its image 16x12")


def test_cut_files_are_named(root: Path):
    for name, words in (("train/i1.jpg", "JPEG"), ("trainannot/i2.png", "truncated PNG")):
        path = root / name
        data = path.read_bytes()
        path.write_bytes(data[: len(data) * 2 // 3])
        refused(root, rf"{name}: .*{words}")
        path.write_bytes(data)


@pytest.mark.realdata
@pytest.mark.parametrize(("split", "count"), [("train", 367), ("val", 101), ("test", 233)])
def test_camvid256(real: Path, split: str, count: int):
    dataset = CamVid(real / "camvid256", split)
    assert len(dataset) == count
    seen = np.zeros(256, dtype=np.int64)
    for sample in dataset[:: max(1, count // 25)]:
        assert sample.image.shape == (256, 341, 3)
        check_labels(sample.name, sample.mask, 11)
        seen += np.bincount(sample.mask.ravel(), minlength=256)
    assert np.flatnonzero(seen).tolist() == [*range(11), IGNORE]


@pytest.mark.realdata
def test_original_size_with_absolute_paths_resizes_to_the_protocols_masks(real: Path):
    original, resized = CamVid(real / "camvid_test", "test"), CamVid(real / "camvid256", "test")
    assert len(original) == 233
    for index in range(0, 233, 29):
        sample = original[index]
        assert sample.image.shape == (360, 480, 3)
        assert Path(sample.name).stem == Path(resized[index].name).stem
        small = resize_protocol(sample)
        assert np.array_equal(small.mask, resized[index].mask)
        assert np.abs(small.image.astype(int) - resized[index].image).mean() < 3
