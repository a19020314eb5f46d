"""Tests of segkd.data.sets.folder and of the description beside the images."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from segkd.data.classes import IGNORE, listed
from segkd.data.description import Description, read_description
from segkd.data.sets.folder import Folder
from segkd.foundation.errors import DataError
from tests.data.folders import NAMES, ids, picture, write

COLOURS = "classes: {road: [128, 64, 128], car: [0, 0, 142], tree: [107, 142, 35]}\nlabels: colours\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three labelled images in images/train and masks/train."""
    root = tmp_path / "streets"
    for seed, name in enumerate(("b.png", "a.jpg", "c.d.png")):
        write(root / "images" / "train" / name, picture(seed))
        write(root / "masks" / "train" / f"{Path(name).stem}.png", ids(seed))
    (root / "dataset.yaml").write_text(NAMES)
    return root


def refused(root: Path, words: str, split: str = "train") -> None:
    with pytest.raises(DataError, match=words) as caught:
        list(Folder(root, split))
    assert caught.value.exit_code == 3


def flat(root: Path) -> None:
    """All images in images/, and lists."""
    for folder in ("images", "masks"):
        for path in (root / folder / "train").iterdir():
            path.rename(root / folder / path.name)
        (root / folder / "train").rmdir()
    (root / "train.txt").write_text("c.d\n\nb\n")
    (root / "val.txt").write_text("a\n")
    (root / "classes.txt").write_text("road\ncar\ntree\n")


def test_folders_matched_by_stem(root: Path):
    data = Folder(root, "train")
    assert data.classes == listed("streets", ["road", "car", "tree"])
    assert [sample.name for sample in data] == ["images/train/a.jpg", "images/train/b.png", "images/train/c.d.png"]
    for sample, seed in zip(data[1:], (0, 2), strict=True):
        assert np.array_equal(sample.image, picture(seed))
        assert np.array_equal(sample.mask, ids(seed)) and sample.mask.dtype == np.uint8
    with pytest.raises(IndexError):
        data[3]
    assert Folder.splits(root) == ["train"]
    (root / "images" / "train" / "._b.png").write_bytes(b"of a Mac")
    (root / "images" / "train" / "notes.txt").write_text("not an image")
    assert len(Folder(root, "train")) == 3


def test_lists_of_stems(root: Path):
    flat(root)
    assert [sample.name for sample in Folder(root, "train")] == ["images/c.d.png", "images/b.png"]
    assert [sample.name for sample in Folder(root, "val")] == ["images/a.jpg"]
    assert Folder.splits(root) == ["train", "val"]


def test_a_list_beside_the_folders_of_a_split_is_not_passed_over_in_silence(root: Path):
    listing = root / "train.txt"
    for text in ("a\nb\nc.d\n", "of these photos\n"):
        listing.write_text(text)
        assert not Folder(root, "train").notes and len(Folder(root, "train")) == 3
    for text in ("a\n", "a\nb\nc.d\ne\n"):
        listing.write_text(text)
        [note] = Folder(root, "train").notes
        assert note.startswith(f"{listing}: not read, since {root}/images/train is a folder; ")
    (root / "dataset.yaml").write_text(NAMES + 'list: "{split}.txt"\n')
    listing.write_text("a\n")
    assert len(Folder(root, "train")) == 1 and not Folder(root, "train").notes


@pytest.mark.parametrize(
    ("images", "masks", "target"),
    [("{split}/rgb", "{split}/labels", "train/rgb"), ("x/y-{split}", "m-{split}", "x/y-train"), ("rgb", "gt", "rgb")],
)
def test_other_folders(root: Path, images: str, masks: str, target: str):
    for kind, pattern in (("images", images), ("masks", masks)):
        new = root / pattern.replace("{split}", "train")
        new.parent.mkdir(parents=True, exist_ok=True)
        (root / kind / "train").rename(new)
    (root / "dataset.yaml").write_text(f'{NAMES}images: "{images}"\nmasks: "{masks}"\n')
    if "{split}" not in images:
        assert Folder(root, "any").notes[0].endswith("has no splits: 'any' is all that is there")
        (root / "train.txt").write_text("b\na\n")
    assert [sample.name for sample in Folder(root, "train")][-2:] == [f"{target}/{n}" for n in (["b.png", "a.jpg"] if images == "rgb" else ["b.png", "c.d.png"])]  # fmt: skip
    assert Folder.splits(root) == ["train"]


