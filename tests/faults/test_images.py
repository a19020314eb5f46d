"""Rows I1-2, I3 and I4: damaged, huge and odd image files give their own pixels or an error with their name."""

import io
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segkd.data.images import read_image, read_mask
from segkd.foundation.errors import DataError
from tests.faults.kinds import KINDS, Outcome, looks
from tests.pictures import (
    GREY,
    IDS,
    PALETTE,
    RGB,
    RGBA,
    bmp,
    chunk,
    drawn,
    encoded,
    overwrite,
    palette,
    photo,
    png,
    tiff,
    with_chunk,
)
from tests.work import memory_below

Reader = Callable[[Path], np.ndarray]
COLOURS = np.random.default_rng(1).integers(0, 256, (16, 3), dtype=np.uint8)
WIDE = IDS.astype(np.uint16) * 500 + 3


def read_or_refused(read: Reader, path: Path) -> np.ndarray | str:
    """The array, or the one line of a refusal, which names the file."""
    try:
        return read(path)
    except DataError as error:
        assert error.exit_code == 3 and str(error).startswith(f"{path}: ")
        return str(error)


@pytest.fixture
def slot(tmp_path: Path) -> Path:
    """One file for all faults."""
    return tmp_path / "file.png"


def fuzzed(data: bytes, generator: np.random.Generator) -> bytes:
    """One random fault: a flipped bit, a cut, a stretch of zeros, or a stretch that stands twice."""
    first, second = sorted(int(value) for value in generator.integers(0, len(data) + 1, 2))
    match generator.integers(4):
        case 0:
            damaged = bytearray(data)
            damaged[min(first, len(data) - 1)] ^= 1 << int(generator.integers(8))
            return bytes(damaged)
        case 1:
            return data[:first]
        case 2:
            return data[:first] + bytes(second - first) + data[second:]
        case _:
            return data[:second] + data[first:]


MASKS = [
    (encoded(IDS), IDS), (encoded(WIDE), WIDE), (drawn(IDS, 4, PALETTE, before=palette(COLOURS)), IDS),
    (drawn(IDS, 4, GREY), IDS), (drawn(IDS, 8, GREY, interlaced=True), IDS),
]  # fmt: skip
IMAGES = [
    (encoded(photo()), photo()), (drawn(photo(), 8, RGB, interlaced=True), photo()),
    (encoded(np.dstack([photo(), photo()[..., 0]])), photo()), (encoded(photo()[..., :1].repeat(3, 2)), photo()[..., :1].repeat(3, 2)),
    (drawn(IDS, 4, PALETTE, before=palette(COLOURS)), COLOURS[IDS]),
]  # fmt: skip


@pytest.mark.row("I1-2", 10_000)
@pytest.mark.parametrize(("read", "sources"), [(read_mask, MASKS), (read_image, IMAGES)], ids=["masks", "images"])
def test_a_damaged_png_gives_its_pixels_or_is_refused(row, slot: Path, read: Reader, sources: list):
    generator = np.random.default_rng(0)
    refusals = 0
    for fault in row:
        data, expected = sources[fault % len(sources)]
        found = read_or_refused(read, overwrite(slot, fuzzed(data, generator)))
        refusals += isinstance(found, str)
        assert isinstance(found, str) or (found.dtype == expected.dtype and np.array_equal(found, expected))
    assert refusals > 0.8 * row.n


@pytest.mark.row("I1-2", 2_000)
def test_a_damaged_jpeg_is_an_image_of_its_size_or_refused(row, slot: Path):
    """JPEG has no checksum, so that no reader can tell a flipped bit from another picture: beyond the row's 20,000."""
    generator = np.random.default_rng(0)
    sources = [encoded(photo(), "JPEG"), encoded(photo(), "JPEG", progressive=True)]
    refusals = 0
    for fault in row:
        data = fuzzed(sources[fault % 2], generator)
        found = read_or_refused(read_image, overwrite(slot, data))
        refusals += isinstance(found, str)
        if not isinstance(found, str):
            frame = re.search(rb"\xff[\xc0-\xc2]..\x08(....)", data, re.DOTALL)
            assert found.dtype == np.uint8 and found.shape == (*struct.unpack(">HH", frame[1]), 3)
    assert refusals > row.n / 3


