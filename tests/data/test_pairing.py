"""Tests of segkd.data.pairing and of the lists beside it: which image has which mask, and what is said of the rest."""

import re
from pathlib import Path

import numpy as np
import pytest

from segkd.data.lists import Known, read_lines
from segkd.data.pairing import compiled
from segkd.data.sets.folder import Folder
from segkd.foundation.errors import DataError
from tests.data.folders import NAMES, filled, ids, picture, write


def paired(data: Folder) -> list[tuple[str, ...]]:
    return [tuple(path.relative_to(data.root).as_posix() for path in pair) for pair in data.pairs]


DOCUMENTED = (Path(__file__).parents[2] / "docs/data.md").read_text("utf-8").split("### Layouts")[1].split("\n## ")[0]
"""The part of the page about layouts: a heading in bold, what to write, and the files that it finds."""
LAYOUTS = re.findall(r"\*\*(.+?)\*\*.*?```yaml\n(.+?)```.*?```text\n(.+?)```", DOCUMENTED, re.DOTALL)


@pytest.mark.parametrize(("name", "keys", "files"), LAYOUTS, ids=[name for name, _, _ in LAYOUTS])
def test_the_documented_layouts_are_read(tmp_path: Path, name: str, keys: str, files: str):
    pairs = [line.split() for line in files.splitlines() if "  " in line]
    lists = [line.split(": ") for line in files.splitlines() if ": " in line]
    filled(tmp_path / "set", *(place for pair in pairs for place in pair), text=NAMES + keys)
    for place, text in lists:
        (tmp_path / "set" / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / place).write_text(text.replace(", ", "\n") + "\n")
    data = Folder(tmp_path / "set", "train")
    assert paired(data) == [tuple(pair) for pair in pairs] and len(list(data)) == len(pairs) > 0
    assert Folder.splits(tmp_path / "set") in (["train"], ["all"])


def test_the_page_shows_the_layouts_that_people_have():
    assert [name for name, _, _ in LAYOUTS] == [
        "Cityscapes", "Pascal VOC", "ADE20K", "Masks with an ending of their own", "Images and masks in one folder",
        "No splits at all",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("pattern", "place", "name"),
    [
        ("images/{name}.*", "images/c.d.JPG", "c.d"),
        ("images/{name}.*", "images/a.gif", None),
        ("images/{name}.*", "images/x/y.tif", "x/y"),
        ("images/{name}.*", "other/y.tif", None),
        ("images/{name}.jpg", "images/a.JPG", "a"),
        ("images/{name}.jpg", "images/a.png", None),
        ("r*/{name}_rgb.png", "rgb 1/7_rgb.png", "7"),
        ("r*/{name}_rgb.png", "r/s/7_rgb.png", "s/7"),
        ("{name}/image.png", "07/image.png", "07"),
        ("img({name}).png", "img(3).png", "3"),
        ("{name}/{name}.png", "a/a.png", "a"),
        ("{name}/{name}.png", "a/b.png", None),
        ("x/{name}", "x/without an ending", "without an ending"),
    ],
)
def test_patterns(pattern: str, place: str, name: str | None):
    found = compiled(pattern).fullmatch(place)
    assert (found and found["name"]) == name


def test_kinds_are_mixed_and_endings_in_capitals(tmp_path: Path):
    root = filled(tmp_path, "images/test/a.JPG", "images/test/b.tif", "images/test/c.webp", "images/test/d.bmp",
                  "masks/test/a.PNG", "masks/test/b.TIF", "masks/test/c.png", "masks/test/d.bmp")  # fmt: skip
    data = Folder(root, "test")
    assert len(data) == 4 and not data.notes
    for number, sample in enumerate(data):
        assert np.array_equal(sample.mask, ids(4 + number))


def test_what_is_left_out_is_named(tmp_path: Path):
    root = filled(tmp_path, "images/test/a.png", "masks/test/a.png")
    assert not Folder(root, "test").notes
    (root / "images/test/b.heic").write_bytes(b"?")
    (root / "images/test/.DS_Store").write_bytes(b"?")
    for name in "cdef":
        (root / f"masks/test/{name}.json").write_text("{}")
    assert Folder(root, "test").notes == (
        f"{root}/images/test: left out: 1 file of another kind or name (b.heic)",
        f"{root}/masks/test: left out: 4 files of other kinds or names (c.json, d.json, e.json, ...)",
    )
    (root / "dataset.yaml").write_text(
        NAMES + 'images: "images/{split}/{name}.png"\nmasks: "masks/{split}/{name}.png"\n'
    )
    write(root / "images/test/g.jpg", np.zeros((6, 8, 3), np.uint8))
    assert [line.rpartition("(")[2] for line in Folder(root, "test").notes] == ["b.heic, g.jpg)"]


