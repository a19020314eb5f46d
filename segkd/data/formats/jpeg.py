"""JPEG: the size before its pixels, and the marker at its end."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

from segkd.data.formats.header import CMYK, GREY, RGB, Header
from segkd.foundation.errors import DataError

SIGNATURE = b"\xff\xd8\xff"
# start-of-frame markers; C4, C8 and CC share the range and are not frames
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def read_header(path: Path, data: bytes) -> Header:
    """What the beginning of a file says."""
    position, frame = 2, None
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:
            position += 1
            continue
        (length,) = struct.unpack_from(">H", data, position + 2)
        if marker in _FRAMES and frame is None and position + 10 <= len(data):
            depth, height, width, channels = struct.unpack_from(">BHHB", data, position + 4)
            colour = {1: GREY, 4: CMYK}.get(channels, RGB)
            frame = Header("JPEG", width, height, depth, colour, lossy=True)
        if marker == 0xDA:
            break
        position += 2 + length
    if frame is None:
        raise DataError(f"{path}: damaged JPEG: no size before the pixels")
    return replace(frame, body=position)


def check(path: Path, data: bytes, header: Header) -> None:
    """Raises DataError for a file without its end; the end marker of an embedded thumbnail stands before the scan."""
    if data.find(b"\xff\xd9", header.body) < 0:
        raise DataError(f"{path}: truncated JPEG: ends at byte {len(data)} without its end marker")
