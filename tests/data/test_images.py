"""Tests of segkd.data.images: right pixels or an error with the file's name, never other pixels."""

import io
import os
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segkd.data.images import read_image, read_mask
from segkd.foundation import audit
from segkd.foundation.errors import DataError

IDS = (np.arange(11 * 13, dtype=np.uint8) % 11).reshape(11, 13)


def photo(height: int = 24, width: int = 32) -> np.ndarray:
    """A smooth colour picture, so that JPEG keeps it nearly as it is."""
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([rows * 5, columns * 5, rows * 2 + columns * 3], axis=2).astype(np.uint8)


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *, before: bytes = b"") -> bytes:
    """A PNG from scratch: `rows` are the filtered scanlines, `before` further chunks."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + header + before + pixels + chunk(b"IEND", b"")


def encoded(array: np.ndarray, format: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format, **options)
    return buffer.getvalue()


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def _write(data: bytes, name: str = "file.png") -> Path:
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return _write


def refused(read: Callable[[Path], np.ndarray], path: Path, words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@contextmanager
def memory_below(limit: int) -> Iterator[None]:
    """Fail when the process's peak memory grows by more than `limit` megabytes; measured on Linux only."""

    def kilobytes(key: str) -> int:
        return int(next(line for line in Path("/proc/self/status").open() if line.startswith(key)).split()[1])

    measured = sys.platform == "linux"
    if measured:
        Path("/proc/self/clear_refs").write_text("5")  # sets the peak back to what is used now
        before = kilobytes("VmRSS")
    yield
    if measured:
        assert kilobytes("VmHWM") - before < limit * 1000


def test_png_and_jpeg_are_rgb_in_that_order(write: Callable[..., Path]):
    expected = photo()
    assert np.array_equal(read_image(write(encoded(expected))), expected)
    lossy = read_image(write(encoded(expected, "JPEG", quality=98, subsampling=0), "b.jpg"))
    assert lossy.dtype == np.uint8
    assert np.abs(lossy.astype(int) - expected).max() <= 6


def test_content_decides_not_the_suffix(write: Callable[..., Path]):
    path = write(encoded(photo()), "odd name é 100%.JPEG.txt")
    assert np.array_equal(read_image(path), photo())


def test_kinds_of_images(write: Callable[..., Path]):
    grey = photo()[:, :, 0]
    assert np.array_equal(read_image(write(encoded(grey))), np.repeat(grey[:, :, None], 3, 2))
    sixteen = grey.astype(np.uint16) * 256 + 77
    assert np.array_equal(read_image(write(encoded(sixteen))), np.repeat(grey[:, :, None], 3, 2))
    alpha = np.dstack([photo(), np.full((24, 32), 9, np.uint8)])
    assert np.array_equal(read_image(write(encoded(alpha))), photo())
    palette = Image.fromarray(IDS, "P")
    palette.putpalette([value for i in range(256) for value in (i, 255 - i, 7)])
    buffer = io.BytesIO()
    palette.save(buffer, "PNG")
    assert np.array_equal(read_image(write(buffer.getvalue()))[:, :, 1], 255 - IDS)


def test_cmyk_is_refused(write: Callable[..., Path]):
    buffer = io.BytesIO()
    Image.fromarray(photo()).convert("CMYK").save(buffer, "JPEG")
    refused(read_image, write(buffer.getvalue(), "a.jpg"), "CMYK")