@pytest.mark.parametrize(
    ("places", "words"),
    [
        (["images/test/a.png", "masks/test/a.jpg"], r"a\.jpg: JPEG mask; its compression changes the ids"),
        (["images/test/a.png", "masks/test/b.png"], r"none of 1 images has a mask: a\.png would need masks/test/a\.\*, and there is b\.png$"),
        (["images/test/a.gif", "masks/test/a.png"], r"images/test: no image images/test/\{name\}\.\*; there are 1 file of another kind or name \(a\.gif\)"),
        (["images/test/a.png", "images/test/b.png", "masks/test/a.png", "masks/test/b.gif"], r"b\.png: image without a mask masks/test/b\.\*; b\.gif is of a kind that is not read"),
        (["images/test/a.png", "images/test/b.gif", "masks/test/a.png", "masks/test/b.png"], r"b\.png: mask without an image images/test/b\.\*; b\.gif is of a kind"),
        (["images/test/img_0.jpg", "masks/test/img_0_masks.png"], r'img_0\.jpg would need masks/test/img_0\.\*, and there is img_0_masks\.png; if they pair so, write images: "images/\{split\}/\{name\}\.\*" and masks: "masks/\{split\}/\{name\}_masks\.\*" in dataset\.yaml'),
        (["images/test/aachen/a_01_rgb.png", "masks/test/aachen/a_01_ids.png"], r'images: "images/\{split\}/\{name\}_rgb\.\*" and masks: "masks/\{split\}/\{name\}_ids\.\*"'),
        (["images/train/a.png", "masks/train/a.png"], r"test\.txt: no such list of images, nor .*; there are the splits train"),
    ],
)  # fmt: skip
def test_what_does_not_pair_is_told_with_its_reason(tmp_path: Path, places: list[str], words: str):
    root = filled(tmp_path, *places)
    with pytest.raises(DataError, match=words) as caught:
        list(Folder(root, "test"))
    assert "\n" not in str(caught.value)


def test_what_is_suggested_pairs(tmp_path: Path):
    root = filled(tmp_path, "images/test/x/img_0.jpg", "masks/test/x/img_0_masks.png")
    with pytest.raises(DataError) as caught:
        Folder(root, "test")
    images, masks = re.findall(r'(?:images|masks): "(.+?)"', str(caught.value))
    (root / "dataset.yaml").write_text(f'{NAMES}images: "{images}"\nmasks: "{masks}"\n')
    assert paired(Folder(root, "test")) == [("images/test/x/img_0.jpg", "masks/test/x/img_0_masks.png")]


def test_a_preview_beside_a_mask_is_left_out(tmp_path: Path):
    root = filled(tmp_path, "images/test/a.png", "masks/test/a.png", "masks/test/a.jpg")
    data = Folder(root, "test")
    assert paired(data) == [("images/test/a.png", "masks/test/a.png")] and "a.jpg" in data.notes[0]


def test_folders_that_are_links(tmp_path: Path):
    root = filled(tmp_path / "set", "masks/test/city/a.png")
    filled(tmp_path / "elsewhere", "city/a.png")
    (root / "images").mkdir()
    (root / "images/test").symlink_to(tmp_path / "elsewhere")
    (root / "masks/test/again").symlink_to(root / "masks/test")
    assert len(Folder(root, "test")) == 1


LISTS = {
    "a byte-order mark": b"\xef\xbb\xbfb\na\n",
    "UTF-16": "b\na\n".encode("utf-16"),
    "UTF-16, big end first": b"\xfe\xff" + "b\na\n".encode("utf-16-be"),
    "Windows": b"b\r\na\r\n",
    "an old Mac": b"b\ra\r",
    "endings": b"b.jpg\na.JPG\n",
    "other endings": b"b.png\na.tif\n",
    "paths": b"images/b.jpg\n./images/a.jpg\n",
    "Windows paths": b"D:\\set\\images\\b.jpg\r\nimages\\a\r\n",
    "another machine": b"/home/her/set/images/b.jpg\n/home/her/set/images/a.jpg\n",
    "masks": b"b.jpg b.png\na.jpg\ta.png\n",
    "paths of masks": b"/images/b.jpg /masks/b.png\n/images/a.jpg /masks/a.png\n",
    "commas": b"images/b.jpg,masks/b.png\nimages/a.jpg, masks/a.png\n",
    "spaces and empty lines": b"  b  \n\n\ta\t\n\n",
    "two marks": b"\xef\xbb\xbfb\n\xef\xbb\xbfa\n",
}


