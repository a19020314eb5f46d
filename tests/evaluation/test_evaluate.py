"""Evaluation with networks that read their answer off the picture, so that every score is known."""

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from segkd.data.classes import IGNORE, Classes
from segkd.data.samples import Sample
from segkd.data.sets.camvid import CamVid
from segkd.evaluation import evaluate as module
from segkd.evaluation.evaluate import batches, evaluate, predict
from segkd.foundation import audit
from segkd.foundation.errors import DataError, NumbersError
from tests.waiting import PATIENCE

CLASSES = Classes("three", ("sky", "road", "tree"), ((10, 20, 30), (128, 64, 128), (0, 128, 0)))
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.5)
NORMAL = {"mean": MEAN, "std": STD}


class Listed(list):
    """A data set in memory."""

    classes = CLASSES


class Reader(nn.Module):
    """Class 0 where the red byte is below 64, 1 below 192, else 2: right only if the input was normalised so."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.classes, self.batches = classes, []
        self.trunk, self.frozen = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
        self.frozen.eval()

    def forward(self, x: Tensor) -> Tensor:
        assert not torch.is_grad_enabled() and not self.training and not self.trunk.training
        self.batches.append(tuple(x.shape))
        self.seen = x
        red = x[:, 0] * STD[0] + MEAN[0]
        logits = [(red - centre).square().neg() for centre in (0.0, 0.5, 1.0)]
        return torch.stack([*logits, *[logits[0] - 9] * (self.classes - 3)], 1)


def sample(name: str, size: tuple[int, int] = (8, 10), seed: int = 0, wrong: int = 0) -> Sample:
    """An image whose red shows its mask; the first `wrong` pixels of the mask say the next class instead."""
    rng = np.random.default_rng(seed)
    mask = rng.integers(0, 3, size).astype(np.uint8)
    image = rng.integers(0, 256, (*size, 3)).astype(np.uint8)
    image[..., 0] = np.array([0, 128, 255])[mask]
    mask.reshape(-1)[:wrong] = (mask.reshape(-1)[:wrong] + 1) % 3
    return Sample(name, image, mask)


def test_a_perfect_model_scores_one_and_the_result_is_json() -> None:
    result = evaluate(Reader(), Listed(sample(str(i), seed=i) for i in range(5)), **NORMAL, batch=2)
    assert json.loads(json.dumps(result)) == {
        "miou": 1.0,
        "per_class": {"sky": 1.0, "road": 1.0, "tree": 1.0},
        "pixel_accuracy": 1.0,
        "fw_iou": 1.0,
        "absent": [],
        "images": 5,
        "size": [8, 10],
        "confusion": np.diag(np.bincount(np.concatenate([sample("", seed=i).mask.ravel() for i in range(5)]))).tolist(),
    }


def test_errors_are_pooled_over_the_set_and_ignored_pixels_are_left_out() -> None:
    bad = sample("b", seed=1, wrong=20)
    bad.mask[4:] = IGNORE
    result = evaluate(Reader(), Listed([sample("a"), bad]), **NORMAL)
    assert result["pixel_accuracy"] == pytest.approx((80 + 20) / (80 + 40), abs=1e-12)
    assert 0 < result["miou"] < 1


def test_the_rows_of_the_confusion_are_the_labels() -> None:
    grey = np.full((4, 4, 3), 128, np.uint8)  # read as road
    data = Listed(Sample(str(label), grey, np.full((4, 4), label, np.uint8)) for label in (1, 2, 2, IGNORE))
    assert evaluate(Reader(), data, **NORMAL)["confusion"] == [[0, 0, 0], [0, 16, 0], [0, 32, 0]]


def test_absent_classes_are_named_and_null() -> None:
    only = Sample("sky", np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.uint8))
    result = evaluate(Reader(), Listed([only]), **NORMAL)
    assert result["absent"] == ["road", "tree"]
    assert result["per_class"] == {"sky": 1.0, "road": None, "tree": None}
    assert result["miou"] == 1.0


def test_the_input_is_normalised() -> None:
    model, one = Reader(), sample("a")
    evaluate(model, Listed([one]), **NORMAL)
    wanted = ((one.image / 255 - np.array(MEAN)) / np.array(STD)).transpose(2, 0, 1)
    np.testing.assert_allclose(model.seen[0].numpy(), wanted, atol=1e-6)


def test_images_of_equal_size_share_a_batch_and_nothing_depends_on_it() -> None:
    sizes = [(8, 10), (6, 6), (8, 10), (6, 6), (8, 10)]
    data = Listed(sample(str(i), size, seed=i, wrong=7 * i) for i, size in enumerate(sizes))
    model = Reader()
    result = evaluate(model, data, **NORMAL, batch=2)
    assert sorted(model.batches) == [(1, 3, 8, 10), (2, 3, 6, 6), (2, 3, 8, 10)]
    assert result["size"] == "mixed"
    assert result == evaluate(Reader(), data, **NORMAL, batch=1)
    assert result == evaluate(Reader(), Listed(data[::-1]), **NORMAL, batch=3)


def test_few_images_wait_when_all_sizes_differ() -> None:
    taken, most = 0, 0

    class Counted(Listed):
        def __getitem__(self, index: int) -> Sample:
            nonlocal taken
            taken += 1
            return super().__getitem__(index)

    def progress(done: int, total: int) -> None:
        nonlocal most
        most = max(most, taken - done)

    data = Counted(sample(str(i), (4 + i, 5)) for i in range(40))
    assert evaluate(Reader(), data, **NORMAL, batch=2, progress=progress)["images"] == 40
    assert most < 4 * 2 + 2  # one batch is read ahead


def test_large_images_are_shown_one_by_one_and_few_of_them_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_BYTES", 3 * 200)
    images = [np.zeros(size, np.uint8) for size in [(20, 10, 3), (9, 10, 3), (20, 11, 3), (9, 10, 3), (9, 11, 3)]]
    shown = [(len(group), *group[0].shape[:2]) for group, _ in batches(((image, None) for image in images), 8)]
    assert shown == [(1, 20, 10), (1, 20, 11), (2, 9, 10), (1, 9, 11)]
    taken = [0]

    def read() -> Iterator[tuple[np.ndarray, None]]:
        for width in range(40):
            taken[0] += 1
            yield np.zeros((9, 5 + width % 6, 3), np.uint8), None

    most, done = 0, 0
    for group, _ in batches(read(), 8):
        most, done = max(most, taken[0] - done), done + len(group)
    assert done == 40 and most < 4 * 600 // (9 * 5 * 3)


def test_protocol_reduces_large_images_only() -> None:
    large, small = sample("large", (300, 400)), sample("small", (96, 128))
    model = Reader()
    evaluate(model, Listed([large, small]), **NORMAL, size="protocol")
    assert sorted(model.batches) == [(1, 3, 96, 128), (1, 3, 256, 341)]
    model = Reader()
    assert evaluate(model, Listed([large]), **NORMAL, size="original")["size"] == [300, 400]


def test_modes_are_restored_module_by_module_also_after_an_error() -> None:
    model = Reader()
    evaluate(model, Listed([sample("a")]), **NORMAL)
    assert (model.training, model.trunk.training, model.frozen.training) == (True, True, False)
    with pytest.raises(DataError):
        evaluate(model, Listed([sample("a"), Sample("b", sample("b").image, None)]), **NORMAL, batch=1)
    assert (model.training, model.trunk.training, model.frozen.training) == (True, True, False)


def test_no_random_number_is_drawn_and_no_buffer_moves() -> None:
    class Normed(Reader):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(self.frozen(self.trunk(nn.functional.dropout(x, training=self.training))))

    model = Normed()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    evaluate(model, Listed([sample("a")]), **NORMAL)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_progress_and_stop_follow_every_batch() -> None:
    data, heard = Listed(sample(str(i)) for i in range(5)), []
    evaluate(Reader(), data, **NORMAL, batch=2, progress=lambda done, total: heard.append((done, total)))
    assert heard == [(2, 5), (4, 5), (5, 5)]
    model = Reader()
    model.train()
    assert evaluate(model, data, **NORMAL, batch=2, stop=lambda: len(model.batches) == 2) is None
    assert len(model.batches) == 2 and model.training


@pytest.mark.parametrize("label", [3, 11, 254])
def test_a_wrong_label_is_named_with_its_file(label: int) -> None:
    bad = sample("test/0016E5.png")
    bad.mask[2, 7] = label
    with pytest.raises(DataError, match=rf"test/0016E5\.png.*{label}.*2.*7"):
        evaluate(Reader(), Listed([sample("a"), bad]), **NORMAL)


def test_a_missing_or_misshapen_mask_is_named_with_its_file() -> None:
    with pytest.raises(DataError, match="bare: no mask"):
        evaluate(Reader(), Listed([Sample("bare", sample("a").image, None)]), **NORMAL)
    with pytest.raises(DataError, match="odd: the mask is"):
        evaluate(Reader(), Listed([Sample("odd", sample("a").image, np.zeros((3, 3), np.uint8))]), **NORMAL)


def test_an_empty_set_is_an_error() -> None:
    with pytest.raises(DataError, match="no image"):
        evaluate(Reader(), Listed(), **NORMAL)


def test_a_model_with_other_classes_is_an_error() -> None:
    with pytest.raises(DataError, match="the model knows 5 classes, not the 3 of three"):
        evaluate(Reader(classes=5), Listed([sample("a")]), **NORMAL)


def test_logits_that_are_not_finite_are_an_error() -> None:
    class Broken(Reader):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).index_fill(1, torch.tensor([1]), torch.nan)

    with pytest.raises(NumbersError, match="not finite"):
        evaluate(Broken(), Listed([sample("a")]), **NORMAL)


def test_bf16_runs_the_network_in_bf16() -> None:
    class Linear(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Conv2d(3, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            logits = self.head(x)
            self.dtype = logits.dtype
            return logits

    model = Linear()
    evaluate(model, Listed([sample("a")]), **NORMAL, precision="bf16")
    assert model.dtype == torch.bfloat16
    evaluate(model, Listed([sample("a")]), **NORMAL)
    assert model.dtype == torch.float32


def test_predict_keeps_order_and_sizes() -> None:
    samples = [sample(str(i), (6 + i % 2, 9), seed=i) for i in range(5)]
    masks = predict(Reader(), [one.image for one in samples], **NORMAL, batch=2)
    for mask, one in zip(masks, samples, strict=True):
        assert mask.dtype == np.uint8
        np.testing.assert_array_equal(mask, one.mask)
    assert predict(Reader(), [], **NORMAL) == []


def test_files_opened_count_as_evaluation(tmp_path: Path) -> None:
    audit.install()
    one = sample("a")
    for folder, array in (("test", one.image), ("testannot", one.mask)):
        (tmp_path / folder).mkdir()
        cv2.imwrite(str(tmp_path / folder / "a.png"), array)
    data = CamVid(tmp_path, "test")
    before, training = audit.count("evaluation"), audit.count("training")
    with pytest.raises(DataError, match="the model knows 3 classes, not the 11 of camvid"):
        evaluate(Reader(), data, **NORMAL)
    assert audit.count("evaluation") > before
    assert audit.count("training") == training


@pytest.mark.realdata
@pytest.mark.skipif("SEGKD_DATA" not in os.environ, reason="SEGKD_DATA is not set")
def test_camvid_scored_against_itself_is_perfect() -> None:
    data = CamVid(Path(os.environ["SEGKD_DATA"]) / "camvid256", "test")

    class Oracle(nn.Module):
        masks: list[np.ndarray]

        def forward(self, x: Tensor) -> Tensor:
            target = torch.from_numpy(self.masks.pop(0)).long()
            return nn.functional.one_hot(target.where(target != IGNORE, 0), 11).permute(2, 0, 1)[None].float()

    model, first = Oracle(), Listed(data[:4])
    first.classes, model.masks = data.classes, [one.mask for one in first]
    result = evaluate(model, first, **NORMAL, batch=1)
    assert result["miou"] == 1.0 and result["size"] == [256, 341]


def test_the_next_batch_is_read_while_the_network_works() -> None:
    """And no further ahead: a set that does not fit into memory is never in it as a whole."""
    asked, seen = [], []

    class Slow(Listed):
        def __getitem__(self, index: int) -> Sample:
            asked.append(index)
            reached.set() if index == wanted[0] else None
            return super().__getitem__(index)

    class Waiting(Reader):
        def forward(self, x: Tensor) -> Tensor:
            assert reached.wait(PATIENCE), "nothing was read meanwhile"
            seen.append(len(asked))
            wanted[0] = min(wanted[0] + 2, 5)
            reached.clear() if wanted[0] not in asked else None
            return super().forward(x)

    wanted, reached = [3], threading.Event()
    evaluate(Waiting(), Slow(sample(str(i), seed=i) for i in range(6)), **NORMAL, batch=2)
    assert asked == list(range(6)) and seen == [4, 6, 6]


def test_a_bad_image_is_told_in_its_turn_and_a_stop_leaves_nothing_running() -> None:
    samples = [sample(str(i), seed=i) for i in range(6)]
    samples[4].mask[0, 0] = 77
    done: list[int] = []
    with pytest.raises(DataError, match=r"4: label 77"):
        evaluate(Reader(), Listed(samples), **NORMAL, batch=2, progress=lambda step, total: done.append(step))
    assert done == [2, 4]
    before = threading.active_count()
    assert evaluate(Reader(), Listed(samples[:4]), **NORMAL, batch=1, stop=lambda: True) is None
    assert threading.active_count() == before
