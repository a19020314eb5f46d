"""Tests of segkd.data.labels: what 255 is, where nobody has said it."""

from pathlib import Path

import numpy as np
import pytest

from segkd.data.classes import IGNORE
from segkd.data.sets.folder import Folder
from segkd.data.verify import verify
from segkd.foundation.errors import DataError
from tests.data.folders import picture, write

TWO, THREE = "classes: [background, road]\n", "classes: [background, road, car]\n"


def of(root: Path, text: str, *masks: list[int]) -> Folder:
    for number, values in enumerate(masks):
        write(root / f"images/test/{number}.png", picture(number, 1, len(values)))
        write(root / f"masks/test/{number}.png", np.array([values], np.uint8))
    (root / "dataset.yaml").write_text(text)
    return Folder(root, "test")


@pytest.mark.parametrize(
    ("text", "masks", "words"),
    [
        (TWO, [[0, 255], [255, 0]], r"0\.png: 2 of 2 masks hold 255, which would be ignored, and 'background' is the only class beside it; say in .*dataset\.yaml what 255 is: remap: \{0: background, 255: road\}, or ignore: 255"),
        (TWO, [[0, 0], [0, 255]], r"1\.png: 1 of 2 masks hold 255"),
        (TWO, [[0, 0], [255, 255]], r"remap: \{0: background, 255: road\}"),
        (TWO, [[1, 255], [1, 1]], r"'road' is the only class beside it; .*remap: \{1: road, 255: background\}"),
        (TWO, [[0, 1], [0, 255], [1, 0]], r"1\.png: 1 of 3 masks .* and 'road' is never in one mask with it; .*remap: \{0: background, 1: road, 255: road\}"),
        (TWO + "remap: {0: background, 7: road}\n", [[0, 255], [0, 255]], r"remap: \{0: background, 255: road\}"),
        (THREE, [[0, 255], [0, 0]], r"'background' is the only class .*remap: \{0: background, 255: CLASS\}"),
        (TWO, [[0, 254]], r"label 254 at pixel .*has no such id; in it remap: \{254: CLASS\} would say what it is"),
        (TWO, [[0, 128]], "label 128 at pixel"),
    ],
)  # fmt: skip
def test_black_and_white_masks_are_asked_about(tmp_path: Path, text: str, masks: list[list[int]], words: str):
    with pytest.raises(DataError, match=words) as caught:
        list(of(tmp_path, text, *masks))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "masks"),
    [
        (TWO, [[0, 1], [1, 0]]),
        (TWO, [[0, 1, 255], [0, 1, 1]]),
        (TWO, [[0, 255, 0], [0, 1, 255]]),
        (TWO, [[1, 255], [0, 1]]),
        (TWO, [[255, 255]]),
        (TWO, [[0, 0], [0, 0]]),
        (TWO + "ignore: 255\n", [[0, 255]]),
        (TWO + "ignore: [255]\n", [[0, 255]]),
        (THREE, [[0, 2, 255]]),
        (THREE, [[0, 255], [2, 2]]),
        (THREE, [[1, 1]]),
    ],
)
def test_what_is_clear_is_read_as_ever(tmp_path: Path, text: str, masks: list[list[int]]):
    for sample, values in zip(of(tmp_path, text, *masks), masks, strict=True):
        assert sample.mask.tolist() == [[IGNORE if value == 255 else value for value in values]]


def test_a_description_that_says_it_is_right(tmp_path: Path):
    for more in ("remap: {0: background, 255: road}\nignore: []\n", "remap: {0: background, 255: road}\n"):
        assert [sample.mask.tolist() for sample in of(tmp_path, TWO + more, [0, 255], [255, 0])] == [[[0, 1]], [[1, 0]]]


def test_verify_reports_it_and_reads_the_rest(tmp_path: Path):
    of(tmp_path, TWO + "ignore: 255\n", [0, 255], [255, 0])
    (tmp_path / "dataset.yaml").write_text(TWO)
    found = verify("folder", tmp_path)
    assert found.splits == ["test: 2 images of 2x1 pixels"]
    assert len(found.problems) == 1 and "remap: {0: background, 255: road}" in found.problems[0]


def test_a_range_and_a_limit_from_the_description(tmp_path: Path):
    twelve = np.array([[0, 4095]], np.uint16)
    of(tmp_path, TWO, [0, 1])
    write(tmp_path / "images/test/0.png", twelve)
    with pytest.raises(DataError, match=r"range: \[0, 4095\]"):
        Folder(tmp_path, "test").read(0)
    (tmp_path / "dataset.yaml").write_text(TWO + "range: [0, 4095]\n")
    assert Folder(tmp_path, "test").read(0).image[0, :, 0].tolist() == [0, 255]
    wide = np.zeros((1001, 1000), np.uint8)
    write(tmp_path / "images/test/0.png", wide)
    write(tmp_path / "masks/test/0.png", wide)
    (tmp_path / "dataset.yaml").write_text(TWO + "megapixels: 1\n")
    with pytest.raises(DataError, match=r"declares 1000x1001 pixels; .*megapixels: 2 in the folder's dataset.yaml"):
        Folder(tmp_path, "test").read(0)
    (tmp_path / "dataset.yaml").write_text(TWO + "megapixels: 2\n")
    assert Folder(tmp_path, "test").read(0).mask.shape == (1001, 1000)
