"""The one strict reader of image files: a damaged file is an error with its name, never a wrong pixel.

The order is: bytes, size and format from the header, checksums of PNG chunks, decoding. OpenCV would be quicker, but
returns a full-size array for a JPEG cut to 30 %, palette masks as grey levels, and decodes a bomb before it says no.
"""

from __future__ import annotations

import io
import os
import stat
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from segkd.foundation.errors import DataError

MAX_PIXELS = 64_000_000
MAX_SIDE = 32_768
MAX_BYTES = 512_000_000

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
_ORIENTATION = 0x0112
_GREY, _RGB, _PALETTE, _GREY_ALPHA, _RGBA = 0, 2, 3, 4, 6
_CHANNELS = {_GREY: 1, _RGB: 3, _PALETTE: 1, _GREY_ALPHA: 2, _RGBA: 4}
# the passes of an interlaced PNG: first column, first row, step right, step down
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_PIECE = 1 << 18
# start-of-frame markers of JPEG; C4, C8 and CC share the range and are not frames
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


@dataclass(frozen=True)
class _Header:
    format: str
    width: int
    height: int
    depth: int
    colour: int
    interlaced: bool


def read_image(path: str | os.PathLike[str], *, apply_orientation: bool = False) -> np.ndarray:
    """Read a PNG or JPEG file as (H,W,3) uint8 RGB; grey is repeated, 16 bits lose the lower 8, alpha is dropped.

    Args:
        path: the file; its suffix does not matter, its content does.
        apply_orientation: turn the image as its EXIF orientation says. Right for a lone image; where a mask belongs
            to the image nobody knows whether it was turned too, so that the default is to refuse such a file.

    Raises:
        DataError: missing, not PNG or JPEG, damaged, too large, animated, CMYK, or turned by EXIF; with the path.
    """
    path = Path(path)
    data = _read_bytes(path)
    header = _header(path, data)
    decoded = _decode(path, data, header)
    if decoded.getexif().get(_ORIENTATION, 1) != 1:
        if not apply_orientation:
            turned = decoded.getexif()[_ORIENTATION]
            raise DataError(f"{path}: EXIF orientation {turned}; save the image upright, so that it fits its mask")
        decoded = ImageOps.exif_transpose(decoded)
    if decoded.mode == "CMYK":
        raise DataError(f"{path}: CMYK image; convert it to RGB")
    if decoded.mode.startswith("I"):
        grey = (np.asarray(decoded).astype(np.uint32) >> 8).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    return np.array(decoded if decoded.mode == "RGB" else decoded.convert("RGB"))


def read_mask(
    path: str | os.PathLike[str], *, colour_map: Mapping[tuple[int, int, int], int] | None = None
) -> np.ndarray:
    """Read a PNG label file as (H,W) ids: uint8, or uint16 for 16-bit files.

    Grey levels and palette indices are the ids, whatever the bit depth; the palette's colours do not matter.

    Args:
        path: the file; its suffix does not matter, its content does.
        colour_map: the id (0-255) of each RGB colour, for masks that are pictures in colour; without it they are
            refused. With it every mask is a picture in colour: one with a palette, or in grey, as it looks.

    Raises:
        DataError: missing, not PNG, damaged, too large, in colour without a map, or a colour outside the map.
    """
    path = Path(path)
    data = _read_bytes(path)
    header = _header(path, data)
    if header.format != "PNG":
        raise DataError(f"{path}: JPEG mask; its compression changes the ids, masks must be PNG")
    if header.colour == _RGB and colour_map is None:
        raise DataError(f"{path}: RGB mask; ids must be grey levels or palette indices, or give read_mask a colour_map")
    if header.colour in (_GREY_ALPHA, _RGBA) or (
        header.depth == 16 and (header.colour == _RGB or colour_map is not None)
    ):
        raise DataError(f"{path}: mask with an alpha channel or 16-bit colours; ids must be grey levels or a palette")
    decoded = _decode(path, data, header)
    if decoded.getexif().get(_ORIENTATION, 1) != 1:
        raise DataError(f"{path}: EXIF orientation {decoded.getexif()[_ORIENTATION]} in a mask; save it upright")
    if colour_map is not None:
        return _ids_of_colours(path, np.asarray(decoded.convert("RGB")), colour_map)
    if header.depth == 16:
        return np.asarray(decoded).astype(np.uint16)
    if header.colour == _GREY and header.depth < 8:
        # Pillow stretches 1, 2 and 4 bits to 0-255: undo it, the ids are the raw values
        return np.array(decoded.convert("L")) // np.uint8(255 // (2**header.depth - 1))
    return np.array(decoded)


def _read_bytes(path: Path) -> bytes:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise DataError(f"{path}: not a regular file")
        if status.st_size > MAX_BYTES:
            raise DataError(f"{path}: {status.st_size} bytes; at most {MAX_BYTES} are read")
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error


def _header(path: Path, data: bytes) -> _Header:
    """The header, once the size is bearable and the structure sound; nothing is decoded before."""
    if data.startswith(_PNG):
        header = _png_header(path, data)
    elif data.startswith(_JPEG):
        header = _jpeg_header(path, data)
    else:
        raise DataError(f"{path}: {'empty file' if not data else 'neither PNG nor JPEG'}")
    width, height = header.width, header.height
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE and width * height <= MAX_PIXELS):
        raise DataError(
            f"{path}: declares {width}x{height} pixels; from 1 to {MAX_SIDE} a side and at most {MAX_PIXELS} are read"
        )
    if header.format == "PNG":
        _check_chunks(path, data, header)
    return header


