"""Tests of segkd.data.images: right pixels or an error with the file's name, never other pixels."""

import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segkd.data.images import read_image, read_mask
from segkd.foundation import audit
from segkd.foundation.errors import DataError
from tests.pictures import GREY, IDS, PALETTE, chunk, drawn, encoded, palette, photo, png


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


def test_png_and_jpeg_are_rgb_in_that_order(write: Callable[..., Path]):
    expected = photo()
    assert np.array_equal(read_image(write(encoded(expected))), expected)
    lossy = read_image(write(encoded(expected, "JPEG", quality=98, subsampling=0), "b.jpg"))
    assert lossy.dtype == np.uint8
    assert np.abs(lossy.astype(int) - expected).max() <= 6


def test_content_decides_not_the_suffix(write: Callable[..., Path]):
    path = write(encoded(photo()), "odd name é 100%.JPEG.txt")
    assert np.array_equal(read_image(path), photo())


@pytest.mark.parametrize("format", ["PNG", "JPEG"])
@pytest.mark.parametrize("orientation", range(2, 9))
def test_a_lone_image_may_be_turned_upright(write: Callable[..., Path], format: str, orientation: int):
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = read_image(write(encoded(photo(), format, exif=exif)), apply_orientation=True)
    assert upright.shape == ((32, 24, 3) if orientation >= 5 else (24, 32, 3))


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
    picture = Image.fromarray(ids)
    picture.putpalette([128, 0, 0, 7, 7, 7])
    assert read_mask(write(encoded(picture)), colour_map=colours).tolist() == [[4, 255], [255, 255]]
    grey = write(encoded(np.full((2, 2), 7, np.uint8)))
    assert read_mask(grey, colour_map=colours).tolist() == [[255, 255], [255, 255]]
    assert read_mask(grey).tolist() == [[7, 7], [7, 7]]
    with pytest.raises(DataError, match=r"colour \(8, 8, 8\) at pixel"):
        read_mask(write(encoded(np.full((2, 2), 8, np.uint8))), colour_map=colours)
    too_few = write(drawn(ids, 8, PALETTE, before=palette([(128, 0, 0)])))
    with pytest.raises(DataError, match="pixels of colour 1, but a palette of 1"):
        read_mask(too_few, colour_map=colours | {(0, 0, 0): 1})  # black is what Pillow shows
    with pytest.raises(DataError, match="16-bit colours"):
        read_mask(write(encoded(np.full((2, 2), 7, np.uint16))), colour_map=colours)


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
    assert read_mask(write(png(8, 8, 8, GREY, row * 8)))[7, 7] == 8
    refused(read_mask, write(png(8, 8, 8, GREY, row * 7)), "63 instead of 72")
    refused(read_mask, write(png(8, 8, 8, GREY, row * 8 + b"\x00")), "more than 72 bytes")


def test_what_is_no_image_file(tmp_path: Path, write: Callable[..., Path]):
    refused(read_image, tmp_path / "nowhere.png", "cannot be read")
    refused(read_image, tmp_path, "not a regular file")
    os.mkfifo(tmp_path / "pipe.png")
    refused(read_image, tmp_path / "pipe.png", "not a regular file")
    refused(read_image, write(b""), "empty file")
    refused(read_image, write(b"GIF89a" + bytes(50)), "neither PNG nor JPEG")


def test_reading_counts_in_the_audit(write: Callable[..., Path]):
    audit.install()
    path = write(encoded(IDS))
    before = audit.count("evaluation")
    with audit.phase("evaluation"):
        read_image(path)
        read_mask(path)
    assert audit.count("evaluation") - before == 2
