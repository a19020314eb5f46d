"""JPEG: the size before its pixels. A cut one, Pillow's decoder refuses by itself."""

from __future__ import annotations

import io
from pathlib import Path

from PIL.JpegImagePlugin import JpegImageFile

from segkd.data.formats.header import CMYK, GREY, RGB, Header
from segkd.foundation.errors import DataError

SIGNATURE = b"\xff\xd8\xff"


def read_header(path: Path, data: bytes) -> Header:
    """What the beginning of a file says."""
    try:
        image = JpegImageFile(io.BytesIO(data))
    except Exception as error:  # Pillow raises a dozen types for damaged files
        raise DataError(f"{path}: damaged JPEG: no size before the pixels") from error
    return Header("JPEG", *image.size, image.bits, {1: GREY, 4: CMYK}.get(image.layers, RGB), lossy=True)
