"""Tests of segkd.data.images: right pixels or an error with the file's name, never other pixels."""

import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from segkd.data.images import read_image, read_mask
from segkd.foundation import audit
from segkd.foundation.errors import DataError
from tests.pictures import GREY, IDS, PALETTE, chunk, drawn, encoded, palette, photo, png, tiff


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


@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(2, 9))
def test_a_lone_image_may_be_turned_upright(write: Callable[..., Path], format: str, orientation: int):
    exif = Image.Exif()
    exif[0x0112] = orientation
    how = {"tiffinfo": {0x0112: orientation}} if format == "TIFF" else {"exif": exif}
    upright = read_image(write(encoded(photo(), format, **how)), apply_orientation=True)
    assert upright.shape == ((32, 24, 3) if orientation >= 5 else (24, 32, 3))
    if format in ("PNG", "TIFF"):
        turns = {2: (0, 1), 3: (2, 0), 4: (2, 1), 5: (3, 1), 6: (3, 0), 7: (1, 1), 8: (1, 0)}
        quarters, mirrored = turns[orientation]
        turned = np.rot90(photo(), quarters)
        assert np.array_equal(upright, turned[:, ::-1] if mirrored else turned)


def test_rgb_mask_names_what_to_write(write: Callable[..., Path]):
    colours = {(128, 0, 0): 4, (0, 0, 128): 7}
    picture = np.zeros((3, 4, 3), np.uint8)
    picture[...] = (128, 0, 0)
    picture[1, 2] = (0, 0, 128)
    path = write(encoded(picture))
    refused(
        read_mask,
        path,
        r"RGB mask: colour \(128, 0, 0\) at pixel \(row 0, column 0\); write labels: colours .*dataset.yaml",
    )
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
    with pytest.raises(DataError, match="mask of 16-bit colours"):
        read_mask(write(encoded(np.full((2, 2), 7, np.uint16))), colour_map=colours)


@pytest.mark.parametrize("keep", [0, 1, 2, 7, 8, 30, 33, 60, -13, -12, -4, -1])
def test_truncated_png(write: Callable[..., Path], keep: int):
    refused(read_mask, write(encoded(IDS)[:keep]), "PNG|empty")


@pytest.mark.parametrize("share", [0.01, 0.3, 0.6, 0.9, 0.99])
def test_truncated_jpeg(write: Callable[..., Path], share: float):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encoded(noise, "JPEG", quality=90)
    refused(read_image, write(data[: int(share * len(data))]), "JPEG|PNG")
    refused(read_image, write(data[:-2]), "truncated")


@pytest.mark.parametrize("format", ["JPEG", "WEBP", "BMP"])
def test_what_is_cut_is_refused_whatever_somebody_lets_pillow_load(
    write: Callable[..., Path], monkeypatch, format: str
):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    data = encoded(photo(), format)
    for end in range(len(data) - 5, 0, -37):
        refused(read_image, write(data[:end]), "truncated|damaged|empty|neither")
    assert ImageFile.LOAD_TRUNCATED_IMAGES


def test_thumbnails_end_marker_does_not_hide_a_cut(write: Callable[..., Path]):
    data = encoded(photo(), "JPEG")
    thumbnail = b"\xff\xe1" + struct.pack(">H", 2 + 40) + b"\xff\xd8" + b"\x00" * 36 + b"\xff\xd9"
    whole = data[:2] + thumbnail + data[2:]
    assert read_image(write(whole)).shape == (24, 32, 3)
    refused(read_image, write(whole[:-2]), "truncated")


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
    refused(read_image, write(b"GIF89a" + bytes(50)), "neither PNG nor JPEG, TIFF, WebP or BMP")


