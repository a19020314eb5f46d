"""The one rule by which images become smaller before a network sees them: data sets, photos, students alike."""

from __future__ import annotations

from numbers import Integral
from typing import Literal

import numpy as np
from PIL import Image

from segkd.foundation.errors import ArgumentError, one_line

PROTOCOL_SIDE = 256
"""Pixels of the shorter side at which data-free results on CamVid and NYUv2 are published (arXiv:1912.11006)."""

LARGEST_SIDE = 8192
Size = Literal["protocol", "original"] | int
"""`protocol`: a shorter side of at most `PROTOCOL_SIDE` pixels, a number: of at most so many; `original`: as it is."""


def side_of(size: Size | None) -> int | None:
    """The most pixels of the shorter side that a size means; None: as many as the image has.

    Raises:
        ArgumentError: anything but protocol, original, or a number of pixels from 1 to 8192.
    """
    if size is None or (isinstance(size, str) and size == "original"):
        return None
    if isinstance(size, str) and size == "protocol":
        return PROTOCOL_SIDE
    if isinstance(size, Integral) and not isinstance(size, bool) and 1 <= size <= LARGEST_SIDE:
        return int(size)
    raise ArgumentError(
        f"size {one_line(repr(size), 60)}: expected protocol, original, or the pixels of the shorter side, 1 to {LARGEST_SIDE}"
    )


def resized_to(shape: tuple[int, ...], shorter: int) -> tuple[int, int]:
    """Height and width of an image (H,W,...) once its shorter side has `shorter` pixels; 480x360 becomes 341x256."""
    height, width = shape[:2]
    scale = shorter / min(height, width)
    return round(height * scale), round(width * scale)


def resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The image (H,W) or (H,W,K) uint8 at (height, width), bilinear over the area of the new pixel (antialiased)."""
    if image.ndim == 3 and image.shape[2] != 3:  # Pillow knows few numbers of channels, and takes a fourth for opacity
        return np.stack([resized(image[..., index], size) for index in range(image.shape[2])], axis=2)
    return np.array(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR))


def reduced(image: np.ndarray, shorter: int | None) -> np.ndarray:
    """The image with a shorter side of at most `shorter` pixels; itself where it has no more, and for None."""
    if shorter is None or min(image.shape[:2]) <= shorter:
        return image
    return resized(image, resized_to(image.shape, shorter))
