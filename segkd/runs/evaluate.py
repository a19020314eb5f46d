"""What `segkd eval` does: a trained network is scored on a labelled set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from segkd import build
from segkd.data.classes import disagreement
from segkd.evaluation.evaluate import evaluate as score
from segkd.evaluation.inference import Inference
from segkd.foundation.errors import DataError, UsageError
from segkd.runs.trained import Model, Precision, device_and_bf16

Size = Literal["protocol", "original"]


def evaluate(
    model: Model,
    *,
    data: str | None = None,
    root: str | None = None,
    split: str | None = None,
    size: Size | None = None,
    inference: Inference | None = None,
    device: str = "auto",
    precision: Precision | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Score a model on a labelled set, by the rules of `segkd.evaluation.evaluate`; same keys, and `options`.

    What is not given is as in the model's recipe: the data set, its root and size, its final split (or `test`), the
    precision. `inference` shows the network windows, scales or mirror images of each image. `progress(done, total)` is
    called after every batch. `options` are the data, split, size, slide, scales, flip and precision that were used.

    Raises:
        UsageError: no data set, neither given nor in a recipe.
        DataError: the set cannot be read, or its classes are not as many, or not called, as the model's.
    """
    own = model.data
    name = data or (own.name if own is not None else None)
    if name is None:
        raise UsageError("nothing to measure on: give --data camvid|nyuv2|folder --root DIR, or --data scenes|rooms")
    if own is not None and own.name == name:
        root, split, size = root or own.root, split or own.final, size or own.size
    split, size, inference = split or "test", size or "protocol", inference or Inference()
    labelled = build.dataset(name, root, split, model.classes)
    if wrong := disagreement(model.classes.names, labelled.classes, "model"):
        raise DataError(wrong)
    place, bf16 = device_and_bf16(device, precision or model.precision)
    precision = "bf16" if bf16 else "fp32"
    scores = score(
        inference.of(model.network).to(place), labelled, mean=model.mean, std=model.std, device=place,
        precision=precision, size=size, progress=progress,
    )  # fmt: skip
    options = {"data": name, "split": split, "size": size, **inference.as_dict(), "precision": precision}
    return {**scores, "options": options}
