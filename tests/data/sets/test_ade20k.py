"""Tests of segkd.data.sets.ade20k on small files in the official folders."""

from pathlib import Path

import numpy as np
import pytest

from segkd.data import catalogue
from segkd.data.classes import IGNORE
from segkd.data.sets.ade20k import ADE20K, Ade20k
from segkd.data.verify import verify
from segkd.foundation.errors import DataError
from tests.data.folders import picture, write

FEW = {"train": 3, "val": 2}


def labels(seed: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 151, (height, width), dtype=np.uint8)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Where the archive is unpacked; images of two sizes."""
    for split, count in FEW.items():
        for i in range(count):
            stem, size = f"ADE_{split}_{i + 1:08d}", (6 + i % 2, 8)
            write(tmp_path / f"ADEChallengeData2016/images/{Ade20k.folders[split]}/{stem}.jpg", picture(i, *size))
            write(tmp_path / f"ADEChallengeData2016/annotations/{Ade20k.folders[split]}/{stem}.png", labels(i, *size))
    return tmp_path


def test_zero_is_ignored_and_classes_count_from_one(root: Path):
    for folder in (root, root / "ADEChallengeData2016"):
        data = catalogue.dataset("ade20k", str(folder), "val", ADE20K)
        assert [sample.name for sample in data] == [f"images/validation/ADE_val_{i:08d}.jpg" for i in (1, 2)]
        for i, sample in enumerate(data):
            ids = labels(i, *sample.image.shape[:2]).astype(int)
            assert np.array_equal(sample.mask, np.where(ids == 0, IGNORE, ids - 1))


def test_the_published_classes():
    assert (len(ADE20K), Ade20k.counts) == (150, {"train": 20210, "val": 2000})
    table = list(zip(ADE20K.names, ADE20K.palette, strict=True))
    assert table[:2] == [("wall", (120, 120, 120)), ("building", (180, 120, 120))]
    assert (table[20], table[149]) == (("car", (0, 102, 200)), ("flag", (92, 0, 255)))
    assert ADE20K.palette[ADE20K.names.index("road")] == ADE20K.palette[ADE20K.names.index("skyscraper")]


def test_verification_names_every_fault(root: Path):
    found = verify("ade20k", root, counts=FEW)
    assert found.problems == [] and found.splits == ["train: 3 images of 2 sizes", "val: 2 images of 2 sizes"]
    folder = root / "ADEChallengeData2016"
    wrong = labels(1, 7, 8)
    wrong[3, 4] = 151
    write(folder / "annotations/training/ADE_train_00000002.png", wrong)
    (folder / "annotations/training/ADE_train_00000003.png").unlink()
    (folder / "images/validation/ADE_val_00000001.jpg").unlink()
    told = verify("ade20k", root).problems
    for words in (
        "ADE_train_00000002.png: label 151 at pixel (row 3, column 4); ADE20K has 1 to 150, and 0 for other things",
        "images/training/ADE_train_00000003.jpg: image without a mask", "val: 1 images, where 2000 were published",
        "annotations/validation/ADE_val_00000001.png: mask without an image", "train: 2 images, where 20210 were published",
    ):  # fmt: skip
        assert sum(words in line for line in told) == 1, told
    assert len(told) == 5


def test_what_cannot_be_had(root: Path):
    for split, words in (
        ("test", "the labels of its test images are not public"),
        ("valid", "images/valid: no such folder"),
    ):
        with pytest.raises(DataError, match=words) as caught:
            Ade20k(root, split)
        assert "\n" not in str(caught.value) and caught.value.exit_code == 3
    with pytest.raises(DataError, match="no annotations there; ade20k is at http://sceneparsing"):
        Ade20k(root / "ADEChallengeData2016/images", "val")