TWELVE = (np.arange(24 * 32) * 16 % 4096 + 15).reshape(24, 32).astype(np.uint16)
SIXTEEN_BITS = {
    "grey PNG": (encoded(TWELVE), encoded(TWELVE * 16)),
    "RGB PNG": tuple(drawn(np.dstack([v, v // 2, v // 4]), 16, 2) for v in (TWELVE, TWELVE * 16)),
    "grey and alpha PNG": tuple(drawn(np.dstack([v, v * 0 + 65535]), 16, 4) for v in (TWELVE, TWELVE * 16)),
    "RGBA PNG": tuple(drawn(np.dstack([v, v, v, v * 0 + 65535]), 16, 6) for v in (TWELVE, TWELVE * 16)),
    "grey TIFF": tuple(tiff(v, 16, 1) for v in (TWELVE, TWELVE * 16)),
    "RGB TIFF": tuple(tiff(np.dstack([v, v // 2, v // 4]), 16, 2, order=">") for v in (TWELVE, TWELVE * 16)),
}


@pytest.mark.parametrize("kind", SIXTEEN_BITS)
def test_fewer_than_16_bits_are_never_a_black_picture(write: Callable[..., Path], kind: str):
    """Cameras, scanners, CT: 10, 12 or 14 bits in files of 16."""
    twelve, sixteen = (write(data, f"{name}.png") for name, data in zip(("12", "16"), SIXTEEN_BITS[kind], strict=True))
    refused(read_image, twelve, r"largest value is 4095, .*range: \[0, 4095\] \(or \[0, 65535\]\) in the folder's dataset.yaml, or --range 0,4095 of segkd visualize")  # fmt: skip
    expected = read_image(sixteen)
    assert np.array_equal(expected[..., 0], TWELVE >> 4)
    assert np.abs(read_image(twelve, value_range=(0, 4095)).astype(int) - expected).max() <= 1
    assert read_image(twelve, value_range=(0, 65535)).max() <= 16
    assert np.array_equal(read_image(twelve, value_range=(1000, 1001))[..., 0], (TWELVE > 1000) * 255)


@pytest.mark.parametrize("bits", range(8, 17))
def test_how_dark_16_bits_may_be(write: Callable[..., Path], bits: int):
    values = np.full((2, 2), (1 << bits) - 1, np.uint16)
    path = write(encoded(values))
    if bits < 16:
        refused(read_image, path, rf"range: \[0, {2**bits - 1}\]")
    else:
        assert (read_image(path) == 255).all()
    assert np.array_equal(read_image(write(encoded(values * 0))), np.zeros((2, 2, 3)))  # black in any range
    assert (
        read_image(write(encoded(np.full((2, 2), 7, np.uint8))), value_range=(0, 4095)).tolist() == [[[7] * 3] * 2] * 2
    )


def test_ids_in_three_equal_channels(write: Callable[..., Path]):
    """As CVAT and others write them."""
    ids = np.dstack([IDS] * 3)
    solid = np.full(IDS.shape, 255, np.uint8)
    for data in (encoded(ids), encoded(np.dstack([ids, solid])), encoded(Image.fromarray(np.dstack([IDS, solid]), "LA")),
                 encoded(ids, "WEBP", lossless=True), encoded(ids, "TIFF"), encoded(ids, "BMP"),
                 drawn(ids.astype(np.uint16), 16, 2)):  # fmt: skip
        found = read_mask(write(data))
        assert np.array_equal(found, IDS) and found.shape == IDS.shape
    ids[3, 2, 1] += 1
    refused(read_mask, write(encoded(ids)), r"RGB mask: colour \(8, 9, 8\) at pixel \(row 3, column 2\)")
    solid[0, 0] = 254
    refused(read_mask, write(encoded(np.dstack([IDS] * 3 + [solid]))), "alpha channel that is not opaque")


def test_a_limit_of_pixels_may_be_raised(write: Callable[..., Path]):
    wide = np.zeros((2, 100), np.uint8)
    path = write(encoded(wide))
    assert read_image(path, most_pixels=200).shape == (2, 100, 3)
    for read in (read_image, read_mask):
        with pytest.raises(DataError, match=r"declares 100x2 pixels; .* at most 199 are read; megapixels: 1 in the"):
            read(path, most_pixels=199)


def test_pillows_own_limit_gives_way_to_ours(write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    for format in ("PNG", "JPEG", "TIFF", "WEBP", "BMP"):
        assert read_image(write(encoded(photo(), format))).shape == (24, 32, 3)
    assert Image.MAX_IMAGE_PIXELS == 10


def test_reading_counts_in_the_audit(write: Callable[..., Path]):
    audit.install()
    path = write(encoded(IDS))
    before = audit.count("evaluation")
    with audit.phase("evaluation"):
        read_image(path)
        read_mask(path)
    assert audit.count("evaluation") - before == 2
