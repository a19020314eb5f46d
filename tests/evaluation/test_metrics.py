"""The properties of the scores; row L3 of the fault matrix compares them with a slow count of pixels."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import segkd.evaluation.metrics as metrics
from segkd.evaluation.metrics import ConfusionMatrix, scores

IGNORED = 255
CLASSES = 5
QUICK = settings(max_examples=25, deadline=None)


def measured(prediction: np.ndarray, target: np.ndarray, num_classes: int, batch: int = 2) -> metrics.Scores:
    counts = ConfusionMatrix(num_classes)
    for start in range(0, len(target), batch):
        part = slice(start, start + batch)
        counts.update(torch.from_numpy(prediction[part]), torch.from_numpy(target[part]))
    return scores(counts.matrix)


def maps(seed: int, num_classes: int = CLASSES, ignored: float = 0.2, absent: tuple[int, ...] = ()) -> tuple:
    """Random (6,9,7) predictions and targets; classes in `absent` stand in neither."""
    rng = np.random.default_rng(seed)
    ids = [index for index in range(num_classes) if index not in absent]
    prediction, target = rng.choice(ids, (6, 9, 7)), rng.choice(ids, (6, 9, 7))
    agree = rng.random(target.shape) < rng.random()
    prediction[agree] = target[agree]
    target[rng.random(target.shape) < ignored] = IGNORED
    return prediction, target


@given(st.integers(0, 2**32), st.permutations(range(6)), st.integers(1, 6))
@QUICK
def test_order_and_batching_of_images_change_nothing(seed: int, order: list[int], batch: int) -> None:
    prediction, target = maps(seed)
    assert measured(prediction[order], target[order], CLASSES, batch) == measured(prediction, target, CLASSES, 6)


@given(st.integers(0, 2**32))
@QUICK
def test_a_perfect_prediction_scores_one(seed: int) -> None:
    _, target = maps(seed)
    prediction = np.where(target == IGNORED, seed % CLASSES, target)
    found = measured(prediction, target, CLASSES)
    assert (found.miou, found.pixel_accuracy, found.fw_iou) == (1.0, 1.0, pytest.approx(1.0, abs=1e-12))


@given(st.integers(0, 2**32), st.permutations(range(CLASSES)))
@QUICK
def test_renaming_the_classes_moves_their_scores_along(seed: int, names: list[int]) -> None:
    prediction, target = maps(seed, absent=(seed % CLASSES,))
    rename = np.arange(256)
    rename[:CLASSES] = names
    before, after = measured(prediction, target, CLASSES), measured(rename[prediction], rename[target], CLASSES)
    assert after.miou == pytest.approx(before.miou, abs=1e-12)
    assert after.fw_iou == pytest.approx(before.fw_iou, abs=1e-12)
    assert [after.per_class[new] for new in names] == before.per_class


@given(st.integers(0, 2**32))
@QUICK
def test_swapping_prediction_and_target_keeps_the_iou(seed: int) -> None:
    prediction, target = maps(seed, ignored=0)
    assert measured(prediction, target, CLASSES).per_class == measured(target, prediction, CLASSES).per_class


@given(st.integers(0, 2**32), st.integers(0, CLASSES - 1))
@QUICK
def test_what_is_predicted_on_ignored_pixels_does_not_matter(seed: int, value: int) -> None:
    prediction, target = maps(seed)
    other = np.where(target == IGNORED, value, prediction)
    assert measured(prediction, target, CLASSES) == measured(other, target, CLASSES)


def test_rows_are_targets_and_counts_are_int64() -> None:
    counts = ConfusionMatrix(3)
    counts.update(torch.tensor([[[0, 0, 2]]]), torch.tensor([[[1, 1, IGNORED]]]))
    assert counts.matrix.dtype == torch.int64
    assert counts.matrix.tolist() == [[0, 0, 0], [2, 0, 0], [0, 0, 0]]


def test_a_class_only_predicted_counts_as_zero_not_as_absent() -> None:
    found = measured(np.array([[[0, 1]]]), np.array([[[0, 0]]]), 3)
    assert found.per_class == [0.5, 0.0, None]
    assert found.miou == 0.25
    assert found.absent == [2]


def test_nothing_labelled_gives_none_everywhere() -> None:
    wanted = metrics.Scores(None, [None] * 3, None, None, [0, 1, 2])
    assert scores(ConfusionMatrix(3).matrix) == wanted
    assert measured(np.zeros((2, 4, 4), int), np.full((2, 4, 4), IGNORED), 3) == wanted
    empty = np.zeros((0, 4, 4), int)
    counts = ConfusionMatrix(3)
    counts.update(torch.from_numpy(empty), torch.from_numpy(empty))
    assert scores(counts.matrix) == wanted


@pytest.mark.parametrize("label", [CLASSES, CLASSES + 1, 254, 256, -1])
def test_a_label_that_is_no_class_is_refused(label: int) -> None:
    fine, wrong = torch.zeros(1, 2, 2, dtype=torch.int64), torch.full((1, 2, 2), label)
    with pytest.raises(ValueError, match="outside"):
        ConfusionMatrix(CLASSES).update(fine, wrong)
    with pytest.raises(ValueError, match="outside"):
        ConfusionMatrix(CLASSES).update(wrong, fine)


def test_ignore_is_no_prediction() -> None:
    with pytest.raises(ValueError, match="outside"):
        ConfusionMatrix(CLASSES).update(torch.full((1, 2, 2), IGNORED), torch.zeros(1, 2, 2, dtype=torch.int64))


def test_bytes_count_like_long_integers() -> None:
    prediction, target = maps(3)
    narrow = measured(prediction.astype(np.uint8), target.astype(np.uint8), CLASSES)
    assert narrow == measured(prediction, target, CLASSES)


def test_shapes_must_be_equal() -> None:
    with pytest.raises(ValueError, match="differ in shape"):
        ConfusionMatrix(2).update(torch.zeros(1, 2, 2, dtype=torch.int64), torch.zeros(1, 2, 3, dtype=torch.int64))


@pytest.mark.parametrize("count", [0, 256])
def test_the_number_of_classes_leaves_room_for_ignore(count: int) -> None:
    with pytest.raises(ValueError, match="num_classes"):
        ConfusionMatrix(count)


def test_long_images_are_counted_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = measured(*maps(5), CLASSES)
    monkeypatch.setattr(metrics, "_PIECE", 10)
    assert measured(*maps(5), CLASSES) == whole


def test_more_than_two_to_the_24_equal_pixels_are_counted_exactly() -> None:
    side = 4097
    mask = torch.zeros(1, side, side, dtype=torch.uint8)
    counts = ConfusionMatrix(1)
    counts.update(mask, mask)
    assert counts.matrix.item() == side * side
