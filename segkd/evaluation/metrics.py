"""Segmentation scores from one integer confusion matrix over a whole set."""

from dataclasses import dataclass

import numpy as np
import torch
from kornia.metrics import confusion_matrix
from torch import Tensor

from segkd.data.classes import IGNORE

# kornia returns float32 counts, which are exact up to 2**24, of long integers, of which a large image's would be eight times
# its mask: longer images are counted in pieces.
_PIECE = 2**22


@dataclass(frozen=True)
class Scores:
    """What a confusion matrix says; ratios in [0, 1], `None` where there was nothing to measure.

    `miou` is the mean over the classes with TP + FP + FN > 0; the others are listed in `absent` (class indices) and
    are `None` in `per_class`. `fw_iou` weighs the IoU of each class by its share of the labelled pixels.
    """

    miou: float | None
    per_class: list[float | None]
    pixel_accuracy: float | None
    fw_iou: float | None
    absent: list[int]


class ConfusionMatrix:
    """Pixel counts `matrix[target, prediction]`, summed in int64 on one device.

    Pixels labelled `IGNORE` (255) are not counted, whatever was predicted there.
    """

    def __init__(self, num_classes: int, device: torch.device | str = "cpu") -> None:
        if not 1 <= num_classes <= IGNORE:
            raise ValueError(f"num_classes must lie in 1..{IGNORE} ({IGNORE} marks ignored pixels), got {num_classes}")
        self.num_classes = num_classes
        self.matrix = torch.zeros(num_classes, num_classes, dtype=torch.int64, device=device)

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add a batch: `prediction` and `target` (N,H,W), integers, on the matrix's device.

        Raises `ValueError` on a prediction outside 0..C-1, and on a target that is neither a class nor `IGNORE`.
        """
        count = self.num_classes
        if prediction.shape != target.shape:
            raise ValueError(f"prediction {tuple(prediction.shape)} and target {tuple(target.shape)} differ in shape")
        if not prediction.numel():
            return
        least, most = prediction.aminmax()
        stray = (target < 0) | (target >= count) & (target != IGNORE)
        # Checked here because a stray label C would otherwise pass for the ignored class, and be dropped in silence.
        if (least < 0) | (most >= count) | stray.any():
            raise ValueError(f"a prediction is outside 0..{count - 1}, or a target neither there nor {IGNORE}")
        # Ignored pixels have a row of their own, which is dropped.
        prediction, target = prediction.flatten(1), target.flatten(1).clamp(max=count)
        for predicted, labelled in zip(prediction.split(_PIECE, 1), target.split(_PIECE, 1), strict=True):
            counts = confusion_matrix(predicted.long(), labelled.long(), count + 1)
            self.matrix += counts[:, :count, :count].to(torch.int64).sum(0)


def scores(matrix: Tensor) -> Scores:
    """Scores of a (C,C) int64 matrix with targets in its rows, computed in float64."""
    counts = matrix.cpu().numpy().astype(np.float64)
    hits, labelled, predicted = np.diag(counts), counts.sum(1), counts.sum(0)
    union = labelled + predicted - hits
    present = union > 0
    iou = hits[present] / union[present]
    total = counts.sum()
    per_class: list[float | None] = [None] * len(counts)
    for index, value in zip(np.flatnonzero(present), iou, strict=True):
        per_class[index] = float(value)
    return Scores(
        miou=float(iou.mean()) if present.any() else None,
        per_class=per_class,
        pixel_accuracy=float(hits.sum() / total) if total else None,
        fw_iou=float((labelled[present] * iou).sum() / total) if total else None,
        absent=np.flatnonzero(~present).tolist(),
    )
