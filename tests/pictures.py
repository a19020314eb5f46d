"""Image files by hand: every kind of PNG, chunk by chunk, and what Pillow writes."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6
CHANNELS = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGBA: 4}
IDS = (np.arange(11 * 13, dtype=np.uint8) % 11).reshape(11, 13)
PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""Of an interlaced PNG: first column, first row, step right, step down."""


def photo(height: int = 24, width: int = 32) -> np.ndarray:
    """A smooth colour picture (H,W,3) uint8, so that JPEG keeps it nearly as it is."""
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([rows * 5, columns * 5, rows * 2 + columns * 3], axis=2).astype(np.uint8)


def encoded(picture: np.ndarray | Image.Image, format: str = "PNG", **options: object) -> bytes:
    """The bytes of a file as Pillow writes it."""
    buffer = io.BytesIO()
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    image.save(buffer, format, **options)
    return buffer.getvalue()


def chunk(name: bytes, content: bytes) -> bytes:
    """A chunk of a PNG with its length and checksum."""
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(
    width: int, height: int, depth: int, colour: int, rows: bytes, *, before: bytes = b"", interlaced: bool = False
) -> bytes:
    """A PNG from scratch: `rows` are the filtered scanlines, `before` further chunks."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced))
    pixels = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + header + before + pixels + chunk(b"IEND", b"")


def drawn(values: np.ndarray, depth: int, colour: int, *, before: bytes = b"", interlaced: bool = False) -> bytes:
    """A PNG with the samples (H,W) or (H,W,channels) as they are, each of `depth` bits."""
    height, width = values.shape[:2]
    samples = values.reshape(height, width, CHANNELS[colour])
    passes = PASSES if interlaced else ((0, 0, 1, 1),)
    parts = (samples[y::down, x::right] for x, y, right, down in passes)
    rows = b"".join(b"\x00" + _packed(row, depth) for part in parts if part.size for row in part)
    return png(width, height, depth, colour, rows, before=before, interlaced=interlaced)


def _packed(row: np.ndarray, depth: int) -> bytes:
    if depth >= 8:
        return row.astype(f">u{depth // 8}").tobytes()
    bits = np.unpackbits(row.astype(np.uint8).reshape(-1, 1), axis=1)[:, -depth:]
    return np.packbits(bits.reshape(-1)).tobytes()


def palette(colours: Sequence[Sequence[int]]) -> bytes:
    """The chunk that holds a palette."""
    return chunk(b"PLTE", bytes(value for colour in colours for value in colour))


def overwrite(path: Path, data: bytes) -> Path:
    """Other bytes for a file, in place: emptying it first, as `write_bytes` does, makes some file systems wait for the disk."""
    with path.open("r+b" if path.exists() else "wb") as file:
        file.write(data)
        file.truncate()
    return path


def with_chunk(data: bytes, extra: bytes) -> bytes:
    """A PNG with further chunks behind its header."""
    return data[:33] + extra + data[33:]
