"""Rows L1, L2 and L3: labels out of range, class counts that disagree, and the IoU against a slow reference."""

from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from segkd import builders
from segkd.cli.main import main
from segkd.data.classes import IGNORE
from segkd.data.samples import FileSet, check_labels
from segkd.data.sets.ade20k import Ade20k
from segkd.data.sets.camvid import CamVid
from segkd.data.sets.cityscapes import Cityscapes
from segkd.data.sets.folder import Folder
from segkd.data.sets.nyuv2 import NYUv2
from segkd.data.sets.voc import Voc
from segkd.evaluation.metrics import ConfusionMatrix, Scores, scores
from segkd.foundation.errors import DataError
from segkd.models.building import create_network
from segkd.recipe import load
from segkd.runs.labelled import labelled
from tests.pictures import encoded, overwrite, photo

HEIGHT, WIDTH = 9, 13
FIVE = "classes: [a, b, c, d, e]\n"
REMAPPED = FIVE + "remap: {0: ignore, 1: a, 2: b, 4: c, 8: d, 1000: e}\n"


class Set:
    """A data set of one image, and the ids that its mask may hold."""

    def __init__(self, image: Path, mask: Path, known: list[int], read: Callable[[], FileSet]) -> None:
        image.parent.mkdir(parents=True)
        mask.parent.mkdir(parents=True)
        overwrite(image, encoded(photo(HEIGHT, WIDTH)))
        self.mask, self.known = mask, known
        self.unknown = {limit: np.setdiff1d(np.arange(limit), known) for limit in (256, 65536)}
        self.write(np.full((HEIGHT, WIDTH), known[-1]))
        self.data = read()

    def write(self, ids: np.ndarray, kind: int = 0) -> None:
        """As PNG, TIFF, or (ids of 8 bits) BMP or WebP with equal channels; the name stays, and does not matter."""
        pixels = ids.astype(np.uint16 if ids.max() > 255 else np.uint8)
        format = ("PNG", "TIFF", "BMP", "WEBP")[kind % (4 if pixels.dtype == np.uint8 else 2)]
        how = {"lossless": True} if format == "WEBP" else {}
        overwrite(self.mask, encoded(np.dstack([pixels] * 3) if how else pixels, format, **how))


def described(root: Path, text: str) -> Folder:
    (root / "dataset.yaml").write_text(text)
    return Folder(root, "val")


def prepared(root: Path, classes: int) -> NYUv2:
    (root / "train.txt").write_text("2\n")
    (root / "test.txt").write_text("1\n")
    return NYUv2(root, "test", classes)


def listed(root: Path) -> Voc:
    (root / "ImageSets/Segmentation").mkdir(parents=True)
    (root / "ImageSets/Segmentation/val.txt").write_text("1\n")
    return Voc(root, "val")


@pytest.fixture
def sets(tmp_path: Path) -> dict[str, Set]:
    def at(name: str) -> Path:
        return tmp_path / name

    return {
        "camvid": Set(at("c/val/1.png"), at("c/valannot/1.png"), [*range(12)], lambda: CamVid(at("c"), "val")),
        **{f"nyuv2_{count}": Set(
            at(f"n{count}/images/0001.png"), at(f"n{count}/labels{count}/0001.png"), [*range(count + 1)],
            lambda count=count: prepared(at(f"n{count}"), count),
        ) for count in (13, 40)},
        "cityscapes": Set(
            at("s/leftImg8bit/val/ulm/1_leftImg8bit.png"), at("s/gtFine/val/ulm/1_gtFine_labelIds.png"), [*range(34)],
            lambda: Cityscapes(at("s"), "val"),
        ),
        "voc": Set(at("v/JPEGImages/1.jpg"), at("v/SegmentationClass/1.png"), [*range(21), 255], lambda: listed(at("v"))),
        "ade20k": Set(
            at("a/images/validation/1.jpg"), at("a/annotations/validation/1.png"), [*range(151)], lambda: Ade20k(at("a"), "val")
        ),
        "folder": Set(at("f/images/val/1.png"), at("f/masks/val/1.png"), [*range(5), 255], lambda: described(at("f"), FIVE)),
        "remapped": Set(
            at("r/images/val/1.png"), at("r/masks/val/1.png"), [0, 1, 2, 4, 8, 1000, 255], lambda: described(at("r"), REMAPPED)
        ),
    }  # fmt: skip


