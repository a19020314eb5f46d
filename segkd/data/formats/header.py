"""What an image file declares, whatever its format."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

GREY, RGB, PALETTE, GREY_ALPHA, CMYK, RGBA = 0, 2, 3, 4, 5, 6
"""Kinds of pixel; the numbers are PNG's, which has no CMYK."""

CHANNELS = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, CMYK: 4, RGBA: 4}

MAX_EXTRA = 1 << 24
"""Bytes of a file beside its pixels, and of its compressed texts and profiles once they are inflated."""


@dataclass(frozen=True)
class Header:
    """Format, size in pixels, bits a sample and kind of pixel.

    Attributes:
        interlaced: of a PNG.
        lossy: decoding gives other pixels than were encoded, so that it can hold no ids.
        inverted: 0 is white, in grey levels of a TIFF.
        orientation: of a TIFF, as in EXIF; other formats tell it in their EXIF.
    """

    format: Literal["PNG", "JPEG", "TIFF", "WEBP", "BMP"]
    width: int
    height: int
    depth: int
    colour: int
    interlaced: bool = False
    lossy: bool = False
    inverted: bool = False
    orientation: int = 1
