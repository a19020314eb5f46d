"""How often two networks give a pixel the same class: what can be measured without labels, and is no mIoU of the truth."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from segkd.data.classes import Classes
from segkd.data.resize import at_size
from segkd.data.samples import Sample
from segkd.evaluation.evaluate import NOT_FINITE, Shown, ahead, batches
from segkd.evaluation.metrics import ConfusionMatrix, scores
from segkd.foundation import audit
from segkd.foundation.errors import DataError, NumbersError
from segkd.foundation.resize import Size
from segkd.models.masks import judging


@torch.no_grad()
def agreement(student: nn.Module, teacher: nn.Module, batches: Iterable[Tensor], *, bf16: bool = False) -> float:
    """Share in [0,1] of the pixels of images (N,3,H,W) to which both networks give the same class.

    Both run in eval mode, and the student's mode is put back. No labels are involved, so it may be looked at at any time.
    """
    training = student.training
    student.eval()
    same, total = 0, 0
    for images in batches:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=bf16):
            a, b = student(images).argmax(1), teacher(images).argmax(1)
        same, total = same + int((a == b).sum()), total + a.numel()
    student.train(training)
    return same / total


def compare(
    student: Shown,
    teacher: Shown,
    images: Sequence[Sample],
    classes: Classes,
    *,
    size: Size,
    batch: int = 8,
    progress: Callable[[int, int], object] | None = None,
) -> dict[str, Any]:
    """How far a student agrees with a teacher on images, whose masks, should they have some, are not looked at.

    Both are shown the images at `size`, each normalised as its own; `progress(done, total)` is called after every batch.

    Returns JSON values: `agreement` (share of pixels of one class), `agreement_miou` and `agreement_per_class` (IoU with
    the teacher's masks taken for the truth), `agreement_absent` (classes that neither finds), `agreement_confusion` (pixels,
    a row for each class of the teacher's masks), images, and size ([height, width], or "mixed").

    Raises `DataError` for no image, an image that cannot be read, or a network of another number of classes;
    `NumbersError` when logits are not finite.
    """
    if not len(images):
        raise DataError("there is no image to compare on")
    counts, done, sizes = ConfusionMatrix(len(classes), student.device), 0, set()
    with judging(student.model), judging(teacher.model):
        for group, _ in ahead(batches(_read(images, size), batch)):
            ours, theirs = (_ids(network, group, classes) for network in (student, teacher))
            counts.update(ours, theirs)
            done += len(group)
            sizes.add(group[0].shape[:2])
            if progress is not None:
                progress(done, len(images))
    result = scores(counts.matrix)
    return {
        "agreement": result.pixel_accuracy,
        "agreement_miou": result.miou,
        "agreement_per_class": dict(zip(classes.names, result.per_class, strict=True)),
        "agreement_absent": [classes.names[index] for index in result.absent],
        "agreement_confusion": counts.matrix.tolist(),
        "images": done,
        "size": list(next(iter(sizes))) if len(sizes) == 1 else "mixed",
    }


def _read(images: Sequence[Sample], size: Size) -> Iterator[tuple[np.ndarray, None]]:
    for index in range(len(images)):
        with audit.phase("evaluation"):
            sample = images[index]
        yield at_size(sample, size).image, None


def _ids(network: Shown, images: Sequence[np.ndarray], classes: Classes) -> Tensor:
    """Class ids (N,H,W) of images of one size."""
    ids, finite = network.class_ids(images, classes)
    if not finite:
        raise NumbersError(NOT_FINITE)
    return ids
