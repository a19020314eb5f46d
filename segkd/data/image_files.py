"""The bytes of an image file, once its header is bearable and its structure sound; nothing is decoded here."""

from __future__ import annotations

import stat
from pathlib import Path

from segkd.data.formats import bmp, jpeg, png, tiff, webp
from segkd.data.formats.header import MAX_EXTRA, Header
from segkd.foundation.errors import DataError

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp")
"""By which the images and masks of a folder are known, in any case; what a file holds, its content says."""

MAX_PIXELS = 64_000_000
MAX_SIDE = 32_768
_MOST_BYTES_A_PIXEL = 8  # RGBA with 16 bits each
_CHECKS = {"PNG": png.check, "TIFF": tiff.check}  # of the others Pillow's decoders refuse what is cut


def read_checked(path: Path, most_pixels: int = MAX_PIXELS) -> tuple[bytes, Header]:
    """The bytes of a file whose size is bearable and whose structure is sound, and what its header says.

    Of a file whose header promises too much, or less than the file holds, no more than the beginning is read.

    Raises:
        DataError: missing, of another format, of more pixels than `most_pixels`, damaged, animated or of several pages;
            with the path.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise DataError(f"{path}: not a regular file")
        with path.open("rb") as file:
            beginning = file.read(MAX_EXTRA)

            def bearable(header: Header) -> None:
                _check_size(path, header, most_pixels)

            if beginning.startswith(tiff.SIGNATURES):
                header: Header = tiff.read_header(path, file, status.st_size, bearable)
            else:
                header = _header(path, beginning)
                bearable(header)
            most = _MOST_BYTES_A_PIXEL * header.width * header.height + MAX_EXTRA
            if status.st_size > most:
                size = f"{status.st_size} bytes for {header.width}x{header.height} pixels"
                raise DataError(f"{path}: {size}; at most {most} are read")
            file.seek(len(beginning))
            data = beginning + file.read(most)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    if header.format in _CHECKS:
        _CHECKS[header.format](path, data, header)
    return data, header


def _header(path: Path, data: bytes) -> Header:
    if data.startswith(png.SIGNATURE):
        return png.read_header(path, data)
    if data.startswith(jpeg.SIGNATURE):
        return jpeg.read_header(path, data)
    if webp.is_webp(data):
        return webp.read_header(path, data)
    if data.startswith(bmp.SIGNATURE):
        return bmp.read_header(path, data)
    raise DataError(f"{path}: {'empty file' if not data else 'neither PNG nor JPEG, TIFF, WebP or BMP'}")


def _check_size(path: Path, header: Header, most_pixels: int) -> None:
    width, height = header.width, header.height
    side = max(MAX_SIDE, most_pixels // 1024)
    if 0 < width <= side and 0 < height <= side and width * height <= most_pixels:
        return
    told = f"{path}: declares {width}x{height} pixels; from 1 to {side} a side and at most {most_pixels} are read"
    if most_pixels < width * height <= 1 << 32:
        more = f"megapixels: {-(-width * height // 1_000_000)} in the folder's dataset.yaml"
        told += f"; {more}, or --megapixels of segkd visualize, allows more"
    raise DataError(told)
