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


def tiff(
    values: np.ndarray, depth: int, photometric: int, *, order: str = "<", compression: int = 1, rows: int | None = None,
    tile: tuple[int, int] | None = None, more: Sequence[tuple[int, int, Sequence[int]]] = (), pages: int = 1,
) -> bytes:  # fmt: skip
    """A TIFF with the samples (H,W) or (H,W,channels) as they are, in strips of `rows` or in tiles; `more` entries."""
    height, width, channels = (*values.shape, 1)[:3]
    samples = values.reshape(height, width, channels)
    step, across = tile or (rows or height, width)
    full = np.zeros(
        (-(-height // step) * step if tile else height, -(-width // across) * across, channels), values.dtype
    )
    full[:height, :width] = samples
    blocks = [full[y : y + step, x : x + across] for y in range(0, height, step) for x in range(0, width, across)]
    rows_of = [
        b"".join(_packed(row, depth) if depth < 16 else row.astype(f"{order}u2").tobytes() for row in block)
        for block in blocks
    ]
    pieces = [zlib.compress(piece) if compression == 8 else piece for piece in rows_of]
    offsets = [8 + sum(map(len, pieces[:number])) for number in range(len(pieces))]
    lengths = [*map(len, pieces)]
    where = [(322, 4, [across]), (323, 4, [step]), (324, 4, offsets), (325, 4, lengths)]
    strips = [(273, 4, offsets), (278, 4, [step]), (279, 4, lengths)]
    entries = [(256, 4, [width]), (257, 4, [height]), (258, 3, [depth] * channels), (259, 3, [compression]),
               (262, 3, [photometric]), (277, 3, [channels]), *(where if tile else strips)]  # fmt: skip
    entries += [(338, 3, [2])] * (channels in (2, 4)) + [*more]
    return _tiff(
        order, b"".join(pieces), sorted({tag: (tag, kind, list(n)) for tag, kind, n in entries}.values()), pages
    )


def _tiff(order: str, pixels: bytes, entries: list[tuple[int, int, list[int]]], pages: int) -> bytes:
    out = pixels + b"\0" * (len(pixels) % 2)
    links = []
    for _ in range(pages):
        table = b""
        for tag, kind, numbers in entries:
            content = struct.pack(f"{order}{len(numbers)}{'HI'[kind - 3]}", *numbers)
            if len(content) > 4:
                content, out = struct.pack(f"{order}I", 8 + len(out)), out + content + b"\0" * (len(content) % 2)
            table += struct.pack(f"{order}HHI", tag, kind, len(numbers)) + content.ljust(4, b"\0")
        links.append(8 + len(out))
        out += struct.pack(f"{order}H", len(entries)) + table + b"next"
    for here, following in zip(links, [*links[1:], 0], strict=True):
        end = here - 8 + 2 + 12 * len(entries)
        out = out[:end] + struct.pack(f"{order}I", following) + out[end + 4 :]
    return (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", links[0]) + out


def bmp(values: np.ndarray, depth: int, colours: Sequence[Sequence[int]] = (), *, downwards: bool = False) -> bytes:
    """A BMP with indices (H,W) of `depth` bits and their colours, or with colours (H,W,3)."""
    height, width = values.shape[:2]
    rows = [_packed(row[..., ::-1] if row.ndim == 2 else row, min(depth, 8)) for row in values]
    stride = (width * depth + 31) // 32 * 4
    pixels = b"".join(row.ljust(stride, b"\0") for row in (rows if downwards else rows[::-1]))
    table = b"".join(bytes([blue, green, red, 0]) for red, green, blue in colours)
    offset = 54 + len(table)
    head = b"BM" + struct.pack("<IHHI", offset + len(pixels), 0, 0, offset)
    sizes = (40, width, -height if downwards else height, 1, depth, 0, len(pixels), 0, 0, len(colours), 0)
    return head + struct.pack("<IiiHHIIiiII", *sizes) + table + pixels
