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
from tests import pictures
from tests.faults.memory import memory_below
from tests.pictures import (
    GREY,
    IDS,
    PALETTE,
    RGB,
    RGBA,
    chunk,
    drawn,
    encoded,
    overwrite,
    palette,
    photo,
    png,
    with_chunk,
)

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
    "JPEG without height": (declaring(JPEG, 32, 0), "declares"),
    "animated PNG": (animated("PNG"), "animated"),
    "animated GIF": (animated("GIF"), "neither PNG nor JPEG"),
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
            assert isinstance(line, str) and (words in line or "JPEG mask" in line), line
        row.count()


def levels(depth: int) -> np.ndarray:
    """All ids that so many bits can hold, and the same as the grey levels that they look like."""
    return (np.arange(9 * 13) % min(1 << depth, 200)).reshape(9, 13)


def looks(grey: np.ndarray) -> np.ndarray:
    return grey[..., None].repeat(3, 2).astype(np.uint8)


def exif(picture: np.ndarray, orientation: int, format: str = "PNG") -> bytes:
    turned = Image.Exif()
    turned[0x0112] = orientation
    return encoded(picture, format, exif=turned)


def xmp(orientation: int) -> bytes:
    text = f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="{orientation}"/></x:xmpmeta>'
    return chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + text.encode())


Outcome = np.ndarray | str
RGB8, GREY8 = photo(9, 13), photo(9, 13)[..., 0]
RGB16 = RGB8.astype(np.uint16) * 257 + 1
TURNED, ALPHA, COLOURED = "EXIF orientation", "alpha channel or 16-bit colours", "RGB mask"
WRITTEN_BY_OTHERS = "neither PNG nor JPEG"
SHUFFLED = np.random.default_rng(2).integers(0, 256, (200, 3), dtype=np.uint8)
TWINS = np.full((200, 3), 7)  # all ids look alike
CMYK = encoded(Image.fromarray(RGB8).convert("CMYK"), "JPEG")