def test_255_is_ignored_by_default_and_other_ids_where_declared(root: Path):
    mask = ids(0)
    mask[0], mask[1] = 255, 7
    write(root / "masks" / "train" / "b.png", mask)
    refused(
        root, r"masks/train/b\.png: label 7 at pixel \(row 1, column 0\) and 7 more; .*dataset\.yaml has no such id"
    )
    (root / "dataset.yaml").write_text(NAMES + "ignore: [255, 7]\n")
    assert np.array_equal(Folder(root, "train")[1].mask == IGNORE, mask > 2)
    (root / "dataset.yaml").write_text(NAMES + "ignore: 7\n")
    refused(root, "label 255 at pixel")


def test_remap_of_16_bit_ids(root: Path):
    raw = np.array([11, 7000, 65535, 0], np.uint16)[ids(0).astype(int)]
    raw[0] = 0
    write(root / "masks" / "train" / "b.png", raw)
    (root / "dataset.yaml").write_text(NAMES + "remap: {11: 0, 7000: tree, 65535: ignore}\nignore: [0]\n")
    mask = Folder(root, "train")[1].mask
    assert np.array_equal(mask[1:], np.array([0, 2, IGNORE])[ids(0)[1:]]) and (mask[0] == IGNORE).all()
    refused(root, r"a\.png: label 1 at|a\.png: label 2 at")  # not in the map, though an id of a class


@pytest.mark.parametrize("kind", ["rgb", "palette"])
def test_colours(root: Path, kind: str):
    table = np.array([(128, 64, 128), (0, 0, 142), (107, 142, 35), (0, 0, 0)], np.uint8)
    for seed, stem in enumerate(("b", "a", "c.d")):
        mask = ids(seed)
        mask[0, 0] = 3
        if kind == "rgb":
            write(root / "masks" / "train" / f"{stem}.png", table[mask])
        else:
            picture = Image.fromarray((9 - mask).astype(np.uint8))
            picture.putpalette([0] * 18 + table[::-1].ravel().tolist())
            picture.save(root / "masks" / "train" / f"{stem}.png")
    (root / "dataset.yaml").write_text(COLOURS)
    refused(root, r"train/a\.png: colour \(0, 0, 0\) at pixel \(row 0, column 0\) is not in the colour map")
    (root / "dataset.yaml").write_text(COLOURS + "ignore: [[0, 0, 0]]\n")
    data = Folder(root, "train")
    assert data.classes.palette == tuple(tuple(int(c) for c in colour) for colour in table[:3])
    for sample, seed in zip(data, (1, 0, 2), strict=True):
        expected = ids(seed)
        expected[0, 0] = IGNORE
        assert np.array_equal(sample.mask, expected)
    (root / "dataset.yaml").write_text(COLOURS.replace("labels: colours\n", ""))
    refused(root, "RGB mask" if kind == "rgb" else "label 9 at pixel|label 8 at pixel|label 6 at pixel")


def test_several_colours_of_one_class(root: Path):
    table = np.array([(128, 64, 128), (64, 0, 64), (0, 0, 142)], np.uint8)
    for seed, stem in enumerate(("b", "a", "c.d")):
        write(root / "masks" / "train" / f"{stem}.png", table[ids(seed)])
    (root / "dataset.yaml").write_text(
        "classes: {road: [[128, 64, 128], [64, 0, 64]], car: [0, 0, 142]}\nlabels: colours\n"
    )
    data = Folder(root, "train")
    assert data.classes.names == ("road", "car") and data.classes.palette == ((128, 64, 128), (0, 0, 142))
    for sample, seed in zip(data, (1, 0, 2), strict=True):
        assert np.array_equal(sample.mask, ids(seed) // 2)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (lambda r: (r / "masks/train/a.png").unlink(), r"images/train/a\.jpg: image without a mask masks/train/a\.\*$"),
        (
            lambda r: (r / "images/train/a.jpg").unlink(),
            r"masks/train/a\.png: mask without an image images/train/a\.\*$",
        ),
        (lambda r: write(r / "images/train/a.PNG", picture(5)), r"a\.jpg: a second image called 'a', beside a\.PNG"),
        (lambda r: write(r / "masks/train/b.PNG", ids(5)), r"b\.png: a second mask called 'b', beside b\.PNG"),
        (lambda r: write(r / "masks/train/b.png", ids(0, 8, 6)), r"b\.png: the mask has 6x8 but its image 8x6"),
        (lambda r: (r / "masks/train/b.png").write_bytes(b"\x89PNG"), r"b\.png: neither PNG nor JPEG"),
        (lambda r: (r / "masks/train").rename(r / "masks/val"), r"masks/train: no such folder"),
        (lambda r: [p.unlink() for p in r.rglob("train/*")], r"images/train: no image images/train/\{name\}\.\*"),
        (lambda r: (r / "dataset.yaml").unlink(), r"dataset\.yaml: no such file"),
        (lambda r: (flat(r), (r / "train.txt").write_text("b\nx\n")), r"train\.txt:2: no image called 'x' in"),
        (lambda r: (flat(r), (r / "train.txt").write_text("b\na\nb\n")), r"train\.txt:3: 'b' stands on line 1 already"),
        (
            lambda r: (flat(r), (r / "train.txt").unlink()),
            r"train\.txt: no such list.*nor folders images/train and.*; there are the splits val",
        ),
        (lambda r: (flat(r), (r / "train.txt").write_text("\n")), r"train\.txt: no image with a mask"),
        (lambda r: (flat(r), (r / "train.txt").write_bytes(b"\xff")), r"train\.txt: cannot be read"),
        (lambda r: (flat(r), (r / "masks/b.png").unlink()), r"b\.png: image without a mask"),
    ],
)
def test_files_that_do_not_match(root: Path, fault: Callable[[Path], object], words: str):
    fault(root)
    refused(root, words)


