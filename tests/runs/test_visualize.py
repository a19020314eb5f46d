"""What is drawn, what is left out with a word, and where the drawings go."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segkd.cli.main import main
from segkd.data.classes import Classes, listed
from segkd.data.images import read_image
from segkd.data.photos import Reading, is_drawing
from segkd.data.sets.camvid import CAMVID
from segkd.foundation.errors import DataError, UsageError
from segkd.runs.evaluate import evaluate as measure
from segkd.runs.trained import Model
from segkd.runs.visualize import plan_drawings, read_job, visualize
from tests.data.folders import picture, write
from tests.runs.test_evaluate import BRIGHTNESS, Brightness


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def draw(*sources: str, out: str = "out", **more: object) -> tuple[list[str], list[str]]:
    """Where the drawings lie, and what was said of the rest."""
    notes: list[str] = []
    jobs = plan_drawings(sources, out, "mask", CAMVID, note=notes.append, **more)
    visualize(BRIGHTNESS, jobs, "mask", device="cpu", precision="fp32")
    return [job.out.as_posix() for job in jobs], notes


def test_what_lies_in_folders_is_drawn_into_folders():
    for place in ("photos/a.png", "photos/day/a.tif", "photos/day/B.JPG", "photos/night/late/c.webp"):
        write(Path(place), picture(1))
    write(Path("more/day/a.png"), picture(2))
    write(Path("photos/.hidden/a.png"), picture(1))
    Path("photos/day/notes.txt").write_text("?")
    files, notes = draw("photos", "more")
    assert files == ["out/a_mask.png", "out/day/B_mask.png", "out/day/a_mask.png", "out/night/late/c_mask.png", "out/day/a-2_mask.png"]  # fmt: skip
    assert all(Path(file).is_file() for file in files)
    assert notes == ["photos: 1 files of other kinds left out (day/notes.txt)"]


@pytest.mark.parametrize("out", ["photos", "photos/drawn"])
def test_drawings_are_not_drawn_again(out: str):
    write(Path("photos/a.png"), picture(1))
    write(Path("photos/b.png"), picture(2))
    first, notes = draw("photos", out=out)
    assert not notes and all(is_drawing(Path(file)) for file in first)
    again, notes = draw("photos", out=out)
    assert again == first and len(notes) == 1 and notes[0].startswith("photos: 2 drawings")
    named, notes = draw("photos/a.png", first[0], out="elsewhere")
    assert named == ["elsewhere/a_mask.png"] and notes == [f"{first[0]}: left out: a drawing of segkd visualize"]


def test_what_else_lies_in_the_folder_of_drawings_is_named():
    write(Path("photos/a.png"), picture(1))
    write(Path("photos/drawn/old_mask.png"), picture(1))
    files, notes = draw("photos", out="photos/drawn")
    assert files == ["photos/drawn/a_mask.png"] and "drawn/old_mask.png" in notes[0]


def test_one_bad_photo_stops_no_other():
    write(Path("photos/a.jpg"), picture(1))
    write(Path("photos/c.jpg"), picture(2))
    Image.fromarray(picture(3)).convert("CMYK").save("photos/b.jpg")
    Path("photos/d.jpg").mkdir()
    Path("photos/e.jpg").symlink_to("nowhere")
    with pytest.raises(DataError, match=r"^2 of 4 images not drawn: photos/b\.jpg: CMYK image; convert it to RGB; photos/e\.jpg: cannot be read: No such file or directory$"):  # fmt: skip
        draw("photos")
    assert sorted(path.name for path in Path("out").iterdir()) == ["a_mask.png", "c_mask.png"]
    with pytest.raises(DataError, match=r"^photos/b\.jpg: CMYK image"):
        draw("photos/b.jpg")


TWELVE = np.array([[0, 2000, 4095]], np.uint16)


def test_twelve_bits_are_read_as_somebody_says(here: Path):
    write(Path("photos/a.png"), TWELVE)
    with pytest.raises(DataError, match=r"--range 0,4095 of segkd visualize"):
        draw("photos")
    (job,) = plan_drawings(["photos"], "out", "mask", CAMVID, reading=Reading.parsed("0,4095", None))
    assert read_job(job, CAMVID)[0][0, :, 0].tolist() == [0, 125, 255]
    Path("dataset.yaml").write_text("classes: [a, b]\nrange: [0, 4095]\n")  # above the images
    (job,) = plan_drawings(["photos"], "out", "mask", CAMVID)
    assert read_job(job, CAMVID)[0][0, :, 0].tolist() == [0, 125, 255]
    (job,) = plan_drawings(["photos"], "out", "mask", CAMVID, reading=Reading.parsed("0,65535", None))
    assert read_job(job, CAMVID)[0].max() == 16
    Path("dataset.yaml").write_text("names: {0: person}\n")  # of another tool
    with pytest.raises(DataError, match="largest value is 4095"):
        draw("photos")


@pytest.mark.parametrize("text", ["4095", "0,0", "9,1", "a,b", "0,65536", "-1,5", "0,4095,1"])
def test_ranges_that_are_none(text: str):
    with pytest.raises(UsageError, match="--range .*: expected the values that are black and white, as 0,4095"):
        Reading.parsed(text, None)


def test_large_images_where_they_are_allowed():
    write(Path("a.png"), np.zeros((1001, 1000), np.uint8))
    with pytest.raises(
        DataError, match=r"at most 1000000 are read; megapixels: 2 in .*, or --megapixels of segkd visualize"
    ):
        draw("a.png", reading=Reading.parsed(None, 1))
    draw("a.png", reading=Reading.parsed(None, 2))
    assert read_image("out/a_mask.png").shape == (1001, 1000, 3)


TWO = listed("two", ["background", "road"])


def truth_of(places: list[str], classes: Classes = TWO) -> list[str | None]:
    jobs = plan_drawings(["images"], "out", "mask", classes, "masks")
    return [str(job.fault) if job.fault else str(job.truth) for job in jobs]


def test_masks_of_all_kinds_in_folders_and_by_their_endings():
    for place in ("images/a.png", "images/x/b.jpg", "images/x/c.png"):
        write(Path(place), picture(1))
    for place in ("masks/a.tif", "masks/x/b.png", "masks/c.bmp"):
        write(Path(place), np.zeros((6, 8), np.uint8))
    assert truth_of([]) == ["masks/a.tif", "masks/x/b.png", "masks/c.bmp"]
    Path("masks/c.bmp").unlink()
    assert truth_of([])[2] == "masks/x/c.png: no such mask for images/x/c.png"
    write(Path("masks/x/c_label.png"), np.zeros((6, 8), np.uint8))
    Path("dataset.yaml").write_text(
        'classes: [background, road]\nimages: "images/{name}.png"\nmasks: "masks/{name}_label.png"\n'
    )
    assert truth_of([])[2] == "masks/x/c_label.png"


def test_white_masks_are_asked_about():
    write(Path("images/a.png"), picture(1, 1, 2))
    write(Path("masks/a.png"), np.array([[0, 255]], np.uint8))
    with pytest.raises(
        DataError, match=r"say in a dataset\.yaml in masks what 255 is: remap: \{0: background, 255: road\}"
    ):
        truth_of([])
    Path("masks/dataset.yaml").write_text("classes: [background, road]\nremap: {0: background, 255: road}\n")
    (job,) = plan_drawings(["images"], "out", "mask", TWO, "masks")
    assert read_job(job, TWO)[1].tolist() == [[0, 1]]


def test_a_folder_of_nothing_to_draw(capsys: pytest.CaptureFixture[str]):
    Path("photos").mkdir()
    Path("photos/a.heic").write_text("?")
    notes: list[str] = []
    with pytest.raises(DataError, match=r"photos: no images in this folder \(\.png, .*\.bmp\)"):
        plan_drawings(["photos"], "out", "mask", CAMVID, note=notes.append)
    assert notes == ["photos: 1 files of other kinds left out (a.heic)"]
    assert main(["visualize", "x", "photos", "--out", "out", "--range", "5"]) == 2
    assert "--range 5: expected" in capsys.readouterr().err


def test_eval_names_what_it_left_out_and_asks_about_white():
    for place, pixels in (("set/images/test/a.tif", picture(1)), ("set/masks/test/a.bmp", np.zeros((6, 8), np.uint8))):
        write(Path(place), pixels)
    Path("set/images/test/b.heic").write_text("?")
    Path("set/dataset.yaml").write_text(f"classes: [{', '.join(CAMVID.names)}]\n")
    scores = measure(BRIGHTNESS, data="folder", root="set", device="cpu", precision="fp32")
    assert scores["images"] == 1 and "left out: 1 file of another kind or name (b.heic)" in scores["notes"][-1]
    with pytest.raises(DataError, match="give --root DIR to segkd eval"):
        measure(BRIGHTNESS, data="folder", device="cpu")
    two = Model(Brightness(2), TWO, (0.5,) * 3, (0.5,) * 3)
    write(Path("set/masks/test/a.bmp"), np.array([[0, 255] * 4] * 6, np.uint8))
    Path("set/dataset.yaml").write_text("classes: [background, road]\n")
    with pytest.raises(DataError, match=r"remap: \{0: background, 255: road\}"):
        measure(two, data="folder", root="set", device="cpu")


def test_only_drawings_are_nothing_to_draw():
    write(Path("photos/a.png"), picture(1))
    [first], _ = draw("photos/a.png")
    with pytest.raises(DataError, match="^nothing to draw: all that was named are drawings of segkd visualize$"):
        draw(first, out="elsewhere")


def test_masks_below_the_images_are_no_images():
    write(Path("set/images/a.png"), picture(1))
    write(Path("set/masks/images/a.png"), np.zeros((6, 8), np.uint8))
    notes: list[str] = []
    (job,) = plan_drawings(["set"], "out", "mask", TWO, "set/masks", note=notes.append)
    assert str(job.image) == "set/images/a.png" and str(job.truth) == "set/masks/images/a.png"
    assert notes == ["set: 1 drawings and files of --out or --masks left out (masks/images/a.png)"]


def test_a_pipe_is_not_waited_for():
    write(Path("photos/a.png"), picture(1))
    os.mkfifo("photos/b.png")
    with pytest.raises(DataError, match=r"^1 of 2 images not drawn: photos/b\.png: not a regular file$"):
        draw("photos")
    assert not is_drawing(Path("photos/b.png"))
