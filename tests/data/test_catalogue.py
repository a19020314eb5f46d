"""Tests of segkd.data.catalogue: the sets that are there, and a new one, which is one file."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import segkd
from segkd.data import catalogue
from segkd.data.classes import Classes, listed
from segkd.foundation import rooms
from segkd.foundation.errors import DataError
from segkd.recipe.datasets import class_lists, class_names, final_split

PACKAGE = Path(segkd.__file__).parent
PAGE = Path(__file__).parents[2] / "docs/data.md"
RECIPE = """
model: {arch: Unet, encoder: resnet18, classes: toys_2}
train: {loss: cross_entropy, crop: [32, 32], optimizer: {name: sgd, lr: 0.1}}
data: {name: %s, root: d, final: null}
run: {steps: 1, batch: 2}
"""

NAMED = [catalogue.classes_of(name) for name in class_lists()]


@pytest.mark.parametrize("classes", [*NAMED, listed("mine", [f"c{i}" for i in range(40)])], ids=lambda c: c.name)
def test_colours_differ_and_none_is_that_of_void(classes: Classes):
    assert len(set(classes.palette)) == len(classes.names) - (classes.name == "ade20k")  # has one twice, as published
    assert (0, 0, 0) not in classes.palette[classes.names[0] == "background" :]
    assert all(0 <= value <= 255 for colour in classes.palette for value in colour)


def test_class_lists_are_those_that_a_recipe_may_name():
    assert {classes.name: classes for classes in NAMED} == {
        classes.name: classes for name in rooms.files(rooms.SETS) for classes in catalogue.reader(name).labellings
    }
    assert [len(catalogue.classes_of(name)) for name in ("camvid", "nyuv2_13", "nyuv2_40", "scenes")] == [11, 13, 40, 9]
    written = {classes.name: class_names(classes.name) for classes in NAMED}
    assert written == {classes.name: classes.names if classes.name != "scenes" else () for classes in NAMED}
    assert class_names("camvd") == ()
    with pytest.raises(DataError, match="no classes called 'camvd'; known: .*camvid, .*nyuv2_13, nyuv2_40, scenes"):
        catalogue.classes_of("camvd")


def test_the_split_that_is_measured_in_the_end_is_read_without_the_set_and_has_labels():
    for name in rooms.files(rooms.SETS):
        kind = catalogue.reader(name)
        assert final_split(name) == kind.final and kind.final not in kind.unlabelled
        assert kind.final in kind.counts or name == "folder"
    assert final_split(None) == final_split("no set") == "test"


def test_known_by_their_names():
    for classes in NAMED:
        assert catalogue.known_as(list(classes.names)) is classes
    assert catalogue.known_as(NAMED[0].names[::-1]) is None


def test_a_new_set_is_one_file(tmp_path: Path):
    """That of the page, in a copy of the package; recipes, commands and the catalogue know it, and nothing else is written."""
    shutil.copytree(PACKAGE, tmp_path / "segkd", ignore=shutil.ignore_patterns("__pycache__"))
    file = PAGE.read_text("utf-8").partition("## A further set")[2].partition("```python\n")[2].partition("```")[0]
    (tmp_path / "segkd/data/sets/toys.py").write_text(file)
    (tmp_path / "d/train").mkdir(parents=True)
    for i in (1, 2):
        Image.fromarray(np.full((6, 8), i, np.uint8)).save(tmp_path / f"d/train/{i}.png")
        Image.fromarray(np.zeros((6, 8, 3), np.uint8)).save(tmp_path / f"d/train/{i}.jpg")
    for name in ("toys", "tpys"):
        (tmp_path / f"{name}.yaml").write_text(RECIPE % name)

    def said(*arguments: str, code: str = "from segkd.cli.main import main; sys.exit(main())") -> tuple[int, str]:
        command = [sys.executable, "-c", f"import sys; {code}", *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    assert said("recipes", "validate", "toys.yaml") == (0, "toys.yaml: valid (teach)\n")
    assert "data.name: unknown value \"tpys\", did you mean 'toys'?" in said("recipes", "validate", "tpys.yaml")[1]
    assert said("data", "verify", "toys", "--root", "d") == (0, "train: 2 images of 8x6 pixels\n")
    assert said("data", "prepare", "toys", "--root", "d") == (2, "segkd: toys is in a box in the attic\n")
    assert "toys" in said("eval", "--help")[1]
    code = "from segkd.data import catalogue as c; sample = c.dataset('toys', 'd', 'train', c.classes_of('toys_2'))[1]"
    code += "; print(len(sample.mask[0]), set(sample.mask.ravel().tolist()))"
    assert said(code=code) == (0, "8 {1}\n")
    Image.fromarray(np.full((6, 8), 3, np.uint8)).save(tmp_path / "d/train/2.png")
    status, lines = said("data", "verify", "toys", "--root", "d")
    assert status == 3 and "d/train/2.png: label 3 at pixel (row 0, column 0) and 47 more; toys have 1 and 2" in lines