# What a kind of file is, and what it is as a mask and as an image.
KINDS: dict[str, tuple[bytes, Outcome, Outcome]] = {
    **{f"grey, {depth} bits": (drawn(levels(depth), depth, GREY), levels(depth), looks(levels(depth) * (255 // (2**depth - 1))))
       for depth in (1, 2, 4, 8)},
    **{f"palette, {depth} bits": (
        drawn(levels(depth), depth, PALETTE, before=palette(SHUFFLED[: 1 << depth])), levels(depth), SHUFFLED[levels(depth)]
    ) for depth in (1, 2, 4, 8)},
    "grey, 16 bits": (drawn(levels(8) * 300, 16, GREY), levels(8) * 300, looks(levels(8) * 300 >> 8)),
    "grey, 16 bits, small ids": (drawn(levels(4), 16, GREY), levels(4), looks(levels(4) * 0)),
    "palette of twins": (drawn(levels(8), 8, PALETTE, before=palette(TWINS)), levels(8), TWINS[levels(8)]),
    "palette with transparency": (
        drawn(levels(8), 8, PALETTE, before=palette(SHUFFLED) + chunk(b"tRNS", bytes(200))), levels(8), SHUFFLED[levels(8)]
    ),
    "palette by Pillow": (encoded(Image.fromarray(levels(4).astype(np.uint8)).convert("P")), levels(4), looks(levels(4))),
    **{f"grey with transparency, {depth} bits": (
        drawn(levels(depth), depth, GREY, before=chunk(b"tRNS", b"\0\1")), levels(depth), looks(levels(depth) * (255 // (2**depth - 1)))
    ) for depth in (1, 2, 4, 8)},
    "grey with transparency, 16 bits": (
        drawn(levels(8) * 300, 16, GREY, before=chunk(b"tRNS", b"\0\1")), levels(8) * 300, looks(levels(8) * 300 >> 8)
    ),
    "grey with gamma": (drawn(levels(8), 8, GREY, before=chunk(b"gAMA", struct.pack(">I", 200_000))), levels(8), looks(levels(8))),
    "grey with few significant bits": (drawn(levels(8), 8, GREY, before=chunk(b"sBIT", b"\3")), levels(8), looks(levels(8))),
    "grey with a background": (drawn(levels(8), 8, GREY, before=chunk(b"bKGD", b"\0\7")), levels(8), looks(levels(8))),
    **{f"interlaced grey, {width}x{height}": (
        drawn(levels(8)[:height, :width], 8, GREY, interlaced=True), levels(8)[:height, :width], looks(levels(8)[:height, :width])
    ) for width, height in ((1, 1), (2, 1), (5, 3), (13, 9))},
    "interlaced grey, 2 bits": (drawn(levels(2), 2, GREY, interlaced=True), levels(2), looks(levels(2) * 85)),
    "interlaced grey, 16 bits": (drawn(levels(8) * 300, 16, GREY, interlaced=True), levels(8) * 300, looks(levels(8) * 300 >> 8)),
    "interlaced palette": (
        drawn(levels(4), 4, PALETTE, before=palette(SHUFFLED[:16]), interlaced=True), levels(4), SHUFFLED[levels(4)]
    ),
    "RGB": (drawn(RGB8, 8, RGB), COLOURED, RGB8),
    "RGB that looks grey": (drawn(looks(levels(8)), 8, RGB), COLOURED, looks(levels(8))),
    "RGB, 16 bits": (drawn(RGB16, 16, RGB), COLOURED, RGB8),
    "RGB with transparency": (drawn(RGB8, 8, RGB, before=chunk(b"tRNS", bytes(6))), COLOURED, RGB8),
    "interlaced RGB": (drawn(RGB8, 8, RGB, interlaced=True), COLOURED, RGB8),
    "RGBA": (drawn(np.dstack([RGB8, GREY8]), 8, RGBA), ALPHA, RGB8),
    "RGBA, 16 bits": (drawn(np.dstack([RGB16, RGB16[..., 0]]), 16, RGBA), ALPHA, RGB8),
    "grey and alpha": (drawn(np.dstack([GREY8, GREY8]), 8, pictures.GREY_ALPHA), ALPHA, looks(GREY8)),
    "grey and alpha, 16 bits": (drawn(np.dstack([RGB16[..., 0]] * 2), 16, pictures.GREY_ALPHA), ALPHA, looks(GREY8)),
    "JPEG in grey": (encoded(looks(GREY8)[..., 0], "JPEG", quality=100), "JPEG mask", looks(GREY8)),
    "JPEG in CMYK": (CMYK, "JPEG mask", "CMYK"),
    "JPEG in YCCK": (CMYK.replace(b"Adobe\0d\0\0\0\0\0", b"Adobe\0d\0\0\0\0\2"), "JPEG mask", "CMYK"),
    **{f"JPEG turned {turn}": (exif(RGB8, turn, "JPEG"), "JPEG mask", TURNED) for turn in range(2, 9)},
    **{f"turned {turn}": (exif(levels(8).astype(np.uint8), turn), TURNED, TURNED) for turn in range(2, 9)},
    **{f"turned {turn}, which is no turn": (exif(levels(8).astype(np.uint8), turn), TURNED, TURNED) for turn in (0, 9)},
    "upright": (exif(levels(8).astype(np.uint8), 1), levels(8), looks(levels(8))),
    "turned by XMP": (drawn(levels(8), 8, GREY, before=xmp(6)), TURNED, TURNED),
    **{f"{format} file": (encoded(levels(8).astype(np.uint8), format), WRITTEN_BY_OTHERS, WRITTEN_BY_OTHERS)
       for format in ("GIF", "BMP", "TIFF", "WEBP", "PPM")},
    "no pixel kind": (png(2, 2, 3, GREY, bytes(10)), "depth 3", "depth 3"),
    "palette without colours": (drawn(levels(4), 4, PALETTE), "a chunk is missing", "a chunk is missing"),
    "palette of too few colours": (
        drawn(levels(4), 4, PALETTE, before=palette(SHUFFLED[:9])), levels(4), "pixels of colour 15, but a palette of 9"
    ),
}  # fmt: skip
NAMES = (
    "mask.PNG", "mask.jpg", "mask.jpeg.txt", "mask", ".png", "a mask.png", "mask .png", "übung.png", "маска.png", "-rf.png", "%s%n.png",
    "100%.png", "{0}.png", "[a].png", "a'b\"c.png", "*.png", "x" * 240 + ".png", "two\nlines.png",
)  # fmt: skip


def comes_out(found: Outcome, expected: Outcome) -> None:
    if isinstance(expected, str):
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
