"""What `segkd eval` does: a trained network is scored on a labelled set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from segkd import build
from segkd.data.classes import disagreement
from segkd.evaluation.evaluate import evaluate as score
from segkd.evaluation.inference import Inference
from segkd.foundation.errors import DataError, UsageError
from segkd.foundation.resize import PROTOCOL_SIDE, Size, side_of
from segkd.runs.trained import Model, Precision, device_and_bf16, seen_at

SIZE_NAMES = {PROTOCOL_SIDE: "protocol", None: "original"}


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

    What is not given is as in the model's recipe: the data set, its root, its final split (or `test`), the precision; and
    the size is the model's own. `inference` shows the network windows, scales or mirror images of each image.
    `progress(done, total)` is called after every batch. `options` are the data, split, size, slide, scales, flip and
    precision that were used; `notes` are lines for whoever reads the figures: first what size it was shown, last what
    files of the set were left out.

    Raises:
        UsageError: no data set, neither given nor in a recipe.
        DataError: the set cannot be read, or its classes are not as many, or not called, as the model's.
    """
    own = model.data
    name = data or (own.name if own is not None else None)
    if name is None:
        raise UsageError("nothing to measure on: give --data camvid|nyuv2|folder --root DIR, or --data scenes|rooms")
    if own is not None and own.name == name:
        root, split = root or own.root, split or own.final
    size, size_from = (model.size, model.size_from) if size is None else (size, "as asked")
    split, inference, side = split or "test", inference or Inference(), side_of(size)
    labelled = build.dataset(name, root, split, model.classes)
    if wrong := disagreement(model.classes.names, labelled.classes, "model"):
        raise DataError(wrong)
    place, bf16 = device_and_bf16(device, precision or model.precision)
    precision = "bf16" if bf16 else "fp32"
    network = inference.of(model.network).to(place)
    scores = score(
        network, labelled, mean=model.mean, std=model.std, device=place,
        precision=precision, size=size, progress=progress,
    )  # fmt: skip
    options = {
        "data": name,
        "split": split,
        "size": SIZE_NAMES.get(side, side),
        "shorter_side": side,
        **inference.as_dict(),
    }
    notes = [seen_at(size, size_from), *inference.notes(network), *labelled.notes]
    return {**scores, "options": {**options, "precision": precision}, "notes": notes}