@pytest.mark.row("L1", 500)
def test_a_label_out_of_range_is_told_by_file_id_and_pixel(row, sets: dict[str, Set]):
    chance = np.random.default_rng(0)
    for fault in row:
        found = list(sets.values())[fault % len(sets)]
        ids = chance.choice(found.known, (HEIGHT, WIDTH))
        found.write(ids, fault // len(sets))
        assert found.data[0].mask.shape == ids.shape
        wrong = int(chance.choice(found.unknown[256 if fault % 3 else 65536]))
        pixels = np.sort(chance.choice(ids.size, 1 + fault % 2, replace=False))
        ids.reshape(-1)[pixels] = wrong
        found.write(ids, fault // len(sets))
        more = f" and {fault % 2} more" if fault % 2 else ""
        row_, column = divmod(int(pixels[0]), WIDTH)
        with pytest.raises(DataError) as caught:
            found.data.read(0)
        told = f"{found.mask}: label {wrong} at pixel (row {row_}, column {column}){more}; "
        assert str(caught.value).startswith(told) and caught.value.exit_code == 3


@pytest.mark.row("L1", 200)
def test_a_label_out_of_range_in_a_set_of_arrays(row):
    """What `evaluate` checks again, whoever made the samples."""
    chance = np.random.default_rng(1)
    for fault in row:
        mask = chance.integers(0, 11, (HEIGHT, WIDTH)).astype([np.uint8, np.uint16, np.int64][fault % 3])
        mask[0, 0] = IGNORE
        check_labels("m.png", mask, 11)
        wrong = int(chance.choice([-1, -255] if fault % 3 == 2 else [11, 12, 254]))
        row_, column = int(chance.integers(1, HEIGHT)), int(chance.integers(WIDTH))
        mask[row_, column] = wrong
        with pytest.raises(DataError, match=rf"^m.png: label {wrong} at pixel \(row {row_}, column {column}\);"):
            check_labels("m.png", mask, 11)


def test_the_command_ends_with_code_3_and_one_line(tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    found = Set(
        tmp_path / "c/test/1.png", tmp_path / "c/testannot/1.png", [*range(12)], lambda: CamVid(tmp_path / "c", "test")
    )
    ids = np.zeros((HEIGHT, WIDTH), int)
    ids[7, 3] = 77
    found.write(ids)
    code = main(["eval", str(tiny.path), "--who", "teacher", "--data", "camvid", "--root", str(tmp_path / "c")])
    out, err = capsys.readouterr()
    assert code == 3 and not out
    [line] = err.splitlines()
    assert line.startswith(f"segkd: {found.mask}: label 77 at pixel (row 7, column 3); ")


COUNTS = (2, 3, 4)
RECIPE = """\
method: kd
teacher: {{arch: SegNet, classes: {teacher}, weights: network{teacher}.safetensors, options: {{width: 2}}}}
student: {{arch: SegNet, weights: network{student}.safetensors, options: {{width: 2}}, optimizer: {{name: sgd, lr: 0.1}}}}
synth: {{kind: noise, size: [32, 32]}}
data: {{name: folder, root: data{data}, final: val}}
run: {{dir: run, steps: 1, batch: 2, device: cpu, precision: fp32, threads: 1}}
"""


@pytest.fixture
def countries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Teachers, students and data sets of two, three and four classes."""
    monkeypatch.chdir(tmp_path)
    for count in COUNTS:
        save_file(create_network("SegNet", None, count, {"width": 2}).state_dict(), f"network{count}.safetensors")
        names = ", ".join(f"class {i}" for i in range(count))
        root = tmp_path / f"data{count}"
        Set(root / "images/val/1.png", root / "masks/val/1.png", [0, 1], lambda: None)
        (root / "dataset.yaml").write_text(f"classes: [{names}]\n")
    return tmp_path


def disagreeing() -> Iterator[tuple[int, int, int]]:
    return (counts for counts in product(COUNTS, COUNTS, COUNTS) if len(set(counts)) > 1)


@pytest.mark.row("L2", 24)
def test_class_counts_that_disagree_are_three_numbers(row, countries: Path, capsys: pytest.CaptureFixture[str]):
    for teacher, student, data in disagreeing():
        Path("recipe.yaml").write_text(RECIPE.format(teacher=teacher, student=student, data=data))
        code = main(["distill", "recipe.yaml", "--quiet"])
        out, err = capsys.readouterr()
        assert code == 3 and not out
        [line] = err.splitlines()
        assert line.startswith("segkd: classes disagree: ")
        assert f"teacher {teacher}, student {student}" in line and f", data {data} (data{data})" in line
        assert not Path("run").exists()
        row.count()
    for count in COUNTS:
        Path("recipe.yaml").write_text(RECIPE.format(teacher=count, student=count, data=count))
        recipe = load("recipe.yaml")
        teacher, data = builders.teacher_of(recipe.teacher), labelled(recipe, "val")
        builders.check_classes(teacher, recipe.student, data)


def test_without_data_two_numbers_are_enough(countries: Path, capsys: pytest.CaptureFixture[str]):
    Path("recipe.yaml").write_text(RECIPE.format(teacher=3, student=4, data=3))
    assert main(["distill", "recipe.yaml", "data.name=null", "--quiet"]) == 3
    assert "teacher 3, student 4 (" in (err := capsys.readouterr().err) and "data none" in err


def slow(predicted: list[int], labels: list[int], classes: int) -> Scores:
    """Exact fractions of pixels that are counted one by one; no confusion matrix."""
    pairs = [(p, t) for p, t in zip(predicted, labels, strict=True) if t != IGNORE]
    ious: list[Fraction | None] = []
    weighted = Fraction(0)
    for index in range(classes):
        both = sum(1 for p, t in pairs if p == index and t == index)
        either = sum(1 for p, t in pairs if index in (p, t))
        ious.append(Fraction(both, either) if either else None)
        if either:
            weighted += Fraction(both, either) * sum(1 for _, t in pairs if t == index) / len(pairs)
    present = [iou for iou in ious if iou is not None]
    return Scores(
        miou=float(sum(present) / len(present)) if present else None,
        per_class=[None if iou is None else float(iou) for iou in ious],
        pixel_accuracy=float(Fraction(sum(1 for p, t in pairs if p == t), len(pairs))) if pairs else None,
        fw_iou=float(weighted) if pairs else None,
        absent=[index for index, iou in enumerate(ious) if iou is None],
    )


def maps(case: int, chance: np.random.Generator) -> tuple[np.ndarray, np.ndarray, int]:
    """Predictions and labels (N,H,W) and the number of classes: random, empty, with absent classes, or all ignored."""
    classes = int(chance.integers(1, 20))
    shape = tuple(chance.integers(0 if case % 4 == 1 else 1, 5, 3))
    ids = chance.choice(classes, max(1, classes // (1 + case % 3)), replace=False)
    predicted, labels = chance.choice(ids, shape), chance.choice(ids, shape)
    agree = chance.random(shape) < chance.random()
    predicted[agree] = labels[agree]
    labels[chance.random(shape) < (1 if case % 4 == 3 else chance.random() / 2)] = IGNORE
    return predicted, labels, classes


def alike(a: float | None, b: float | None) -> bool:
    return a is b if a is None or b is None else abs(a - b) <= 1e-12


@pytest.mark.row("L3", 2_000)
def test_the_scores_are_those_of_a_slow_count(row):
    chance = np.random.default_rng(3)
    for fault in row:
        predicted, labels, classes = maps(fault, chance)
        counts = ConfusionMatrix(classes)
        half = len(labels) // 2
        for part in (slice(half), slice(half, None)):
            counts.update(torch.from_numpy(predicted[part]), torch.from_numpy(labels[part]))
        found, wanted = scores(counts.matrix), slow(predicted.ravel().tolist(), labels.ravel().tolist(), classes)
        assert found.absent == wanted.absent
        assert all(alike(getattr(found, name), getattr(wanted, name)) for name in ("miou", "pixel_accuracy", "fw_iou"))
        assert len(found.per_class) == classes
        assert all(alike(a, b) for a, b in zip(found.per_class, wanted.per_class, strict=True))
