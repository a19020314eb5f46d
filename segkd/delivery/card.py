"""The model card in a student's folder: what is known of the network, what it is shown, and lines that run it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from torch import nn

from segkd.foundation.channels import GREY, RGB, name_of
from segkd.foundation.errors import one_line
from segkd.models.adapters import parameters_of
from segkd.models.families import torchvision

LICENCE = (
    "The weights follow the licence of the teacher and of the data that it was trained on; `license: other` above says"
    " only that segkd cannot know it."
)
UNKNOWN = "What it reaches has not been measured."

_HEAD = """\
---
license: other
library_name: LIBRARY
pipeline_tag: image-segmentation
tags: [semantic-segmentation, pytorch, segkd]
---
"""
_WITH_SEGKD = """\
import numpy as np
from segkd import load_student

image = IMAGE
mask = load_student(".").predict(image)  # (H,W) uint8 class ids, at the image's own size
"""
_REDUCE = """\
scale = min(1, about["size"]["shorter_side"] / min(image.size))
seen = image.resize([round(side * scale) for side in image.size], Image.Resampling.BILINEAR)
"""
_WITHOUT_SEGKD = """\
import json
import numpy as np
import torch
from PIL import Image
LOAD
about = json.load(open("preprocess.json"))
image = Image.new("RGB", (640, 480))  # or Image.open("photo.jpg").convert("RGB")
REDUCEx = (np.asarray(SEEN, np.float32) / 255 - np.float32(about["mean"])) / np.float32(about["std"])
(height, width), multiple = x.shape[:2], about["size"]["multiple_of"]
x = np.pad(x, ((0, -height % multiple), (0, -width % multiple), (0, 0)), mode="edge")
with torch.no_grad():
    logits = network(torch.from_numpy(x).permute(2, 0, 1)[None])OUT[..., :height, :width]
logits = torch.nn.functional.interpolate(logits, image.size[::-1], mode="bilinear")
mask = logits.argmax(1)[0].numpy()  # (H,W) class ids, at the image's own size
"""
_REDUCE_ARRAY = """\
scale = min(1, about["size"]["shorter_side"] / min(image.shape[:2]))
size = [round(side * scale) for side in image.shape[1::-1]]
channels = [Image.fromarray(image[..., index]) for index in range(image.shape[2])]
seen = np.stack([np.asarray(channel.resize(size, Image.Resampling.BILINEAR)) for channel in channels], axis=2)
"""
_SMP = ("segmentation-models-pytorch", "smp", """\
import segmentation_models_pytorch as smp

network = smp.from_pretrained(".").eval()""", "")  # fmt: skip
_PROGRAM = ("pytorch", "PyTorch alone (`model.pt2`, whose images' sides are multiples of 32 from 64 on)", """\

network = torch.export.load("model.pt2").module()""", "")  # fmt: skip
_TORCHVISION = ("pytorch", "torchvision", """\
from safetensors.torch import load_file
from torchvision.models import segmentation

network = segmentation.NAME(weights_backbone=None, num_classes=CLASSES).eval()
network.load_state_dict(load_file("model.safetensors"))""", '["out"]')  # fmt: skip
"""Of each way to load a student: the hub's name of the library, its own, the lines, and where the logits are in what it gives."""


def model_card(network: nn.Module, preprocess: dict[str, Any], known: Sequence[str], program: bool) -> str:
    """The text of a `README.md`.

    Args:
        network: one that a student can be, with its arguments in `config`.
        preprocess: what `preprocess.json` holds.
        known: lines about how it was made and what it reaches, measured or agreed; none: that it is not known.
        program: the folder also holds `model.pt2`, which runs with PyTorch alone.
    """
    config = {key: value for key, value in dict(network.config).items() if not key.startswith("_")}
    name = dict(network.config).get("_model_class", type(network).__name__)
    library, loader, load, out = _SMP
    if program:
        library, loader, load, out = _PROGRAM
    elif name in torchvision.NAMES:
        library, loader, load, out = _TORCHVISION
        load = load.replace("NAME", name).replace("CLASSES", str(config["classes"]))
    encoder = f" with encoder {config['encoder_name']}" if "encoder_name" in config else ""
    names = [one_line(name) for name in preprocess["classes"]]
    reduces = preprocess["size"]["shorter_side"] is not None
    channels = len(preprocess["mean"])
    array, reduce, seen = {
        RGB: ('np.zeros((480, 640, 3), np.uint8)  # or np.asarray(PIL.Image.open("photo.jpg").convert("RGB"))', _REDUCE, "seen"),
        GREY: ('np.zeros((480, 640), np.uint8)  # or np.asarray(PIL.Image.open("photo.jpg").convert("L"))', _REDUCE,
               'seen.convert("L")'),
    }.get(channels, (f"np.zeros((480, 640, {channels}), np.uint8)  # or yours", _REDUCE_ARRAY, "seen"))  # fmt: skip
    without = _WITHOUT_SEGKD.replace("LOAD", load).replace("OUT", out)
    without = without.replace("REDUCE", reduce if reduces else "seen = image\n").replace("SEEN", seen)
    if channels == GREY:
        without = without.replace("(np.asarray(", "(np.atleast_3d(np.asarray(").replace(
            "np.float32) / 255", "np.float32)) / 255"
        )
    elif channels != RGB:
        picture = 'Image.new("RGB", (640, 480))  # or Image.open("photo.jpg").convert("RGB")'
        without = without.replace(picture, array).replace("image.size[::-1]", "image.shape[:2]")
    return (
        f"{_HEAD.replace('LIBRARY', library)}"
        f"# {name}{encoder}\n\n{parameters_of(network) / 1e6:.2f} M parameters,"
        f" {len(names)} classes: {', '.join(names)}.\n\n"
        f"## What is known of it\n\n{''.join(f'- {line}{chr(10)}' for line in known or [UNKNOWN])}\n"
        f"## What it is shown\n\n{_input(preprocess)}\n\n"
        f"## Use it\n\nIn this folder, with segkd, which takes images of any size:\n\n```python\n{_WITH_SEGKD.replace('IMAGE', array)}```\n\n"
        f"With {loader}:\n\n```python\n{without}```\n\n"
        f"## Its arguments\n\n```json\n{json.dumps(config, indent=2, default=str)}\n```\n\n## Licence of the weights\n\n{LICENCE}\n"
    )


def _input(preprocess: dict[str, Any]) -> str:
    """Normalisation, size and padding, in words."""
    size = preprocess["size"]
    side = size["shorter_side"]
    channels = {RGB: "RGB", GREY: "Grey (colours by their luma, ITU-R BT.601)"}.get(
        len(preprocess["mean"]), name_of(len(preprocess["mean"]))
    )
    shown = "Images are shown as they are"
    if side is not None:
        shown = f"Images whose shorter side has more than {side} pixels are reduced to it (bilinear, antialiased)"
    padded = ". The logits are"
    if size["multiple_of"] > 1:
        padded = (
            f", and padded at the bottom and the right to multiples of {size['multiple_of']} by repeating the last row and"
            " column. The logits are cropped back, and"
        )
    return (
        f"{channels}, x / 255 less mean {preprocess['mean']}, divided by std {preprocess['std']}. {shown}{padded}"
        " brought to the image's own size (bilinear). `preprocess.json` says the same to programs."
    )
