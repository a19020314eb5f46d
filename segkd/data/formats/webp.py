"""WebP: whole chunks, one picture."""

from __future__ import annotations

import struct
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
    lossless = b"VP8L" in (name for name, _, _ in _chunks(path, data, len(data)))
    return Header("WEBP", width, height, 8, RGBA if flags & _ALPHA else RGB, lossy=not lossless)


def check(path: Path, data: bytes, header: Header) -> None:
    """Raises DataError where a chunk is cut, or there is not one picture of the size that the header says."""
    (declared,) = struct.unpack_from("<I", data, 4)
    if declared + 8 > len(data):
        raise DataError(f"{path}: truncated WEBP: ends at byte {len(data)} of {declared + 8}")
    found = list(_chunks(path, data, declared + 8))
    if any(name in (b"ANIM", b"ANMF") for name, _, _ in found):
        raise DataError(f"{path}: animated WEBP; save one picture")
    if (last := found[-1][2]) > len(data):
        raise DataError(f"{path}: truncated WEBP: its last chunk ends at {last} of {len(data)}")
    pictures = [(name, at) for name, at, _ in found if name in (b"VP8 ", b"VP8L")]
    if len(pictures) != 1:
        raise DataError(f"{path}: damaged WEBP: {len(pictures)} pictures in it")
    name, at = pictures[0]
    inner = _picture(path, name, data[at : at + 10])
    if (inner.width, inner.height, inner.lossy) != (header.width, header.height, header.lossy):
        sizes = f"{header.width}x{header.height} and {inner.width}x{inner.height}"
        raise DataError(f"{path}: damaged WEBP: two sizes, {sizes}")


def _chunks(path: Path, data: bytes, end: int) -> list[tuple[bytes, int, int]]:
    """Name, begin and end of the content of each chunk, as far as `end`; the last may end behind it."""
    found, position = [], 12
    while position + 8 <= end:
        (length,) = struct.unpack_from("<I", data, position + 4)
        found.append((data[position : position + 4], position + 8, position + 8 + length))
        position += 8 + length + length % 2
    if not found:
        raise DataError(f"{path}: damaged WEBP: no picture in it")
    return found


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
