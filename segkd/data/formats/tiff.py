"""TIFF: one page, of a kind that Pillow reads as it is meant, with all its strips or tiles."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from segkd.data.formats.header import CHANNELS, CMYK, GREY, GREY_ALPHA, PALETTE, RGB, RGBA, Header
from segkd.data.formats.png import inflated_length
from segkd.foundation.errors import DataError

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_BIG = (b"II+\0", b"MM\0+")
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _ORIENTATION, _SAMPLES = 256, 257, 258, 259, 262, 274, 277
_STRIPS, _STRIP_ROWS, _STRIP_BYTES, _PLANAR, _SUBFILE, _FORMAT = 273, 278, 279, 284, 254, 339
_TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES = 322, 323, 324, 325
_NONE, _LZW, _JPEG, _PACKBITS, _DEFLATES = 1, 5, 7, 32773, (8, 32946)
_WHITE_IS_ZERO, _YCBCR = 0, 6
_COLOURS = {(0, 1): GREY, (1, 1): GREY, (0, 2): GREY_ALPHA, (1, 2): GREY_ALPHA, (3, 1): PALETTE, (2, 3): RGB, (2, 4): RGBA,
            (5, 4): CMYK, (_YCBCR, 3): RGB}  # fmt: skip
_Entries = dict[int, tuple[int, int, bytes]]
_TYPES = {1: "B", 3: "H", 4: "I"}
_MOST_PAGES, _MOST_ENTRIES = 64, 4096
_LARGEST_TILE = 1 << 22  # pixels: a tile may be larger than a small image, but not by much


@dataclass(frozen=True)
class TiffHeader(Header):
    """And where its pixels are: `pieces` of (offset, bytes), each of at least and at most so many once it is inflated."""

    pieces: tuple[tuple[int, int], ...] = ()
    inflated: tuple[tuple[int, int], ...] = ()
    compression: int = _NONE


def read_header(path: Path, file: BinaryIO, size: int, bearable: Callable[[Header], None]) -> TiffHeader:
    """What a file of `size` bytes says: its first page may stand anywhere in it. `bearable` raises for one too large."""
    try:
        page = _Page(path, file, size)
        header = page.header()
        bearable(header)
        return replace(header, **page.layout(header))
    except struct.error as error:
        raise DataError(f"{path}: truncated TIFF: its directory does not end before byte {size}") from error


def check(path: Path, data: bytes, header: Header) -> None:
    """Raises DataError for compressed pixels that are too few, too many or damaged, where their compression tells."""
    assert isinstance(header, TiffHeader)
    view = memoryview(data)
    for (offset, length), (least, most) in zip(header.pieces, header.inflated, strict=True):
        if offset + length > len(data):
            raise DataError(f"{path}: truncated TIFF: its pixels end at byte {offset + length} of {len(data)}")
        found = length
        if header.compression in _DEFLATES:
            try:
                found = inflated_length([view[offset : offset + length]], most)
            except zlib.error as error:
                raise DataError(f"{path}: damaged TIFF: {error}") from error
        if header.compression in (_NONE, *_DEFLATES) and not least <= found <= most:
            amount = f"{found} instead of" if found < least else "more than"
            raise DataError(f"{path}: damaged TIFF: {amount} {least if found < least else most} bytes of pixels")


class _Page:
    """The first directory of a file, and a look at those behind it."""

    def __init__(self, path: Path, file: BinaryIO, size: int) -> None:
        self.path, self.file, self.size = path, file, size
        head = self._read(0, 8)
        if head[:4] in _BIG:
            raise DataError(f"{path}: BigTIFF; save it as a plain TIFF or as PNG")
        self.order = "<" if head[:2] == b"II" else ">"
        (first,) = self._unpack("I", head[4:])
        self.entries, following = self._directory(first)
        seen = {first}
        while following:
            if following in seen or len(seen) >= _MOST_PAGES:
                raise DataError(
                    f"{path}: damaged TIFF: its directories run in a circle, or are more than {_MOST_PAGES}"
                )
            seen.add(following)
            other, following = self._directory(following)
            if not self._numbers(_SUBFILE, other, (0,))[0] & 1:  # a smaller copy of the first page is none of its own
                raise DataError(f"{path}: TIFF of several pages; save one picture")

    def header(self) -> TiffHeader:
        """Its size and kind of pixel; where its pixels are, `layout` says."""
        width, height = self._one(_WIDTH), self._one(_HEIGHT)
        samples, photometric = self._one(_SAMPLES, 1), self._one(_PHOTOMETRIC, 1)
        depths, formats = self._numbers(_BITS, default=(1,)), self._numbers(_FORMAT, default=(1,))
        compression, orientation = self._one(_COMPRESSION, _NONE), self._one(_ORIENTATION, 1)
        colour = _COLOURS.get((photometric, samples))
        if set(formats) != {1}:
            raise DataError(f"{self.path}: TIFF of floating or signed numbers; save it in 8 or 16 bits without sign")
        if colour is None or (photometric == _YCBCR and compression != _JPEG):
            kind = f"{samples} channels, colours of kind {photometric}"
            raise DataError(f"{self.path}: TIFF of another kind than grey, RGB or palette ({kind}); save it as PNG")
        if len(set(depths)) != 1 or depths[0] not in ((1, 2, 4, 8, 16) if CHANNELS[colour] == 1 else (8, 16)):
            raise DataError(f"{self.path}: TIFF with {depths[0]} bits a sample; save it in 8 or 16 bits")
        inverted = photometric == _WHITE_IS_ZERO
        if inverted and depths[0] == 16:
            raise DataError(f"{self.path}: TIFF of 16 bits in which 0 is white; save it with 0 for black")
        if compression not in (_NONE, _LZW, _PACKBITS, _JPEG, *_DEFLATES):
            raise DataError(
                f"{self.path}: TIFF of compression {compression}; save it uncompressed, with LZW or deflate"
            )
        return TiffHeader("TIFF", width, height, depths[0], colour, lossy=compression == _JPEG, inverted=inverted,
                          orientation=orientation, compression=compression)  # fmt: skip

    def layout(self, header: TiffHeader) -> dict[str, Any]:
        """The pieces of the pixels, all of them inside the file."""
        tiled, samples = _TILES in self.entries, CHANNELS[header.colour]
        rows = self._one(_TILE_HEIGHT if tiled else _STRIP_ROWS, header.height)
        columns = self._one(_TILE_WIDTH) if tiled else header.width
        least, most = (16, max(_LARGEST_TILE, header.width * header.height)) if tiled else (1, columns * rows)
        if min(columns, rows) < least or columns * rows > most:
            raise DataError(f"{self.path}: damaged TIFF: tiles of {columns}x{rows} pixels")
        rows = rows if tiled else min(rows, header.height)
        planes = samples if self._one(_PLANAR, 1) == 2 else 1
        line = (columns * (samples // planes) * header.depth + 7) // 8
        down, across = -(-header.height // rows), -(-header.width // columns)
        tall = [(min(rows, header.height - rows * number) if not tiled else rows) for number in range(down)]
        inflated = tuple((line * height, line * rows) for height in tall for _ in range(across)) * planes
        offsets = self._numbers(_TILES if tiled else _STRIPS, most=len(inflated))
        lengths = self._numbers(_TILE_BYTES if tiled else _STRIP_BYTES, most=len(inflated))
        if not len(offsets) == len(lengths) == len(inflated):
            found = f"{len(offsets)} pieces of pixels with {len(lengths)} lengths"
            raise DataError(f"{self.path}: damaged TIFF: {found} instead of {len(inflated)}")
        if (last := max(offset + length for offset, length in zip(offsets, lengths, strict=True))) > self.size:
            raise DataError(f"{self.path}: truncated TIFF: its pixels end at byte {last} of {self.size}")
        return {"pieces": tuple(zip(offsets, lengths, strict=True)), "inflated": inflated}

    def _directory(self, offset: int) -> tuple[_Entries, int]:
        """The entries of a directory by their tags, as (type, count, the four bytes), and where the next one is."""
        (count,) = self._unpack("H", self._read(offset, 2))
        if count > _MOST_ENTRIES:
            raise DataError(f"{self.path}: damaged TIFF: a directory of {count} entries")
        data = self._read(offset + 2, 12 * count + 4)
        found: _Entries = {}
        for place in range(count):
            tag, kind, number = self._unpack("HHI", data[12 * place : 12 * place + 8])
            if tag in found:
                raise DataError(f"{self.path}: damaged TIFF: entry {tag} stands twice")
            found[tag] = (kind, number, data[12 * place + 8 : 12 * place + 12])
        return found, self._unpack("I", data[-4:])[0]

    def _numbers(
        self, tag: int, entries: _Entries | None = None, default: tuple[int, ...] | None = None, most: int = 16
    ) -> tuple[int, ...]:
        entries = self.entries if entries is None else entries
        if tag not in entries and default is not None:
            return default
        kind, count, content = entries.get(tag, (0, 0, b""))
        if kind not in _TYPES or not 0 < count <= most:
            raise DataError(f"{self.path}: damaged TIFF: entry {tag} is missing, or not of 1 to {most} whole numbers")
        size = count * struct.calcsize(f"={_TYPES[kind]}")
        if size > 4:
            content = self._read(self._unpack("I", content)[0], size)
        return self._unpack(f"{count}{_TYPES[kind]}", content[:size])

    def _one(self, tag: int, default: int | None = None) -> int:
        return self._numbers(tag, default=None if default is None else (default,))[0]

    def _read(self, offset: int, length: int) -> bytes:
        if offset + length > self.size:
            raise DataError(f"{self.path}: truncated TIFF: ends at byte {self.size}, and goes on at {offset + length}")
        self.file.seek(offset)
        return self.file.read(length)

    def _unpack(self, form: str, content: bytes) -> tuple[int, ...]:
        return struct.unpack(self.order + form, content)