def _png_header(path: Path, data: bytes) -> _Header:
    if len(data) < 33 or data[8:16] != b"\x00\x00\x00\rIHDR":
        raise DataError(f"{path}: damaged PNG: no header")
    width, height, depth, colour, _, _, interlace = struct.unpack(">IIBBBBB", data[16:29])
    if depth not in (1, 2, 4, 8, 16) or colour not in _CHANNELS:
        raise DataError(f"{path}: damaged PNG: no kind of pixel has depth {depth} and colour type {colour}")
    return _Header("PNG", width, height, depth, colour, interlace != 0)


def _check_chunks(path: Path, data: bytes, header: _Header) -> None:
    """Check order and CRC of every chunk and the number of pixels: Pillow forgives all of these."""
    view, position = memoryview(data), len(_PNG)
    names: list[bytes] = []
    pixels: list[memoryview] = []
    while not names or names[-1] != b"IEND":
        if position + 12 > len(data):
            raise DataError(f"{path}: truncated PNG: ends at byte {len(data)} without its last chunk")
        (length,) = struct.unpack_from(">I", data, position)
        end = position + 12 + length
        if end > len(data):
            raise DataError(f"{path}: truncated PNG: the chunk at byte {position} ends at {end} of {len(data)}")
        if zlib.crc32(view[position + 4 : end - 4]) != struct.unpack_from(">I", data, end - 4)[0]:
            raise DataError(f"{path}: damaged PNG: wrong checksum of the chunk at byte {position}")
        names.append(data[position + 4 : position + 8])
        if names[-1] == b"IDAT":
            pixels.append(view[position + 8 : end - 4])
        position = end
    if b"acTL" in names:
        raise DataError(f"{path}: animated PNG; save one picture")
    if names.count(b"IHDR") != 1 or names.count(b"PLTE") > 1 or b"IDAT" not in names:
        raise DataError(f"{path}: damaged PNG: a chunk is missing or stands twice")
    expected = _pixel_bytes(header)
    found = _inflated_length(path, pixels, expected)
    if found != expected:
        amount = f"{found} instead of" if found < expected else "more than"
        raise DataError(f"{path}: damaged PNG: {amount} {expected} bytes of pixels")


def _pixel_bytes(header: _Header) -> int:
    """The length of a PNG's filtered scanlines, each with one byte for its filter."""
    total = 0
    for x, y, right, down in _ADAM7 if header.interlaced else ((0, 0, 1, 1),):
        width, height = -(-(header.width - x) // right), -(-(header.height - y) // down)
        if width > 0 and height > 0:
            total += height * (1 + (width * _CHANNELS[header.colour] * header.depth + 7) // 8)
    return total


def _inflated_length(path: Path, parts: list[memoryview], expected: int) -> int:
    """The length of a zlib stream in parts, counted a piece at a time and no further than just past `expected`."""
    stream, total = zlib.decompressobj(), 0
    try:
        for part in parts:
            rest: bytes | memoryview = part
            while piece := stream.decompress(rest, _PIECE):
                total += len(piece)
                rest = stream.unconsumed_tail
                if total > expected:
                    return total
    except zlib.error as error:
        raise DataError(f"{path}: damaged PNG: {error}") from error
    return total


def _jpeg_header(path: Path, data: bytes) -> _Header:
    position, frame = 2, None
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:
            position += 1
            continue
        (length,) = struct.unpack_from(">H", data, position + 2)
        if marker in _FRAMES and frame is None and position + 10 <= len(data):
            depth, height, width, channels = struct.unpack_from(">BHHB", data, position + 4)
            frame = _Header("JPEG", width, height, depth, channels, False)
        if marker == 0xDA:
            break
        position += 2 + length
    if frame is None:
        raise DataError(f"{path}: damaged JPEG: no size before the pixels")
    # the end marker of an embedded thumbnail stands before the scan
    if data.find(b"\xff\xd9", position) < 0:
        raise DataError(f"{path}: truncated JPEG: ends at byte {len(data)} without its end marker")
    return frame


def _decode(path: Path, data: bytes, header: _Header) -> Image.Image:
    """Decode, with every failure of the decoder turned into one line that names the file."""
    try:
        image = Image.open(io.BytesIO(data), formats=(header.format,))
        if image.size != (header.width, header.height):
            raise ValueError(f"two sizes, {header.width}x{header.height} and {image.width}x{image.height}")
        image.load()
        image.getexif()
    except MemoryError:
        raise
    except Exception as error:  # Pillow raises a dozen types for damaged files
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path}: damaged {header.format}: {reason}") from error
    return image


def _ids_of_colours(path: Path, image: np.ndarray, colour_map: Mapping[tuple[int, int, int], int]) -> np.ndarray:
    packed = image.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], dtype=np.uint32)
    mask = np.zeros(packed.shape, dtype=np.uint8)
    known = np.zeros(packed.shape, dtype=bool)
    for (red, green, blue), label in colour_map.items():
        here = packed == (red << 16 | green << 8 | blue)
        mask[here] = label
        known |= here
    if not known.all():
        row, column = np.unravel_index(np.argmin(known), known.shape)
        colour = tuple(int(value) for value in image[row, column])
        raise DataError(f"{path}: colour {colour} at pixel (row {row}, column {column}) is not in the colour map")
    return mask