FORMATS = {
    "TIFF": [tiff(IDS, 8, 1, compression=8, rows=4), tiff(photo(), 8, 2), tiff(IDS, 8, 1, tile=(16, 16)), tiff(WIDE, 16, 1, order=">"),
             encoded(photo(), "TIFF", compression="tiff_lzw"), encoded(photo(), "TIFF", compression="jpeg")],
    "BMP": [bmp(IDS, 8, COLOURS), bmp(photo(), 24), bmp(IDS % 2, 1, [(0, 0, 0), (255, 255, 255)])],
    "WebP": [encoded(photo(), "WEBP"), encoded(photo(), "WEBP", lossless=True),
             encoded(np.dstack([photo(), photo()[..., 0]]), "WEBP", lossless=True)],
}  # fmt: skip


@pytest.mark.row("I1-2", 600)
@pytest.mark.parametrize("read", [read_mask, read_image], ids=["masks", "images"])
@pytest.mark.parametrize("format", FORMATS)
def test_a_damaged_file_of_another_format_has_its_size_or_is_refused(row, slot: Path, read: Reader, format: str):
    """These have no checksum either (but for deflate in TIFF): beyond the row's 20,000."""
    generator = np.random.default_rng(0)
    for fault in row:
        found = read_or_refused(read, overwrite(slot, fuzzed(FORMATS[format][fault % len(FORMATS[format])], generator)))
        assert isinstance(found, str) or (found.dtype in (np.uint8, np.uint16) and 0 < found.size < 1 << 22)


ZEROS = zlib.compress(bytes(100_000_000), 1)
JPEG = encoded(photo(), "JPEG")
PROGRESSIVE = encoded(photo(), "JPEG", progressive=True)


def declaring(jpeg: bytes, width: int, height: int) -> bytes:
    """The JPEG with another size in its header."""
    at = re.search(rb"\xff[\xc0-\xc2]", jpeg).start()
    return jpeg[: at + 5] + struct.pack(">HH", height, width) + jpeg[at + 9 :]


def animated(format: str) -> bytes:
    frames = [Image.fromarray(photo()), Image.fromarray(photo()[::-1].copy())]
    buffer = io.BytesIO()
    frames[0].save(buffer, format, save_all=True, append_images=frames[1:])
    return buffer.getvalue()


def declaring_tiff(width: int, height: int) -> bytes:
    return tiff(IDS, 8, 1, more=[(256, 4, [width]), (257, 4, [height])])


def inflating_tiff() -> bytes:
    """Nearly a hundred megabytes of zeros in the one strip of 13x11 pixels."""
    data = tiff(IDS, 8, 1, more=[(259, 3, [8]), (273, 4, [1000]), (279, 4, [len(ZEROS)])])
    return data.ljust(1000, b"\0") + ZEROS


def circular_tiff() -> bytes:
    data = tiff(IDS, 8, 1, more=[(254, 4, [1])])
    return data[:-4] + data[4:8]  # the next directory is this one


def extended_webp(width: int, height: int) -> bytes:
    data = encoded(np.dstack([photo(), photo()[..., 0]]), "WEBP")
    return data[:24] + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little") + data[30:]


def texts(name: bytes, before: bytes) -> bytes:
    """Sixty texts of a megabyte each, as chunks of a kilobyte."""
    return b"".join(chunk(name, b"key%d" % i + before + zlib.compress(bytes(999_000), 9)) for i in range(60))


