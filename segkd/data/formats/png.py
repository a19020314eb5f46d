"""PNG: order and checksums of its chunks, the number of its pixels, and what its texts inflate to."""

from __future__ import annotations

import contextlib
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

from segkd.data.formats.header import CHANNELS, GREY, GREY_ALPHA, MAX_EXTRA, PALETTE, RGB, RGBA, Header
from segkd.foundation.errors import DataError

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOURS = (GREY, RGB, PALETTE, GREY_ALPHA, RGBA)
# the passes of an interlaced picture: first column, first row, step right, step down
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_PIECE = 1 << 18
_ZIPPED = (b"zTXt", b"iTXt", b"iCCP")


def read_header(path: Path, data: bytes) -> Header:
    """What the beginning of a file says."""
    if len(data) < 33 or data[8:16] != b"\x00\x00\x00\rIHDR":
        raise DataError(f"{path}: damaged PNG: no header")
    width, height, depth, colour, _, _, interlace = struct.unpack(">IIBBBBB", data[16:29])
    if depth not in (1, 2, 4, 8, 16) or colour not in _COLOURS:
        raise DataError(f"{path}: damaged PNG: no kind of pixel has depth {depth} and colour type {colour}")
    return Header("PNG", width, height, depth, colour, interlace != 0)


def check(path: Path, data: bytes, header: Header) -> None:
    """Check order and CRC of every chunk and the number of pixels: Pillow forgives all of these."""
    view, position = memoryview(data), len(SIGNATURE)
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
        found = inflated_length(pixels, expected)
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
            total += height * (1 + (width * CHANNELS[header.colour] * header.depth + 7) // 8)
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
            left -= inflated_length([text], left)
        if left < 0:
            raise DataError(f"{path}: its texts and profiles inflate to more than {MAX_EXTRA} bytes")


def inflated_length(parts: Sequence[bytes | memoryview], expected: int) -> int:
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
