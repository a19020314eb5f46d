"""A folder of a user's own unlabelled images as a source: alone or beside a generator, counted, and said to be real."""

import json
import shutil

import cv2
import numpy as np
import pytest

from segkd import runs
from segkd.cli.main import main
from segkd.foundation.errors import DataError, RecipeError, UsageError
from segkd.recipe import load
from segkd.training import checkpoint

pytestmark = pytest.mark.usefixtures("own_threads")
SHORT = ["run.threads=1", "run.steps=2", "run.save_every=1", "data.name=null"]
ALONE = ["synth.kind=folder", "synth.root=photos"]


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Five photos in a folder and one below it, and a file of another kind."""
    monkeypatch.chdir(tmp_path)
    random, folder = np.random.default_rng(0), tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for name in ("a.png", "b.jpg", "c.tif", "more/d.webp", "more/e.bmp"):
        cv2.imwrite(str(folder / name), random.integers(0, 256, (40, 72, 3), np.uint8))
    (folder / "notes.txt").write_text("of a summer")
    return folder


@pytest.fixture
def distil(tiny, tmp_path):
    def run(*overrides, case="kd", accept=()):
        given = tiny.recipe(case, "run.dir=run", *SHORT, *overrides)
        return runs.distill(given, runs.Options(name="tiny", accept=accept))

    return run


@pytest.mark.parametrize(
    ("case", "overrides"), [("kd", ALONE), ("ddad.segkd", ["synth.mix={folder: 0.5}", "synth.root=photos"])]
)
def test_photos_are_shown_and_owned_up_to(tiny, photos, tmp_path, capsys, case, overrides):
    recipe = tiny.recipe(case, "run.dir=run", *SHORT, *overrides)
    (tmp_path / "own.yaml").write_text(recipe.to_yaml())
    assert main(["distill", "own.yaml"]) == 0
    out, err = capsys.readouterr()
    told = "not data-free: the student is shown 5 real images of photos\n"
    assert err.count(told) == 1 and err.index(told) < err.index("step 1")
    assert "photos: 1 files of other kinds left out (notes.txt)\n" in err
    assert "not data-free: 5 real images trained" in out
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["real_images_for_training"] == 5 and summary["real_images_for_evaluation"] == 0
    assert "Real images that it trained on: 5." in (tmp_path / "run" / "student" / "README.md").read_text()


def test_other_photos_in_the_folder_are_noticed_when_a_run_goes_on(distil, photos, tmp_path):
    distil(*ALONE)
    (tmp_path / "run" / "summary.json").unlink()
    last = checkpoint.listed(tmp_path / "run" / "checkpoints")[0]
    last.unlink()
    shutil.move(photos / "a.png", tmp_path / "a.png")
    with pytest.raises(UsageError, match=r"run: synth\.root: the folder holds other images .* --accept synth\.root$"):
        distil(*ALONE)
    shutil.move(tmp_path / "a.png", photos / "a.png")
    assert distil(*ALONE)["steps"] == 2
    (tmp_path / "run" / "summary.json").unlink()
    last.unlink()
    shutil.copy(photos / "a.png", photos / "f.png")
    assert distil(*ALONE, accept=("synth.root",))["real_images_for_training"] == 6


def test_a_run_whose_photos_are_gone_is_refused(distil, photos):
    shutil.rmtree(photos)
    with pytest.raises(DataError, match=r"^photos: no such folder$"):
        distil(*ALONE)
    photos.mkdir()
    with pytest.raises(DataError, match=r"^photos: no images in this folder"):
        distil(*ALONE)


def test_a_damaged_photo_is_named_before_the_first_step(distil, photos, tmp_path):
    whole = (photos / "b.jpg").read_bytes()
    (photos / "b.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"^photos/b\.jpg: damaged JPEG"):
        distil(*ALONE)
    assert not (tmp_path / "run" / "recipe.yaml").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["synth.kind=folder"], "synth.root: missing: name the folder of the images"),
        (["synth.kind=noise", "synth.mix={folder: 0.5}"], "synth.root: missing: name the folder of the images"),
        (["synth.root=photos"], "synth.root: a folder that nothing reads: set synth.kind=folder"),
        ([*ALONE, "synth.mix={folder: 0.5}"], "synth.mix: folder is the main source already"),
    ],
)
def test_a_folder_is_named_where_it_is_read(tiny, given, message):
    with pytest.raises(RecipeError) as error:
        load(tiny.path, ["method=kd", *given], "distill")
    assert message in str(error.value)


def test_photos_cannot_learn(distil, photos):
    with pytest.raises(RecipeError, match="synth.kind: folder cannot learn, and ddad needs a generator"):
        distil(*ALONE, case="ddad.segkd")
