"""How samples change their size, images and masks alike, for every data set."""

from __future__ import annotations

from dataclasses import replace

import cv2

from segkd.data.samples import Sample
from segkd.foundation.resize import PROTOCOL_SIDE, Size, resized, resized_to, side_of


def resize_protocol(sample: Sample, shorter: int = PROTOCOL_SIDE) -> Sample:
    """The sample with its shorter side resized to `shorter`, or itself when it is that already.

    The image is resized bilinearly over the area of the new pixel (antialiased), the mask to the nearest pixel.
    480x360 (CamVid) and 640x480 (NYUv2) become 341x256.
    """
    if min(sample.image.shape[:2]) == shorter:
        return sample
    height, width = resized_to(sample.image.shape, shorter)
    image = resized(sample.image, (height, width))
    # INTER_NEAREST takes the upper left of the nearest pixels: 2 to 5 % of CamVid's labels would move
    mask = (
        None if sample.mask is None else cv2.resize(sample.mask, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    )
    return replace(sample, image=image, mask=mask)


def reduced(sample: Sample, shorter: int = PROTOCOL_SIDE) -> Sample:
    """The sample at a shorter side of at most `shorter` pixels, or itself where it has no more."""
    return resize_protocol(sample, shorter) if min(sample.image.shape[:2]) > shorter else sample


def at_size(sample: Sample, size: Size) -> Sample:
    """The sample as it is trained on and measured: `reduced` for "protocol" or a number, itself for "original"."""
    side = side_of(size)
    return sample if side is None else reduced(sample, side)
