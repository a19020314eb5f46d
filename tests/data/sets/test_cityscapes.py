"""Tests of segkd.data.sets.cityscapes on small files in the official folders."""

from pathlib import Path

import numpy as np
import pytest

from segkd.data import catalogue
from segkd.data.classes import IGNORE
from segkd.data.sets.cityscapes import CITYSCAPES, IDS, Cityscapes
from segkd.data.verify import verify
from segkd.foundation.errors import DataError
from tests.data.folders import picture, write


def label_ids(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 34, (6, 8), dtype=np.uint8)


def train_ids(labels: np.ndarray) -> np.ndarray:
    """As published: 19 of 34 label ids count."""
    mask = np.full(labels.shape, IGNORE, np.uint8)
    for index, label in enumerate(IDS):
        mask[labels == label] = index
    return mask


def place(root: Path, kind: str, name: str, split: str = "train") -> Path:
    folder = "leftImg8bit" if kind == "leftImg8bit" else "gtFine"
    return root / folder / split / name.partition("_")[0] / f"{name}_{kind}.png"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three frames of two cities, in train, with label ids."""
    for seed, name in enumerate(("aachen_000000_000019", "bochum_000000_000313", "bochum_000000_000600")):
        write(place(tmp_path, "leftImg8bit", name), picture(seed))
        for kind, pixels in (("labelIds", label_ids(seed)), ("instanceIds", label_ids(seed)), ("color", picture(seed))):
            write(place(tmp_path, f"gtFine_{kind}", name), pixels)
    return tmp_path


def test_label_ids_become_train_ids_and_train_ids_are_taken_where_they_are(root: Path):
    data = catalogue.dataset("cityscapes", str(root), "train", CITYSCAPES)
    assert [Path(sample.name).name for sample in data] == [
        f"{name}_leftImg8bit.png" for name in ("aachen_000000_000019", "bochum_000000_000313", "bochum_000000_000600")
    ]
    for seed, sample in enumerate(data):
        assert np.array_equal(sample.image, picture(seed)) and np.array_equal(sample.mask, train_ids(label_ids(seed)))
        write(data.pairs[seed][1].with_name(data.pairs[seed][1].name.replace("labelIds", "labelTrainIds")), sample.mask)
    made = Cityscapes(root, "train")
    assert all(np.array_equal(a.mask, b.mask) for a, b in zip(made, data, strict=True))
    assert {path.name.rpartition("_")[2] for _, path in made.pairs} == {"labelTrainIds.png"}
    made.pairs[0][1].unlink()
    with pytest.raises(
        DataError, match="019_leftImg8bit.png: image without a mask gtFine/train/aachen/.*_labelTrainIds.png"
    ):
        Cityscapes(root, "train")


def test_the_published_classes():
    table = dict(zip(IDS, zip(CITYSCAPES.names, CITYSCAPES.palette, strict=True), strict=True))
    assert (table[7], table[26]) == (("road", (128, 64, 128)), ("car", (0, 0, 142)))
    assert (table[11], table[33]) == (("building", (70, 70, 70)), ("bicycle", (119, 11, 32)))
    assert len(CITYSCAPES) == 19 and Cityscapes.counts == {"train": 2975, "val": 500}


def test_verification_names_every_fault(root: Path):
    assert verify("cityscapes", root, ["train"], counts={"train": 3}).problems == []
    write(place(root, "gtFine_labelIds", "aachen_000000_000019"), label_ids(0) + 34)
    write(place(root, "leftImg8bit", "ulm_000000_000019"), picture(0))
    write(place(root, "gtFine_labelIds", "zurich_000000_000019"), label_ids(0))
    write(place(root, "leftImg8bit", "bochum_000000_000313"), picture(0, 12, 16))
    told = "\n".join(verify("cityscapes", root, ["train"]).problems)
    for words in (
        "019_gtFine_labelIds.png: label", "Cityscapes has label ids from 0 to 33", "train: 3 images, where 2975 were",
        "ulm_000000_000019_leftImg8bit.png: image without a mask gtFine/train/ulm/ulm_000000_000019_gtFine_labelIds.png",
        "zurich_000000_000019_gtFine_labelIds.png: mask without an image",
        "313_gtFine_labelIds.png: the mask has 8x6 but its image 16x12",
    ):  # fmt: skip
        assert words in told, told
    assert len(told.splitlines()) == 5
    wrong = train_ids(label_ids(2))
    wrong[2, 3] = 19
    write(place(root, "leftImg8bit", "ulm_000000_000019", "val"), picture(0))
    write(place(root, "gtFine_labelTrainIds", "ulm_000000_000019", "val"), wrong)
    told = verify("cityscapes", root, ["val"]).problems[0]
    assert "labelTrainIds.png: label 19 at pixel (row 2, column 3); Cityscapes has train ids from 0 to 18" in told


@pytest.mark.parametrize(
    ("split", "words"),
    [
        ("test", "labels of its test images are not public; measure on val"),
        ("val", "leftImg8bit/val: no such folder"),
    ],
)
def test_splits_that_cannot_be_had(root: Path, split: str, words: str):
    with pytest.raises(DataError, match=words) as caught:
        Cityscapes(root, split)
    assert "\n" not in str(caught.value) and caught.value.exit_code == 3
    with pytest.raises(DataError, match=r"no leftImg8bit there; cityscapes is at https://www.cityscapes-dataset.com"):
        Cityscapes(root / "gtFine", "train")
