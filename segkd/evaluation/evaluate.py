"""Run a network over images and score its masks against labels."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from segkd.data.classes import Classes
from segkd.data.resize import at_size
from segkd.data.samples import Dataset, Sample, check_labels
from segkd.evaluation.inference import Sliding
from segkd.evaluation.metrics import ConfusionMatrix, scores
from segkd.foundation import audit
from segkd.foundation.errors import DataError, NumbersError
from segkd.foundation.resize import Size, reduced, side_of
from segkd.machine import ranks
from segkd.models.masks import class_ids, judging, normalised, number_of
from segkd.models.trial import computed

Item = TypeVar("Item")
NOT_FINITE = "the model's logits are not finite: its masks mean nothing"
_MOST_BYTES = 2**26
"""Of a batch of images: eight of 2.7 megapixels, two of 11; larger ones are shown alone."""


def evaluate(
    model: nn.Module,
    dataset: Dataset,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    device: torch.device | str = "cpu",
    precision: Literal["fp32", "bf16"] = "fp32",
    batch: int = 8,
    size: Size = "protocol",
    progress: Callable[[int, int], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> dict[str, Any] | None:
    """Score `model`, which lives on `device` and maps normalised (N,K,H,W) to logits (N,C,H,W), on a labelled set.

    `mean` and `std` are those of the model, for images in [0, 1]. `precision` is "fp32" (or what the model's own
    parameters are in) or "bf16" (autocast). With size="protocol" an image whose shorter side exceeds 256 pixels is
    reduced to it, and its mask with it, with a number to so many; "original" leaves all as they are. Images of equal size
    share a batch. `progress(done, total)` is called after every batch,
    and so is `stop()`; when that says true the evaluation ends and None is returned.

    Returns JSON values: miou, per_class (name -> IoU or null), pixel_accuracy, fw_iou, absent (names), images, size
    ([height, width], or "mixed"), and confusion (pixels, a row for each label). The model's modes are as before afterwards, and no random number is drawn.

    Raises `DataError` on an empty set, a missing mask, a label that is neither a class nor ignore, or a model with
    another number of classes; `NumbersError` when logits are not finite.
    """
    classes = dataset.classes
    if len(dataset) == 0:
        raise DataError("the evaluation set holds no image")
    network = Shown(model, mean, std, device, precision)
    counts = ConfusionMatrix(len(classes), device)
    finite = torch.ones((), dtype=torch.bool, device=device)
    done, sizes, stopped = 0, set(), False
    with judging(model):
        for images, masks in ahead(batches(_labelled(dataset, size), batch)):
            predicted, all_finite = network.class_ids(images, classes)
            finite &= all_finite
            counts.update(predicted, torch.from_numpy(np.stack(masks)).to(device))
            done += len(images)
            sizes.add(masks[0].shape)
            if progress is not None:
                progress(done, len(dataset))
            if stop is not None and stop():
                stopped = True
                break
        if ranks.any_of(stopped):
            return None
        # Each process has measured its share of the images.
        finite = ~ranks.all_reduce((~finite).int()).bool()
        counts.matrix = ranks.all_reduce(counts.matrix)
        done, sizes = len(dataset), set().union(*ranks.broadcast(ranks.gather(sizes)))
    if not finite:
        raise NumbersError(NOT_FINITE)
    return _report(counts, classes, done, sizes)


def predict(
    model: nn.Module,
    images: Sequence[np.ndarray],
    *,
    mean: Sequence[float],
    std: Sequence[float],
    device: torch.device | str = "cpu",
    precision: Literal["fp32", "bf16"] = "fp32",
    batch: int = 8,
    size: Size = "original",
) -> list[np.ndarray]:
    """Masks (H,W) uint8, in the order of the `images` (H,W,3) uint8 RGB, each at its image's own size.

    The model is shown them at `size`, as `evaluate` does. Raises `NumbersError` when logits are not finite.
    """
    network, side = Shown(model, mean, std, device, precision), side_of(size)
    masks: dict[int, np.ndarray] = {}
    with judging(model):
        for group, indices in batches(((image, index) for index, image in enumerate(images)), batch):
            ids, finite = network.class_ids([reduced(image, side) for image in group], size=group[0].shape[:2])
            if not finite:
                raise NumbersError(NOT_FINITE)
            masks |= zip(indices, ids.cpu().numpy(), strict=True)
    return [masks[index] for index in range(len(images))]


@dataclass(frozen=True)
class Shown:
    """A model, which lives on `device`, and how it is shown images."""

    model: nn.Module
    mean: Sequence[float]
    std: Sequence[float]
    device: torch.device | str
    precision: Literal["fp32", "bf16"]

    def class_ids(
        self, images: Sequence[np.ndarray], classes: Classes | None = None, size: tuple[int, int] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Class ids (N,H,W) uint8 of images of one size, and () bool: whether all largest logits are finite.

        The images travel as bytes and are normalised on the device. Windows alone (`Sliding`) do so a band of rows at a
        time, so that neither images nor logits are ever whole in floats. Scales and mirror images need the whole of both,
        and so does a `size` of the masks that is not the images'.

        Raises `DataError` for a model of another number of classes than `classes`.
        """
        (height, width), bf16 = images[0].shape[:2], self.precision == "bf16"
        dtype = torch.float32 if bf16 else number_of(self.model)

        def rows(top: int, bottom: int) -> Tensor:
            return normalised([image[top:bottom] for image in images], self.mean, self.std, self.device, dtype)

        def likeliest(logits: Tensor, at: tuple[int, ...]) -> tuple[Tensor, Tensor]:
            if classes is not None and logits.shape[1] != len(classes):
                raise DataError(f"the model knows {logits.shape[1]} classes, not the {len(classes)} of {classes.name}")
            return class_ids(logits, at)

        what, advice = f"the network cannot compute an image of {height}x{width} pixels", "--slide HxW shows it windows"
        with computed(what, advice), torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=bf16):
            if isinstance(self.model, Sliding) and size in (None, (height, width)):
                bands = self.model.bands((height, width), rows)
                found, dim = [likeliest(logits, tuple(logits.shape[-2:])) for _, logits in bands], 1
            else:  # an image at a time: their masks may be larger than they
                logits = self.model(rows(0, height)).split(1)
                found, dim = [likeliest(one, size or (height, width)) for one in logits], 0
        return torch.cat([ids for ids, _ in found], dim), torch.stack([finite for _, finite in found]).all()