@pytest.mark.parametrize("format", ["PNG", "JPEG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(write: Callable[..., Path], format: str, orientation: int):
    picture = Image.fromarray(photo())
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    picture.save(buffer, format, exif=exif)
    path = write(buffer.getvalue())
    if orientation == 1:
        assert read_image(path).shape == (24, 32, 3)
        return
    refused(read_image, path, f"EXIF orientation {orientation}")
    upright = read_image(path, apply_orientation=True)
    assert upright.shape == ((32, 24, 3) if orientation >= 5 else (24, 32, 3))
    if format == "PNG":
        refused(read_mask, write(encoded(IDS, exif=exif)), f"EXIF orientation {orientation}")


def test_grey_and_palette_masks_hold_raw_ids(write: Callable[..., Path]):
    assert np.array_equal(read_mask(write(encoded(IDS))), IDS)
    palette = Image.fromarray(IDS, "P")
    palette.putpalette([value for i in range(256) for value in (200 - i % 100, i, 50)])
    buffer = io.BytesIO()
    palette.save(buffer, "PNG")
    mask = read_mask(write(buffer.getvalue()))
    assert np.array_equal(mask, IDS)
    assert mask.dtype == np.uint8


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
@pytest.mark.parametrize("colour", [0, 3])
def test_low_bit_depths_hold_raw_ids(write: Callable[..., Path], depth: int, colour: int):
    """A decoder that stretches 2-bit grey to 0-255 would turn id 1 into 85."""
    ids = (np.arange(8) % (1 << depth)).astype(np.uint8)
    bits = "".join(f"{value:0{depth}b}" for value in ids)
    row = b"\x00" + int(bits, 2).to_bytes(len(bits) // 8, "big")
    before = chunk(b"PLTE", bytes(range(3 * (1 << min(depth, 6))))) if colour == 3 else b""
    mask = read_mask(write(png(8, 2, depth, colour, row * 2, before=before)))
    assert np.array_equal(mask, np.stack([ids, ids]))


def test_sixteen_bit_masks_keep_all_bits(write: Callable[..., Path]):
    ids = IDS.astype(np.uint16) * 500 + 3
    mask = read_mask(write(encoded(ids)))
    assert mask.dtype == np.uint16
    assert np.array_equal(mask, ids)


@pytest.mark.parametrize(("width", "height"), [(1, 1), (2, 1), (5, 3), (9, 9), (13, 16)])
def test_interlaced_mask(write: Callable[..., Path], width: int, height: int):
    ids = (np.arange(width * height) % 11).astype(np.uint8).reshape(height, width)
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    rows = b"".join(
        b"\x00" + row.tobytes() for x, y, right, down in passes for row in ids[y::down, x::right] if row.size
    )
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 1))
    data = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    assert np.array_equal(read_mask(write(data)), ids)


def test_rgb_mask_names_the_colour_map(write: Callable[..., Path]):
    colours = {(128, 0, 0): 4, (0, 0, 128): 7}
    picture = np.zeros((3, 4, 3), np.uint8)
    picture[...] = (128, 0, 0)
    picture[1, 2] = (0, 0, 128)
    path = write(encoded(picture))
    refused(read_mask, path, "RGB mask.*colour_map")
    expected = np.full((3, 4), 4)
    expected[1, 2] = 7
    assert np.array_equal(read_mask(path, colour_map=colours), expected)
    picture[2, 1] = (1, 2, 3)
    with pytest.raises(DataError, match=r"colour \(1, 2, 3\) at pixel \(row 2, column 1\)"):
        read_mask(write(encoded(picture)), colour_map=colours)


def test_with_a_colour_map_every_kind_of_mask_is_read_as_it_looks(write: Callable[..., Path]):
    colours = {(128, 0, 0): 4, (7, 7, 7): 255}
    ids = np.array([[0, 1], [1, 1]], np.uint8)
    palette = Image.fromarray(ids)
    palette.putpalette([128, 0, 0, 7, 7, 7])
    buffer = io.BytesIO()
    palette.save(buffer, "png")
    assert read_mask(write(buffer.getvalue()), colour_map=colours).tolist() == [[4, 255], [255, 255]]
    grey = write(encoded(np.full((2, 2), 7, np.uint8)))
    assert read_mask(grey, colour_map=colours).tolist() == [[255, 255], [255, 255]]
    assert read_mask(grey).tolist() == [[7, 7], [7, 7]]
    with pytest.raises(DataError, match=r"colour \(8, 8, 8\) at pixel"):
        read_mask(write(encoded(np.full((2, 2), 8, np.uint8))), colour_map=colours)
    with pytest.raises(DataError, match="16-bit colours"):
        read_mask(write(encoded(np.full((2, 2), 7, np.uint16))), colour_map=colours)


def test_masks_that_cannot_hold_ids(write: Callable[..., Path]):
    refused(read_mask, write(encoded(np.dstack([photo(), IDS.repeat(3, 0)[:24].repeat(3, 1)[:, :32]]))), "alpha")
    refused(read_mask, write(encoded(IDS, "JPEG"), "mask.png"), "JPEG mask")


@pytest.mark.parametrize("keep", [0, 1, 2, 7, 8, 30, 33, 60, -13, -12, -4, -1])
def test_truncated_png(write: Callable[..., Path], keep: int):
    refused(read_mask, write(encoded(IDS)[:keep]), "PNG|empty")


@pytest.mark.parametrize("share", [0.01, 0.3, 0.6, 0.9, 0.99])
def test_truncated_jpeg(write: Callable[..., Path], share: float):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encoded(noise, "JPEG", quality=90)
    refused(read_image, write(data[: int(share * len(data))]), "JPEG|PNG")
    refused(read_image, write(data[:-2]), "truncated JPEG")


def test_thumbnails_end_marker_does_not_hide_a_cut(write: Callable[..., Path]):
    data = encoded(photo(), "JPEG")
    thumbnail = b"\xff\xe1" + struct.pack(">H", 2 + 40) + b"\xff\xd8" + b"\x00" * 36 + b"\xff\xd9"
    whole = data[:2] + thumbnail + data[2:]
    assert read_image(write(whole)).shape == (24, 32, 3)
    refused(read_image, write(whole[:-2]), "truncated JPEG")


def test_wrong_checksum(write: Callable[..., Path]):
    data = bytearray(encoded(IDS))
    data[data.index(b"IDAT") + 8] ^= 1
    refused(read_mask, write(bytes(data)), "wrong checksum")
    refused(read_image, write(bytes(data)), "wrong checksum")


def test_chunks_missing_twice_or_animated(write: Callable[..., Path]):
    data = encoded(IDS)
    refused(read_mask, write(data[:33] + chunk(b"IEND", b"")), "chunk is missing")
    refused(read_mask, write(data[:33] + data[8:]), "stands twice")
    animation = chunk(b"acTL", struct.pack(">II", 1, 0))
    refused(read_image, write(data[:33] + animation + data[33:]), "animated")


def test_pixels_missing_behind_right_checksums(write: Callable[..., Path]):
    """Pillow fills the missing rows with id 0 in silence."""
    row = b"\x00" + bytes(range(1, 9))
    assert read_mask(write(png(8, 8, 8, 0, row * 8)))[7, 7] == 8
    refused(read_mask, write(png(8, 8, 8, 0, row * 7)), "63 instead of 72")
    refused(read_mask, write(png(8, 8, 8, 0, row * 8 + b"\x00")), "more than 72 bytes")


def test_pixels_that_inflate_without_end(write: Callable[..., Path]):
    path = write(png(8, 8, 8, 0, bytes(200_000_000)))
    with memory_below(50):
        refused(read_mask, path, "more than 72 bytes")


@pytest.mark.parametrize(
    ("width", "height"), [(20_000, 20_000), (65_535, 1), (1, 65_535), (0, 5), (5, 0), (10**9, 10**9), (8_001, 8_000)]
)
def test_bombs_are_refused_from_the_header(write: Callable[..., Path], width: int, height: int):
    path = write(png(width, height, 8, 0, bytes(10)))
    with memory_below(50):
        refused(read_mask, path, "declares")
        refused(read_image, path, "declares")


def test_jpeg_bomb(write: Callable[..., Path]):
    data = encoded(photo(), "JPEG")
    at = next(i for i in range(len(data)) if data[i] == 0xFF and data[i + 1] == 0xC0)
    refused(read_image, write(data[: at + 5] + struct.pack(">HH", 60_000, 60_000) + data[at + 9 :]), "declares")


def test_huge_compressed_text(write: Callable[..., Path]):
    text = chunk(b"zTXt", b"k\x00\x00" + zlib.compress(bytes(200_000_000), 9))
    data = encoded(IDS)
    path = write(data[:33] + text + data[33:])
    with memory_below(50):
        refused(read_mask, path, "damaged PNG")


def test_what_is_no_image_file(tmp_path: Path, write: Callable[..., Path]):
    refused(read_image, tmp_path / "nowhere.png", "cannot be read")
    refused(read_image, tmp_path, "not a regular file")
    os.mkfifo(tmp_path / "pipe.png")
    refused(read_image, tmp_path / "pipe.png", "not a regular file")
    refused(read_image, write(b""), "empty file")
    refused(read_image, write(b"GIF89a" + bytes(50)), "neither PNG nor JPEG")


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


def read_or_none(read: Callable[[Path], np.ndarray], path: Path) -> np.ndarray | None:
    """The array, or None for a file that was refused by name."""
    try:
        return read(path)
    except DataError as error:
        if str(path) not in str(error):
            raise
        return None


@pytest.mark.parametrize("trials", [1_000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_fuzzed_masks_are_right_or_refused(write: Callable[..., Path], trials: int):
    """I1 of the fault matrix."""
    generator = np.random.default_rng(trials)
    sources = [(encoded(IDS), IDS), (encoded(IDS.astype(np.uint16) * 9), IDS.astype(np.uint16) * 9)]
    refusals = 0
    for trial in range(trials):
        data, expected = sources[trial % 2]
        mask = read_or_none(read_mask, write(fuzzed(data, generator)))
        refusals += mask is None
        assert mask is None or np.array_equal(mask, expected)
    assert refusals > trials / 2


@pytest.mark.parametrize("trials", [1_000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_fuzzed_images_are_right_or_refused(write: Callable[..., Path], trials: int):
    """I2 of the fault matrix; JPEG has no checksum, so that only three channels can be asked for."""
    generator = np.random.default_rng(trials)
    lossless, lossy = encoded(photo()), encoded(photo(), "JPEG")
    for trial in range(trials):
        if trial % 2:
            image = read_or_none(read_image, write(fuzzed(lossy, generator)))
            assert image is None or image.shape[2:] == (3,)
        else:
            image = read_or_none(read_image, write(fuzzed(lossless, generator)))
            assert image is None or np.array_equal(image, photo())


def test_reading_counts_in_the_audit(write: Callable[..., Path]):
    audit.install()
    path = write(encoded(IDS))
    before = audit.count("evaluation")
    with audit.phase("evaluation"):
        read_image(path)
        read_mask(path)
    assert audit.count("evaluation") - before == 2
