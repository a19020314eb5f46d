"""Tests of segkd.data.verify: every bad file is named, and a good set is not blamed."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segkd.data.sets.camvid import CamVid
from segkd.data.sets.nyuv2 import NYUv2
from segkd.data.verify import verify

FEW = {"camvid": {"train": 3, "test": 2}, "nyuv2": {"trainval": 3, "test": 2}}


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def grey(value: int, height: int = 6, width: int = 8) -> np.ndarray:
    return np.full((height, width), value, np.uint8)


def picture(height: int = 6, width: int = 8) -> np.ndarray:
    return np.zeros((height, width, 3), np.uint8)


@pytest.fixture
def camvid(tmp_path: Path) -> Path:
    for split, count in FEW["camvid"].items():
        for i in range(count):
            write(tmp_path / split / f"{i}.png", picture())
            write(tmp_path / f"{split}annot" / f"{i}.png", grey(i))
    (tmp_path / "train.txt").write_text("".join(f"train/{i}.png trainannot/{i}.png\n" for i in range(3)))
    return tmp_path


def check(name: Any, root: Path, *splits: str) -> list[str]:
    return [line.replace(f"{root}/", "") for line in verify(name, root, splits, counts=FEW.get(name)).problems]


def test_a_good_set(camvid: Path, nyu: Any, tmp_path: Path):
    seen: list[tuple[int, int]] = []
    found = verify("camvid", camvid, counts=FEW["camvid"], progress=lambda done, total: seen.append((done, total)))
    assert found.splits == ["train: 3 images of 8x6 pixels", "test: 2 images of 8x6 pixels"]
    assert found.problems == [] and seen == [(done, 5) for done in range(1, 6)]
    for layout, labellings in ((nyu.write_prepared, (40, 13)), (nyu.write_official, (40, 13))):
        found = verify("nyuv2", layout(tmp_path / layout.__name__), counts=FEW["nyuv2"])
        assert found.problems == []
        assert found.splits == [
            f"{split} ({classes} classes): {count} images of 16x12 pixels"
            for split, count in FEW["nyuv2"].items()
            for classes in labellings
        ]
    (tmp_path / "write_official" / "class13Mapping.mat").unlink()
    shutil.rmtree(tmp_path / "write_prepared" / "labels40")
    for name in ("write_official", "write_prepared"):
        found = verify("nyuv2", tmp_path / name, counts=FEW["nyuv2"])
        assert found.problems == [] and len(found.splits) == 2


def test_every_bad_file_is_named(camvid: Path):
    (camvid / "train/0.png").write_bytes((camvid / "train/0.png").read_bytes()[:-5])
    write(camvid / "trainannot/1.png", grey(12))
    (camvid / "trainannot/2.png").unlink()
    write(camvid / "testannot/0.png", grey(0, 8, 6))
    (camvid / "test/1.png").unlink()
    lines = check("camvid", camvid)
    for words in (
        "train.txt:3: no mask called 'train/2.png trainannot/2.png' in trainannot", "testannot/1.png: mask without an image", "train/0.png: truncated PNG",
        "trainannot/1.png: label 12 at pixel (row 0, column 0) and 47 more", "train: 2 images, where 3 were published",
        "testannot/0.png: the mask has 6x8 but its image 8x6", "test: 1 images, where 2 were published",
    ):  # fmt: skip
        assert sum(words in line for line in lines) == 1, (words, lines)
    assert len(lines) == 7
    assert len(check("camvid", camvid, "test")) == 3


@pytest.mark.parametrize(
    ("spoil", "line"),
    [
        (lambda r: write(r / "train/x.png", picture()), "train/x.png: belongs to no split"),
        (lambda r: (write(r / "test/0.png", picture(3, 4)), write(r / "testannot/0.png", grey(1, 3, 4)), write(r / "test/2.png", picture()), write(r / "testannot/2.png", grey(1))), "test/0.png: 4x3 pixels, where 2 images have 8x6"),  # fmt: skip
        (lambda r: shutil.rmtree(r / "test"), "test: no such folder"),
        (lambda r: (r / "train.txt").write_text("train/9.png\n"), "train.txt:1: no image called 'train/9.png' in train"),
        (lambda r: (r / "train.txt").write_bytes(b"\xff"), "train.txt: cannot be read"),
        (lambda r: [p.unlink() for p in (r / "test").iterdir()], "test: no image test/{name}.*"),
    ],
)  # fmt: skip
def test_other_faults(camvid: Path, spoil: Callable[[Path], object], line: str):
    spoil(camvid)
    assert any(found.startswith(line) for found in check("camvid", camvid))


def test_faults_of_nyuv2_are_told_once_for_both_labellings(nyu: Any, tmp_path: Path):
    root = nyu.write_prepared(tmp_path / "nyu")
    (root / "images/0001.png").unlink()
    lines = check("nyuv2", root)
    assert lines[0] == "images/0001: missing image" and sum("0001" in line for line in lines) == 1
    write(root / "images/0001.png", nyu.images[0])
    write(root / "labels13/0009.png", nyu.ids(13)[0])
    (root / "images/.DS_Store").write_bytes(b"no image, and none of its business")
    assert check("nyuv2", root) == ["labels13/0009.png: belongs to no split"]
    (root / "labels13/0009.png").unlink()
    write(root / "labels13/0004.png", np.full((12, 16), 14, np.uint8))
    assert check("nyuv2", root) == ["labels13/0004.png: label 14 at pixel (row 0, column 0) and 191 more; NYUv2 has 1 to 13, and 0 for void"]  # fmt: skip
    assert "no NYUv2: neither" in check("nyuv2", tmp_path)[0]


def test_a_folder_of_ones_own(tmp_path: Path):
    for split, sizes in (("day", [(6, 8), (9, 8)]), ("night", [(6, 8)])):
        for i, size in enumerate(sizes):
            write(tmp_path / "images" / split / f"{i}.png", picture(*size))
            write(tmp_path / "masks" / split / f"{i}.png", grey(i, *size))
    (tmp_path / "dataset.yaml").write_text("classes: [road, car]\n")
    found = verify("folder", tmp_path)
    assert found.problems == [] and found.splits == ["day: 2 images of 2 sizes", "night: 1 images of 8x6 pixels"]
    (tmp_path / "images/day/c.gif").write_text("?")
    assert verify("folder", tmp_path).splits[1].endswith("images/day: left out: 1 file of another kind or name (c.gif)")
    assert not verify("folder", tmp_path).problems
    write(tmp_path / "masks/day/0.png", grey(2))
    (tmp_path / "masks/night/0.png").unlink()
    lines = check("folder", tmp_path)
    assert [line.split(": ")[0] for line in lines] == ["masks/night", "masks/day/0.png"]
    assert len(check("folder", tmp_path, "day")) == 1
    (tmp_path / "dataset.yaml").write_text("classes: [road, car]\nignroe: 3\nlabels: 4\n")
    assert [line.split(": ")[0] for line in check("folder", tmp_path)] == ["dataset.yaml:3", "dataset.yaml:2"]
    (tmp_path / "dataset.yaml").unlink()
    assert "dataset.yaml: no such file" in check("folder", tmp_path)[0]


def test_the_published_counts():
    assert CamVid.counts == {"train": 367, "val": 101, "test": 233}
    assert sum(NYUv2.counts.values()) == 1449 and NYUv2.counts["train"] + NYUv2.counts["val"] == 795


@pytest.mark.realdata
def test_real_sets_are_good(real: Path):
    assert verify("camvid", real / "camvid256", ["val"]).problems == []
    assert verify("nyuv2", real / "nyuv2_256", ["val"]).splits == [
        "val (40 classes): 95 images of 341x256 pixels", "val (13 classes): 95 images of 341x256 pixels",
    ]  # fmt: skip