def _labelled(dataset: Dataset, size: Size) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The set's images and masks in order, checked and at the size asked for."""
    for index in range(ranks.rank(), len(dataset), ranks.size()):
        with audit.phase("evaluation"):
            sample = dataset[index]
        _check(sample, dataset.classes)
        sample = at_size(sample, size)
        yield sample.image, sample.mask


def _check(sample: Sample, classes: Classes) -> None:
    mask = sample.mask
    if mask is None:
        raise DataError(f"{sample.name}: no mask to measure against")
    if mask.shape != sample.image.shape[:2]:
        raise DataError(f"{sample.name}: the mask is {mask.shape}, the image {sample.image.shape[:2]} (height, width)")
    check_labels(sample.name, mask, len(classes))


def batches(items: Iterable[tuple[np.ndarray, Item]], batch: int) -> Iterator[tuple[list[np.ndarray], list[Item]]]:
    """Up to `batch` images of one size, fewer of large ones, with what came beside them; fewer than 4 batches wait at any time."""
    waiting: dict[tuple[int, ...], tuple[list[np.ndarray], list[Item]]] = {}
    for image, companion in items:
        images, companions = waiting.setdefault(image.shape, ([], []))
        images.append(image)
        companions.append(companion)
        held = [one.nbytes for group, _ in waiting.values() for one in group]
        if len(images) == batch or (len(images) + 1) * image.nbytes > _MOST_BYTES:
            yield waiting.pop(image.shape)
        elif len(held) == 4 * batch or sum(held) > 3 * _MOST_BYTES:
            yield waiting.pop(max(waiting, key=lambda shape: len(waiting[shape][0])))
    yield from waiting.values()


def ahead(items: Iterable[Item]) -> Iterator[Item]:
    """The items in order; another thread fetches the next one while one is used."""
    source = iter(items)
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(list, itertools.islice(source, 1))
        while found := coming.result():
            coming = reader.submit(list, itertools.islice(source, 1))
            yield found[0]


def _report(counts: ConfusionMatrix, classes: Classes, images: int, sizes: set[tuple[int, ...]]) -> dict[str, Any]:
    result = scores(counts.matrix)
    return {
        "miou": result.miou,
        "per_class": dict(zip(classes.names, result.per_class, strict=True)),
        "pixel_accuracy": result.pixel_accuracy,
        "fw_iou": result.fw_iou,
        "absent": [classes.names[index] for index in result.absent],
        "images": images,
        "size": list(next(iter(sizes))) if len(sizes) == 1 else "mixed",
        "confusion": counts.matrix.tolist(),
    }
