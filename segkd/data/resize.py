"""The one rule by which images and masks change their size, for every data set."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import cv2
import numpy as np
from PIL import Image

from segkd.data.samples import Sample

PROTOCOL_SIDE = 256
"""Pixels of the shorter side at which data-free results on CamVid and NYUv2 are published (arXiv:1912.11006)."""


def resize_protocol(sample: Sample, shorter: int = PROTOCOL_SIDE) -> Sample:
    """The sample with its shorter side resized to `shorter`, or itself when it is that already.

    The image is resized bilinearly over the area of the new pixel (antialiased), the mask to the nearest pixel.
    480x360 (CamVid) and 640x480 (NYUv2) become 341x256.
    """
    height, width = sample.image.shape[:2]
    if min(height, width) == shorter:
        return sample
    scale = shorter / min(height, width)
    size = (round(width * scale), round(height * scale))
    image = np.array(Image.fromarray(sample.image).resize(size, Image.Resampling.BILINEAR))
    # INTER_NEAREST takes the upper left of the nearest pixels: 2 to 5 % of CamVid's labels would move
    mask = None if sample.mask is None else cv2.resize(sample.mask, size, interpolation=cv2.INTER_NEAREST_EXACT)
    return replace(sample, image=image, mask=mask)


def reduced(sample: Sample) -> Sample:
    """The sample at the protocol's size, or itself where its shorter side is no longer than that."""
    return resize_protocol(sample) if min(sample.image.shape[:2]) > PROTOCOL_SIDE else sample


def at_size(sample: Sample, size: Literal["protocol", "original"]) -> Sample:
    """The sample as it is trained on and measured: `reduced` for "protocol", and itself for "original"."""
    return reduced(sample) if size == "protocol" else sample