BOMBS = {
    **{f"{width}x{height}": (png(width, height, 8, GREY, bytes(10)), "declares") for width, height in (
        (20_000, 20_000), (65_535, 1), (1, 65_535), (0, 5), (5, 0), (10**9, 10**9), (2**31 - 1, 1), (8_001, 8_000)
    )},
    "interlaced": (png(20_000, 20_000, 8, GREY, bytes(10), interlaced=True), "declares"),
    "16-bit RGBA": (png(20_000, 20_000, 16, RGBA, bytes(10)), "declares"),
    "JPEG": (declaring(JPEG, 60_000, 60_000), "declares"),
    "progressive JPEG": (declaring(PROGRESSIVE, 60_000, 60_000), "declares"),
    "JPEG without height": (declaring(JPEG, 32, 0), "no size"),
    "animated PNG": (animated("PNG"), "animated"),
    "animated GIF": (animated("GIF"), "neither PNG nor JPEG"),
    "animated WebP": (animated("WEBP"), "animated"),
    "TIFF of pages": (animated("TIFF"), "several pages"),
    **{f"TIFF {width}x{height}": (declaring_tiff(width, height), "declares") for width, height in (
        (20_000, 20_000), (65_535, 1), (0, 5), (2**32 - 1, 2**32 - 1))},
    "TIFF of a huge tile": (tiff(IDS, 8, 1, more=[(322, 4, [60_000]), (323, 4, [60_000]), (324, 4, [8]), (325, 4, [9])]), "tiles of"),
    "TIFF of tiny tiles": (tiff(IDS, 8, 1, more=[(322, 4, [1]), (323, 4, [1]), (324, 4, [8]), (325, 4, [9])]), "tiles of"),
    "TIFF that inflates": (inflating_tiff(), "more than 143 bytes of pixels"),
    "TIFF in a circle": (circular_tiff(), "in a circle"),
    "BMP": (bmp(IDS, 8, COLOURS)[:18] + struct.pack("<ii", 20_000, 20_000) + bmp(IDS, 8, COLOURS)[26:], "declares"),
    "WebP": (extended_webp(16_384, 16_384), "declares"),
    "pixels": (with_chunk(png(8, 8, 8, GREY, b""), chunk(b"IDAT", ZEROS)), "more than 72 bytes of pixels"),
    "text": (with_chunk(encoded(IDS), chunk(b"zTXt", b"key\0\0" + ZEROS)), "text"),
    "international text": (with_chunk(encoded(IDS), chunk(b"iTXt", b"key\0\1\0\0\0" + ZEROS)), "text"),
    "profile": (with_chunk(encoded(IDS), chunk(b"iCCP", b"key\0\0" + ZEROS)), "text"),
    "many texts": (with_chunk(encoded(IDS), texts(b"zTXt", b"\0\0")), "text"),
    "many international texts": (with_chunk(encoded(IDS), texts(b"iTXt", b"\0\1\0\0\0")), "text"),
    "many texts behind the pixels": (encoded(IDS)[:-12] + texts(b"zTXt", b"\0\0") + encoded(IDS)[-12:], "text"),
}  # fmt: skip
LARGE = {
    "a large file": (b"", "neither PNG nor JPEG"),
    "a small PNG in a large file": (encoded(IDS), "400000000 bytes for 13x11 pixels"),
    "a large PNG in a large file": (png(20_000, 20_000, 8, GREY, bytes(10)), "declares"),
    "a small JPEG in a large file": (JPEG, "400000000 bytes for 32x24 pixels"),
    "a small TIFF in a large file": (tiff(IDS, 8, 1), "400000000 bytes for 13x11 pixels"),
    "a small BMP in a large file": (bmp(IDS, 8, COLOURS), "400000000 bytes for 13x11 pixels"),
    "a small WebP in a large file": (encoded(photo(), "WEBP", lossless=True), "400000000 bytes for 32x24 pixels"),
}


def bombs(folder: Path) -> Iterator[tuple[Path, str]]:
    for number, (data, words) in enumerate((*BOMBS.values(), *LARGE.values())):
        path = folder / f"{number}.png"
        path.write_bytes(data)
        if number >= len(BOMBS):
            with path.open("r+b") as file:
                file.truncate(400_000_000)  # a hole: nothing of it is on the disk
        yield path, words


@pytest.mark.row("I3", len(BOMBS) + len(LARGE))
def test_a_bomb_is_refused_from_its_header(row, tmp_path: Path):
    for path, words in bombs(tmp_path):
        for read in (read_mask, read_image):
            with memory_below(50):
                line = read_or_refused(read, path)
            assert isinstance(line, str) and words in line, line
        row.count()


NAMES = (
    "mask.PNG", "mask.jpg", "mask.jpeg.txt", "mask", ".png", "a mask.png", "mask .png", "übung.png", "маска.png", "-rf.png", "%s%n.png",
    "100%.png", "{0}.png", "[a].png", "a'b\"c.png", "*.png", "x" * 240 + ".png", "two\nlines.png",
)  # fmt: skip


def comes_out(found: np.ndarray | str, expected: Outcome) -> None:
    if expected is None:
        assert not isinstance(found, str) and found.shape == (9, 13, 3), found
    elif isinstance(expected, str):
        assert isinstance(found, str) and expected in found, found
    else:
        assert not isinstance(found, str), found
        assert np.array_equal(found, expected)


@pytest.mark.row("I4", len(KINDS) + len(NAMES))
def test_each_kind_gives_its_own_ids_or_is_refused(row, slot: Path, tmp_path: Path):
    for name, (data, mask, image) in KINDS.items():
        overwrite(slot, data)
        for read, expected in ((read_mask, mask), (read_image, image)):
            found = read_or_refused(read, slot)
            try:
                comes_out(found, expected)
            except AssertionError as error:
                raise AssertionError(f"{name}: {read.__name__}") from error
        row.count()
    for name in NAMES:
        (tmp_path / name).write_bytes(encoded(IDS))
        comes_out(read_or_refused(read_mask, tmp_path / name), IDS)
        comes_out(read_or_refused(read_image, tmp_path / name), looks(IDS))
        row.count()
