"""BMP: uncompressed pixels. A cut one, Pillow's decoder refuses by itself."""

from __future__ import annotations

import struct
from pathlib import Path

from segkd.data.formats.header import PALETTE, RGB, Header
from segkd.foundation.errors import DataError

SIGNATURE = b"BM"
_SIZES = (40, 52, 56, 64, 108, 124)  # bytes of the second header's versions
_RAW, _BITFIELDS = 0, 3


def read_header(path: Path, data: bytes) -> Header:
    """What the beginning of a file says."""
    if len(data) < 54 or struct.unpack_from("<I", data, 14)[0] not in _SIZES:
        raise DataError(f"{path}: damaged BMP, or of a rare kind: no header; save it as PNG")
    width, height, _, bits, compression = struct.unpack_from("<iiHHI", data, 18)
    if compression not in (_RAW, _BITFIELDS) or bits not in (1, 4, 8, 24, 32):
        raise DataError(f"{path}: BMP of {bits} bits a pixel and compression {compression}; save it as PNG")
    return Header("BMP", max(width, 0), abs(height), min(bits, 8), PALETTE if bits <= 8 else RGB)
