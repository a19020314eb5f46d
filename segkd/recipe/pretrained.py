"""What a folder that `save_pretrained` wrote says of the images that its network was trained on."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segkd.foundation.channels import RGB
from segkd.foundation.errors import TeacherError, one_line

FILE = "preprocessor_config.json"
_BGR = ("MobileViT",)
"""Beginnings of the kinds of processors that exchange red and blue unless they say otherwise."""


@dataclass(frozen=True)
class Input:
    """How images in [0,1] become a network's input: less `mean`, divided by `std`, blue first; and a line on its labels."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    notes: tuple[str, ...] = ()
    blue_first: bool = False


def input_of(folder: Path) -> Input | None:
    """What the image processor of a folder of weights does to images; None where none is there.

    A processor multiplies values of 0..255 by `rescale_factor` (1/255), unless `do_rescale` is false, and then takes
    `image_mean` and divides by `image_std`, unless `do_normalize` is false. All of it is one mean and one std of images in [0,1].

    Raises:
        TeacherError: the file cannot be read, or is not clear.
    """
    file = folder / FILE
    if not file.is_file():
        return None
    try:
        said = json.loads(file.read_text("utf-8"))
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
        found = Input(mean, std, _on_labels(said, file), bool(flips) and len(mean) == RGB)
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


def _of_channels(value: Any) -> tuple[float, ...]:
    return tuple(map(float, value if isinstance(value, list) else [value] * 3))


def _on_labels(said: dict[str, Any], file: Path) -> tuple[str, ...]:
    if not (said.get("do_reduce_labels") or said.get("reduce_labels")):
        return ()
    return (f"{file}: do_reduce_labels: class 0 is id 1 of the masks that it was trained on, and so on",)