@pytest.mark.parametrize("split", ["..", "", "a/b", "*", "val"])
def test_splits_that_are_none(root: Path, split: str):
    refused(root, "no such list of images" if split == "val" else "no name of a split", split)


def test_every_fault_is_reported_where_asked(root: Path):
    (root / "masks/train/a.png").unlink()
    write(root / "masks/train/z.png", ids(9))
    found: list[DataError] = []
    assert len(Folder(root, "train", found.append)) == 2
    assert sorted(Path(str(error).split(":")[0]).name for error in found) == ["a.jpg", "z.png"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ":1: expected a mapping with the key classes"),
        ("- road\n", ":1: expected a mapping"),
        ("ignore: 9\n", ":1: classes: missing"),
        ("classes: 3\n", ":1: classes: expected a list of names, or NAME: .*; got 3"),
        ("classes: [road]\n", ":1: classes: expected 2 to 254 classes"),
        ("classes: [road, 5]\n", ":1: classes: expected a list"),
        ("classes: [road, car, road]\n", ":1: classes: 'road', or its colour, stands twice"),
        ("classes: [road, ignore]\n", ":1: classes: .*none of them called '' or 'ignore'"),
        ("classes: {road: [1, 2, 3], car: [1, 2]}\n", ":1: classes: expected .* with 0 to 255"),
        ("classes: {road: [1, 2, 3], car: [1, 2, 256]}\n", ":1: classes: expected"),
        ("classes: {road: [1, 2, 3], car: [1, 2, true]}\n", ":1: classes: expected"),
        ("classes: {road: [1, 2, 3], car: [1, 2, 3]}\n", ":1: classes: 'road', or its colour, stands twice"),
        (
            "classes: {road: [[1, 2, 3], [4, 5, 6]], car: [[4, 5, 6]]}\n",
            ":1: classes: 'road', or its colour, stands twice",
        ),
        ("classes: {road: [[1, 2, 3], [1, 2]], car: [4, 5, 6]}\n", ":1: classes: expected"),
        ("classes: {road: [], car: [4, 5, 6]}\n", ":1: classes: expected"),
        (
            "classes:\n  road: [1, 2, 3]\n  road: [3, 2, 1]\n  car: [1, 1, 1]\n",
            ":3: road: duplicate key, first given at",
        ),
        (NAMES + "classes: [a, b]\n", ":2: classes: duplicate key"),
        (NAMES + "ignroe: 255\n", ":2: ignroe: unknown key, did you mean 'ignore'?"),
        (NAMES + "\n\nlabels: colour\n", ":4: labels: unknown value \"colour\", did you mean 'colours'?"),
        (NAMES + "labels: colours\n", ":2: labels: the classes have no colours"),
        (NAMES + "ignore: [1, 255]\n", ":2: ignore: 1 is a class; remap says"),
        (NAMES + "ignore: [70000]\n", ":2: ignore: expected ids"),
        (NAMES + "ignore: [true]\n", ":2: ignore: expected ids"),
        (NAMES + "ignore: [[0, 0, 0]]\n", ":2: ignore: labels are ids: expected ids"),
        (COLOURS + "ignore: 255\n", r":3: ignore: labels are colours: expected \[red, green, blue\] each"),
        (COLOURS + "ignore: [[0, 0, 142]]\n", r":3: ignore: \[0, 0, 142\] is a class"),
        (COLOURS + "remap: {1: 2}\n", ":3: remap: remap is for ids"),
        (NAMES + "remap: {1: 3}\n", r":2: remap: 1: expected a class by its name or id \(0 to 2\), or ignore"),
        (NAMES + "remap: {1: rod}\n", ":2: remap: 1: expected a class"),
        (NAMES + "remap: {1: true}\n", ":2: remap: 1: expected a class"),
        (NAMES + "remap: {road: 1}\n", ":2: remap: expected ID: CLASS"),
        (NAMES + "remap: {70000: 1}\n", ":2: remap: expected ID: CLASS"),
        (NAMES + "remap: {1: 0, 01: 1}\n", ":2: 1: duplicate key"),
        (NAMES + "remap: {1: 0}\nignore: [1]\n", ":3: ignore: 1 is a class"),
        (NAMES + "images: /data/x\n", ":2: images: expected a path below the folder of dataset.yaml"),
        (NAMES + "masks: ../x\n", ":2: masks: expected a path below"),
        (NAMES + 'images: "{spilt}/x"\n', ":2: images: expected a folder or a path such as images/{split}/{name}.jpg"),
        (NAMES + "images: all\n", "{split} must stand in both of images and masks, or not in masks"),
        (NAMES + 'images: "{split}"\nmasks: "{split}"\n', ":3: masks: images and masks must be in two folders"),
        (NAMES + "labels: !!python/name:os.system ids\n", ":2: the tag"),
        (NAMES + "a: [\n", ": not valid YAML"),
        ("classes: [a\u0000b, c]\n", "not valid YAML: character U.0000"),
    ],
)
def test_mistakes_in_the_description_have_their_line(root: Path, text: str, words: str):
    (root / "dataset.yaml").write_text(text)
    with pytest.raises(DataError, match=words) as caught:
        Folder(root, "train")
    assert "\n" not in str(caught.value) and str(root / "dataset.yaml") in str(caught.value)


