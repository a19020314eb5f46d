"""What a folder that `save_pretrained` wrote, or that a student is in, says of the images that its network was trained on."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segkd.foundation.channels import RGB
from segkd.foundation.errors import TeacherError, one_line

FILE = "preprocessor_config.json"
STUDENTS = "preprocess.json"
"""Of a student's folder of segkd."""
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""The file of weights in such a folder: the first that is there."""
_BGR = ("MobileViT",)
"""Beginnings of the kinds of processors that exchange red and blue unless they say otherwise."""


@dataclass(frozen=True)
class Input:
    """How images in [0,1] become a network's input: less `mean`, divided by `std`, blue first; and a line on its labels.

    `file` says so.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    file: Path
    notes: tuple[str, ...] = ()
    blue_first: bool = False


def folder_of(weights: Path) -> Path:
    """That of weights which are named by it, or by the file of them in it."""
    return weights.parent if weights.name in WEIGHTS else weights


def file_of(weights: Path) -> Path | None:
    """The file in a folder of weights, or beside its file of them, that says how images were normalised; None: none is there."""
    folder = folder_of(weights)
    return next((folder / name for name in (FILE, STUDENTS) if (folder / name).is_file()), None)


def input_of(weights: Path) -> Input | None:
    """What is done to images before the network of a folder of weights sees them; None where that is not said.

    A student's folder of segkd states mean and std as they are.

    A processor multiplies values of 0..255 by `rescale_factor` (1/255), unless `do_rescale` is false, and then takes
    `image_mean` and divides by `image_std`, unless `do_normalize` is false. All of it is one mean and one std of images in [0,1].

    Raises:
        TeacherError: the file cannot be read, or is not clear.
    """
    file = file_of(weights)
    if file is None:
        return None
    try:
        said = json.loads(file.read_text("utf-8"))
        if file.name == STUDENTS:
            return _of_student(said, file)
        kind = str(said.get("image_processor_type") or said.get("feature_extractor_type") or "")
        flips = said.get("do_flip_channel_order", kind.startswith(_BGR))
        rescale = said.get("rescale_factor", 1 / 255) if said.get("do_rescale", True) else 1.0
        scale = 255 * float(rescale)
        mean, std = (0.0,) * 3, (1.0,) * 3
        if said.get("do_normalize", "image_mean" in said):
            mean, std = (_of_channels(said[key]) for key in ("image_mean", "image_std"))
        mean, std = (tuple(round(each / scale, 7) for each in values) for values in (mean, std))
        if len(mean) != len(std):
            raise ValueError(f"{len(mean)} means and {len(std)} deviations")
        found = Input(mean, std, file, _on_labels(said, file), bool(flips) and len(mean) == RGB)
    except (OSError, ValueError, AttributeError, KeyError, TypeError, ZeroDivisionError) as error:
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise TeacherError(
            f"{file}: says not how images were normalised ({reason}); mend it, or take it away"
        ) from error
    if found.blue_first and len({*mean}) + len({*std}) > 2:
        raise TeacherError(
            f"{file}: whether mean and std are of blue first (do_flip_channel_order) is not known; mend it"
        )
    return found


def _of_student(said: dict[str, Any], file: Path) -> Input | None:
    """As `segkd.delivery.folder.Preprocess` has it; None: somebody else's file of this name."""
    if not {"mean", "std"} & said.keys():
        return None
    mean, std = (tuple(map(float, said[key])) for key in ("mean", "std"))
    if len(mean) != len(std) or not all(0 < each < math.inf for each in std) or not all(map(math.isfinite, mean)):
        raise ValueError(f"{len(mean)} means and {len(std)} deviations, which are to be as many, and above 0")
    if list(said.get("range", (0, 1))) != [0, 1]:
        raise ValueError(f"range: {said['range']}, where it is to be 0 to 1")
    return Input(mean, std, file)


def _of_channels(value: Any) -> tuple[float, ...]:
    return tuple(map(float, value if isinstance(value, list) else [value] * 3))


def _on_labels(said: dict[str, Any], file: Path) -> tuple[str, ...]:
    if not (said.get("do_reduce_labels") or said.get("reduce_labels")):
        return ()
    return (f"{file}: do_reduce_labels: class 0 is id 1 of the masks that it was trained on, and so on",)