@pytest.mark.parametrize("kind", LISTS)
def test_lists_as_people_and_tools_write_them(tmp_path: Path, kind: str):
    root = filled(tmp_path, "images/a.jpg", "images/b.jpg", "images/c.jpg", "masks/a.png", "masks/b.png", "masks/c.png")
    (root / "test.txt").write_bytes(LISTS[kind])
    assert paired(Folder(root, "test")) == [("images/b.jpg", "masks/b.png"), ("images/a.jpg", "masks/a.png")]
    assert Folder.splits(root) == ["test"]


def test_a_list_in_another_folder_and_pairs_of_other_names(tmp_path: Path):
    root = filled(tmp_path, "rgb/1 one.jpg", "rgb/2.jpg", "gt/x.png", "gt/2.png",
                  text=f'{NAMES}images: rgb\nmasks: gt\nlist: "lists/{{split}}_pairs.txt"\n')  # fmt: skip
    (root / "lists").mkdir()
    (root / "lists/test_pairs.txt").write_text("2.jpg x.png\n")
    (root / "lists/val_pairs.txt").write_text("1 one\n")
    assert paired(Folder(root, "test")) == [("rgb/2.jpg", "gt/x.png")]
    assert Folder.splits(root) == ["test", "val"]
    (root / "lists/test_pairs.txt").write_text("rgb/1 one.jpg\nrgb/2.jpg gt/1.png\n")
    write(root / "rgb/1.jpg", picture(0))
    write(root / "gt/1.png", ids(0))
    write(root / "gt/1 one.png", ids(0))
    assert paired(Folder(root, "test")) == [("rgb/1 one.jpg", "gt/1 one.png"), ("rgb/2.jpg", "gt/1.png")]
    (root / "gt/1 one.png").unlink()
    with pytest.raises(DataError, match=r"1 one\.jpg: image without a mask gt/1 one\.\*"):
        Folder(root, "val")
    with pytest.raises(DataError, match=r"lists/train_pairs\.txt: cannot be read: No such file"):
        Folder(root, "train")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a\nx.jpg\n", r"test\.txt:2: no image called 'x\.jpg' in .*images$"),
        ("g\n", r"test\.txt:1: no image called 'g' in .*images; g\.gif is of a kind that is not read"),
        ("a\na.jpg\n", r"test\.txt:2: 'a\.jpg' stands on line 1 already"),
        ("images/x.jpg masks/a.png\n", r"test\.txt:1: no image called 'images/x\.jpg masks/a\.png'"),
        ("a.jpg z.png\n", r"test\.txt:1: no mask called 'a\.jpg z\.png' in .*masks"),
        ("elsewhere/b.jpg\n", "no image called 'elsewhere/b.jpg'"),
    ],
)
def test_lines_that_name_nothing(tmp_path: Path, text: str, words: str):
    root = filled(tmp_path, "images/a.jpg", "images/sub/b.jpg", "images/g.gif", "masks/a.png", "masks/sub/b.png")
    (root / "test.txt").write_text(text)
    with pytest.raises(DataError, match=words):
        Folder(root, "test")


def test_a_name_that_could_be_two_files_is_none(tmp_path: Path):
    files = {name: tmp_path / "images" / f"{name}.png" for name in ("x/1", "y/1", "2")}
    known = Known(files, tmp_path)
    assert known.find("1") is None and known.find("z/1.png") is None
    assert known.find("y/1.png") == "y/1" and known.find("images/x/1") == "x/1" and known.find("any/where/2.jpg") == "2"


def test_what_is_no_list(tmp_path: Path):
    for data in (b"\xff\xfe\x00", bytes(range(256)), b"a\0b"):
        (tmp_path / "list.txt").write_bytes(data)
        with pytest.raises(DataError, match=r"list\.txt: cannot be read"):
            list(read_lines(tmp_path / "list.txt"))
    (tmp_path / "list.txt").unlink()
    (tmp_path / "list.txt").mkdir()
    with pytest.raises(DataError, match=r"list\.txt: cannot be read: Is a directory"):
        list(read_lines(tmp_path / "list.txt"))
