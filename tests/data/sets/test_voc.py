"""Tests of segkd.data.sets.voc on small files in the official folders."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segkd.data import catalogue
from segkd.data.sets.voc import VOC, Voc
from segkd.data.verify import verify
from segkd.foundation.errors import DataError
from tests.data.folders import picture, write

LISTS = {"train": ("2007_000032",), "val": ("2007_000033", "2007_000039"), "trainaug": ("2007_000032", "2008_000002")}
FEW = {split: len(names) for split, names in LISTS.items()}


def labels(name: str) -> np.ndarray:
    ids = np.random.default_rng(int(name[-2:])).integers(0, 22, (6, 8), dtype=np.uint8)
    ids[ids == 21] = 255
    return ids


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Where the archive is unpacked: palette masks, and grey ones of SBD."""
    folder = tmp_path / "VOCdevkit/VOC2012"
    palette = [value for colour in VOC.palette for value in colour] + [0] * 702 + [224, 224, 192]
    for split, names in LISTS.items():
        for name in names:
            write(folder / f"JPEGImages/{name}.jpg", picture(0))
            if split == "trainaug":
                write(folder / f"SegmentationClassAug/{name}.png", labels(name))
            else:
                mask = Image.fromarray(labels(name), "P")
                mask.putpalette(palette)
                (folder / "SegmentationClass").mkdir(exist_ok=True)
                mask.save(folder / f"SegmentationClass/{name}.png")
        (folder / "ImageSets/Segmentation").mkdir(parents=True, exist_ok=True)
        (folder / f"ImageSets/Segmentation/{split}.txt").write_text("".join(f"{name}\n" for name in names))
    write(folder / "JPEGImages/2012_004331.jpg", picture(1))  # of the many that are not segmented
    return tmp_path


def test_indices_of_palette_masks_are_the_ids(root: Path):
    for folder in (root, root / "VOCdevkit/VOC2012"):
        for split, names in LISTS.items():
            data = catalogue.dataset("voc", str(folder), split, VOC)
            assert [sample.name for sample in data] == [f"JPEGImages/{name}.jpg" for name in names]
            assert all(np.array_equal(sample.mask, labels(name)) for name, sample in zip(names, data, strict=True))
            kind = "SegmentationClassAug" if split == "trainaug" else "SegmentationClass"
            assert {mask.parent.name for _, mask in data.pairs} == {kind}


def test_lists_of_pairs(root: Path):
    listing = root / "VOCdevkit/VOC2012/ImageSets/Segmentation/trainaug.txt"
    listing.write_text("/JPEGImages/2008_000002.jpg /SegmentationClassAug/2008_000002.png\n")
    assert np.array_equal(Voc(root, "trainaug")[0].mask, labels("2008_000002"))


def test_the_published_classes():
    table = dict(zip(VOC.names, VOC.palette, strict=True))
    assert list(table)[0] == "background" and list(table)[20] == "tvmonitor" and list(table)[15] == "person"
    for index, colour in enumerate(VOC.palette):  # as the development kit makes them, of the bits of the index
        bits = [sum((index >> 3 * bit + channel & 1) << 7 - bit for bit in range(3)) for channel in range(3)]
        assert colour == tuple(bits)
    assert (Voc.counts["train"], Voc.counts["val"]) == (1464, 1449)


def test_verification_names_every_fault(root: Path):
    found = verify("voc", root, counts=FEW)
    assert found.problems == [] and found.splits[1] == "val: 2 images of 8x6 pixels"
    write(root / "VOCdevkit/VOC2012/JPEGImages/2007_000033.jpg", picture(1, 8, 8))
    wrong = labels("2007_000039")
    wrong[1, 2] = 21
    write(root / "VOCdevkit/VOC2012/SegmentationClass/2007_000039.png", wrong)
    (root / "VOCdevkit/VOC2012/SegmentationClassAug/2008_000002.png").unlink()
    told = verify("voc", root).problems
    for words in (
        "2007_000039.png: label 21 at pixel (row 1, column 2); VOC has 0 to 20, and 255 for void",
        "2008_000002.jpg: image without a mask SegmentationClassAug/2008_000002.png", "2007_000033.png: the mask has 8x6 but its image 8x8",
        "train: 1 images, where 1464 were published", "val: 2 images, where 1449 were published",
        "trainaug: 1 images, where 10582 were published",
    ):  # fmt: skip
        assert sum(words in line for line in told) == 1, told
    assert len(told) == 6
    (root / "VOCdevkit/VOC2012/ImageSets/Segmentation/trainaug.txt").unlink()
    assert len(verify("voc", root).splits) == 2


def test_what_cannot_be_had(root: Path):
    for split, words in (
        ("test", "the labels of its test images are not public"),
        ("trainval", r"Segmentation/trainval\.txt: cannot be read: No such file"),
    ):
        with pytest.raises(DataError, match=words) as caught:
            Voc(root, split)
        assert "\n" not in str(caught.value) and caught.value.exit_code == 3
    shutil.rmtree(root / "VOCdevkit/VOC2012/JPEGImages")
    with pytest.raises(DataError, match="no JPEGImages there; voc is at http://host.robots.ox.ac.uk"):
        Voc(root, "val")