def test_all_mistakes_are_told_at_once(root: Path):
    (root / "dataset.yaml").write_text(NAMES + "ignroe: 255\nlabels: 5\nmasks: ''\n")
    with pytest.raises(DataError) as caught:
        read_description(root)
    assert [line.split(": ")[0].rpartition(":")[2] for line in str(caught.value).splitlines()] == ["3", "4", "2"]


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(st.integers(0, 65535), st.sampled_from(["road", "car", "tree", "ignore", 0, 1, 2]), min_size=1),
    st.sets(st.integers(0, 65535), max_size=9),
)
@example({7: "road"}, {0})  # 0 is an id as any other, and is seldom drawn
def test_the_table_of_ids_is_the_map_spelt_out(remap: dict[int, int | str], ignored: set[int]):
    ignored -= remap.keys()
    told = {"classes": ["road", "car", "tree"], "remap": {str(k): v for k, v in remap.items()}, "ignore": list(ignored)}
    table = Description.model_validate(told).id_table()
    meaning = {"road": 0, "car": 1, "tree": 2, "ignore": IGNORE, 0: 0, 1: 1, 2: 2}
    expected = {key: meaning[value] for key, value in remap.items()} | dict.fromkeys(ignored, IGNORE)
    assert {int(key): int(table[key]) for key in np.flatnonzero(table != 254)} == expected


def test_descriptions_are_read_without_torch(root: Path):
    code = "import sys; from segkd.data.sets.folder import Folder; Folder(sys.argv[1], 'train')[0]; assert 'torch' not in sys.modules"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    subprocess.run([sys.executable, "-c", code, str(root)], check=True, env=environment)


def test_the_documented_example_is_valid(tmp_path: Path):
    text = (Path(__file__).parents[3] / "docs/data.md").read_text("utf-8")
    (tmp_path / "dataset.yaml").write_text(text.split("## Your own folders")[1].split("```yaml\n")[1].split("```")[0])
    description = read_description(tmp_path)
    assert set(description.model_fields_set) == set(Description.model_fields)
    assert description.id_table()[[7, 26, 24, 0, 255]].tolist() == [0, 1, 2, IGNORE, IGNORE]
