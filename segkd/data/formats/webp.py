"""WebP: the kind and size of its one picture. A cut one, or one of two sizes, libwebp refuses by itself."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from segkd.data.formats.header import RGB, RGBA, Header
from segkd.foundation.errors import DataError

_ANIMATED, _ALPHA = 2, 16  # flags of the extended form


def is_webp(data: bytes) -> bool:
    """Whether a file begins as WebP does; others are RIFF files too."""
    return data[:4] == b"RIFF" and data[8:12] == b"WEBP"


def read_header(path: Path, data: bytes) -> Header:
    """What the beginning of a file says."""
    kind = data[12:16]
    if len(data) < 30 or kind not in (b"VP8 ", b"VP8L", b"VP8X"):
        raise DataError(f"{path}: damaged WEBP: no header")
    if kind != b"VP8X":
        return _picture(path, kind, data[20:30])
    flags, width, height = data[20], *(1 + int.from_bytes(data[at : at + 3], "little") for at in (24, 27))
    if flags & _ANIMATED:
        raise DataError(f"{path}: animated WEBP; save one picture")
    # which of the two compressions it has stands before its pixels, behind profile and alpha
    lossless = b"VP8L" in _chunks(data)
    return Header("WEBP", width, height, 8, RGBA if flags & _ALPHA else RGB, lossy=not lossless)


def _chunks(data: bytes) -> Iterator[bytes]:
    """The names of the chunks, as far as the data goes."""
    position = 12
    while position + 8 <= len(data):
        yield data[position : position + 4]
        length = int.from_bytes(data[position + 4 : position + 8], "little")
        position += 8 + length + length % 2


def _picture(path: Path, kind: bytes, content: bytes) -> Header:
    """What a compressed picture says of itself."""
    if kind == b"VP8 " and len(content) >= 10 and content[3:6] == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", content, 6)
        return Header("WEBP", width & 0x3FFF, height & 0x3FFF, 8, RGB, lossy=True)
    if kind == b"VP8L" and len(content) >= 5 and content[0] == 0x2F:
        bits = int.from_bytes(content[1:5], "little")
        width, height, alpha = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF), bits >> 28 & 1
        return Header("WEBP", width, height, 8, RGBA if alpha else RGB)
    raise DataError(f"{path}: damaged WEBP: no header of the picture")
