"""The bytes of an image file, once its header is bearable and its structure sound; nothing is decoded here.

Pillow forgives most of what is checked: wrong checksums, missing rows, chunks that stand twice, texts without end.
"""

from __future__ import annotations

import contextlib
import stat
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from segkd.foundation.errors import DataError

GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6
"""PNG's colour types."""

MAX_PIXELS = 64_000_000
MAX_SIDE = 32_768
MAX_EXTRA = 1 << 24
"""Bytes of a file beside its pixels, and of its compressed texts and profiles once they are inflated."""

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
_CHANNELS = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGBA: 4}
# the passes of an interlaced PNG: first column, first row, step right, step down
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_MOST_BYTES_A_PIXEL = 8  # RGBA with 16 bits each
_PIECE = 1 << 18
_ZIPPED = (b"zTXt", b"iTXt", b"iCCP")
# start-of-frame markers of JPEG; C4, C8 and CC share the range and are not frames
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


@dataclass(frozen=True)
class Header:
    """What an image file declares: `format` PNG or JPEG, bits a sample, PNG's colour type; where a JPEG's pixels begin."""

    format: str
    width: int
    height: int
    depth: int
    colour: int
    interlaced: bool = False
    body: int = 0


def read_checked(path: Path) -> tuple[bytes, Header]:
    """The bytes of a file whose size is bearable and whose structure is sound, and what its header says.

    Of a file whose header promises too much, or less than the file holds, no more than the beginning is read.

    Raises:
        DataError: missing, not PNG or JPEG, too large, damaged or animated; with the path.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise DataError(f"{path}: not a regular file")
        with path.open("rb") as file:
            beginning = file.read(MAX_EXTRA)
            header = _header(path, beginning)
            most = _MOST_BYTES_A_PIXEL * header.width * header.height + MAX_EXTRA
            if status.st_size > most:
                size = f"{status.st_size} bytes for {header.width}x{header.height} pixels"
                raise DataError(f"{path}: {size}; at most {most} are read")
            data = beginning + file.read(most)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    if header.format == "PNG":
        _check_chunks(path, data, header)
    # the end marker of an embedded thumbnail stands before the scan
    elif data.find(b"\xff\xd9", header.body) < 0:
        raise DataError(f"{path}: truncated JPEG: ends at byte {len(data)} without its end marker")
    return data, header


def _header(path: Path, data: bytes) -> Header:
    """What the beginning of a file says, once the size that it declares is bearable."""
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
    return header


def _png_header(path: Path, data: bytes) -> Header:
    if len(data) < 33 or data[8:16] != b"\x00\x00\x00\rIHDR":
        raise DataError(f"{path}: damaged PNG: no header")
    width, height, depth, colour, _, _, interlace = struct.unpack(">IIBBBBB", data[16:29])
    if depth not in (1, 2, 4, 8, 16) or colour not in _CHANNELS:
        raise DataError(f"{path}: damaged PNG: no kind of pixel has depth {depth} and colour type {colour}")
    return Header("PNG", width, height, depth, colour, interlace != 0)


def _check_chunks(path: Path, data: bytes, header: Header) -> None:
    """Check order and CRC of every chunk and the number of pixels: Pillow forgives all of these."""
    view, position = memoryview(data), len(_PNG)
    names: list[bytes] = []
    pixels: list[memoryview] = []
    texts: list[bytes] = []
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
        elif names[-1] in _ZIPPED:
            texts.append(_zipped(names[-1], bytes(view[position + 8 : end - 4])))
        position = end
    if b"acTL" in names:
        raise DataError(f"{path}: animated PNG; save one picture")
    colours = range(header.colour == PALETTE, 2)
    if names.count(b"IHDR") != 1 or names.count(b"PLTE") not in colours or b"IDAT" not in names:
        raise DataError(f"{path}: damaged PNG: a chunk is missing or stands twice")
    _check_texts(path, texts)
    expected = _pixel_bytes(header)
    try:
        found = _inflated_length(pixels, expected)
    except zlib.error as error:
        raise DataError(f"{path}: damaged PNG: {error}") from error
    if found != expected:
        amount = f"{found} instead of" if found < expected else "more than"
        raise DataError(f"{path}: damaged PNG: {amount} {expected} bytes of pixels")


def _pixel_bytes(header: Header) -> int:
    """The length of a PNG's filtered scanlines, each with one byte for its filter."""
    total = 0
    for x, y, right, down in _ADAM7 if header.interlaced else ((0, 0, 1, 1),):
        width, height = -(-(header.width - x) // right), -(-(header.height - y) // down)
        if width > 0 and height > 0:
            total += height * (1 + (width * _CHANNELS[header.colour] * header.depth + 7) // 8)
    return total


def _zipped(name: bytes, content: bytes) -> bytes:
    """The zlib stream in a chunk of text, or with a profile, which has its own name before it."""
    after = content.partition(b"\0")[2]
    if name != b"iTXt":
        return after[1:]  # behind the kind of compression, of which there is one
    return after[2:].split(b"\0", 2)[-1] if after[:1] == b"\1" else b""


def _check_texts(path: Path, texts: list[bytes]) -> None:
    """Each may be short: it is their sum that Pillow would keep."""
    left = MAX_EXTRA
    for text in texts:
        with contextlib.suppress(zlib.error):  # Pillow leaves out what it cannot inflate
            left -= _inflated_length([text], left)
        if left < 0:
            raise DataError(f"{path}: its texts and profiles inflate to more than {MAX_EXTRA} bytes")


def _inflated_length(parts: Sequence[bytes | memoryview], expected: int) -> int:
    """The length of a zlib stream in parts, counted a piece at a time and no further than just past `expected`."""
    stream, total = zlib.decompressobj(), 0
    for part in parts:
        rest = part
        while piece := stream.decompress(rest, _PIECE):
            total += len(piece)
            rest = stream.unconsumed_tail
            if total > expected:
                return total
    return total


def _jpeg_header(path: Path, data: bytes) -> Header:
    position, frame = 2, None
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:
            position += 1
            continue
        (length,) = struct.unpack_from(">H", data, position + 2)
        if marker in _FRAMES and frame is None and position + 10 <= len(data):
            depth, height, width, channels = struct.unpack_from(">BHHB", data, position + 4)
            frame = Header("JPEG", width, height, depth, channels)
        if marker == 0xDA:
            break
        position += 2 + length
    if frame is None:
        raise DataError(f"{path}: damaged JPEG: no size before the pixels")
    return replace(frame, body=position)
