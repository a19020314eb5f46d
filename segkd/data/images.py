"""The one strict reader of image files: a damaged file is an error with its name, never a wrong pixel.

The order is: size and format from the header, all bytes, checksums of PNG chunks, decoding. OpenCV would be quicker, but
returns a full-size array for a JPEG cut to 30 %, palette masks as grey levels, and decodes a bomb before it says no.
"""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile, ImageOps

from segkd.data.formats.header import CMYK, GREY, GREY_ALPHA, RGB, RGBA, Header
from segkd.data.image_files import MAX_PIXELS, read_checked
from segkd.foundation.errors import DataError

_ORIENTATION = 0x0112
_DARK = 1 << 15
"""A picture in 16 bits whose largest value is no larger probably uses fewer bits: 10, 12 or 14 of a camera or a scanner."""
_PILLOW = threading.Lock()


def read_image(
    path: str | os.PathLike[str], *, apply_orientation: bool = False, value_range: tuple[int, int] | None = None,
    most_pixels: int = MAX_PIXELS,
) -> np.ndarray:  # fmt: skip
    """Read a PNG, JPEG, TIFF, WebP or BMP file as (H,W,3) uint8 RGB; grey is repeated, alpha is dropped.

    Args:
        path: the file; its suffix does not matter, its content does.
        apply_orientation: turn the image as its EXIF orientation says. Right for a lone image; where a mask belongs
            to the image nobody knows whether it was turned too, so that the default is to refuse such a file.
        value_range: the values (0-65535) of 16-bit files that become 0 and 255. Without it their lower 8 bits are
            dropped, and a file that uses fewer than 16 bits, which would come out dark or black, is refused.
        most_pixels: a file that declares more is refused.

    Raises:
        DataError: missing, of another format, damaged, too large, animated, CMYK, turned by EXIF, or of 16 bits of
            which it uses fewer; with the path.
    """
    path = Path(path)
    data, header = read_checked(path, most_pixels)
    decoded, turn = _decode(path, data, header)
    if turn != 1 and not (apply_orientation and (header.depth <= 8 or header.colour == GREY)):
        raise DataError(f"{path}: EXIF orientation {turn}; save the image upright, so that it fits its mask")
    if turn != 1:
        decoded = ImageOps.exif_transpose(decoded)
    if decoded.mode == "CMYK":
        raise DataError(f"{path}: CMYK image; convert it to RGB")
    if header.depth == 16:
        pixels = _in_8_bits(path, _channels(path, data, header, decoded)[0], value_range)
        return pixels if pixels.shape[2] == 3 else np.repeat(pixels, 3, axis=2)
    return _as_it_looks(path, decoded)


def read_mask(
    path: str | os.PathLike[str], *, colour_map: Mapping[tuple[int, int, int], int] | None = None,
    most_pixels: int = MAX_PIXELS,
) -> np.ndarray:  # fmt: skip
    """Read a label file (PNG, or TIFF, WebP or BMP without loss) as (H,W) ids: uint8, or uint16 for 16-bit files.

    Grey levels and palette indices are the ids, whatever the bit depth; the palette's colours do not matter. Where red,
    green and blue are equal in every pixel they are the id. An alpha channel must be opaque.

    Args:
        path: the file; its suffix does not matter, its content does.
        colour_map: the id (0-255) of each RGB colour, for masks that are pictures in colour; without it they are
            refused. With it every mask is a picture in colour: one with a palette, or in grey, as it looks.
        most_pixels: a file that declares more is refused.

    Raises:
        DataError: missing, with loss, damaged, too large, in colour without a map, or a colour outside the map.
    """
    path = Path(path)
    data, header = read_checked(path, most_pixels)
    if header.lossy:
        raise DataError(f"{path}: {header.format} mask; its compression changes the ids, masks must be PNG")
    if header.colour == CMYK or header.inverted:
        raise DataError(f"{path}: mask in {'CMYK' if header.colour == CMYK else 'which 0 is white'}; save it as PNG")
    if header.depth == 16 and colour_map is not None:
        raise DataError(f"{path}: mask of 16-bit colours; save it in 8 bits")
    decoded, turn = _decode(path, data, header)
    if turn != 1:
        raise DataError(f"{path}: EXIF orientation {turn} in a mask; save it upright")
    if header.colour in (RGB, RGBA, GREY_ALPHA):
        colours, alpha = _channels(path, data, header, decoded)
        if alpha is not None and (alpha != np.iinfo(alpha.dtype).max).any():
            raise DataError(f"{path}: mask with an alpha channel that is not opaque everywhere; save it without")
        if colour_map is None:
            return _ids_in_channels(path, colours)
    if colour_map is not None:
        return _ids_of_colours(path, _as_it_looks(path, decoded), colour_map)
    if header.depth == 16:
        return np.asarray(decoded).astype(np.uint16)
    if header.colour == GREY and header.depth < 8:
        # Pillow stretches 1, 2 and 4 bits to 0-255: undo it, the ids are the raw values
        return np.array(decoded.convert("L")) // np.uint8(255 // (2**header.depth - 1))
    return np.array(decoded).astype(np.uint8)


def _decode(path: Path, data: bytes, header: Header) -> tuple[Image.Image, int]:
    """The picture and its EXIF orientation, every failure of the decoder turned into one line that names the file."""
    try:
        with _strict(header):
            image = Image.open(io.BytesIO(data), formats=(header.format,))
        declared = (header.width, header.height)
        if image.size != (declared if header.orientation < 5 else declared[::-1]):  # Pillow turns a TIFF by itself
            raise ValueError(f"two sizes, {header.width}x{header.height} and {image.width}x{image.height}")
        with _strict(header):
            image.load()
        turn = image.getexif().get(_ORIENTATION, header.orientation)
    except MemoryError:
        raise
    except Exception as error:  # Pillow raises a dozen types for damaged files
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path}: damaged {header.format}: {reason}") from error
    return image, turn


@contextmanager
def _strict(header: Header) -> Iterator[None]:
    """Pillow without its own limit, where a header has been held against a higher one, and with whole files only."""
    before = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
    if not before[1] and (before[0] is None or header.width * header.height <= before[0]):
        yield
        return
    with _PILLOW:
        Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = None, False
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = before


def _channels(path: Path, data: bytes, header: Header, decoded: Image.Image) -> tuple[np.ndarray, np.ndarray | None]:
    """Colours (H,W,1 or 3) and alpha (H,W) if there is one, uint8 or uint16, as they stand in a file without palette."""
    if header.depth < 16 or header.colour == GREY:
        samples = np.asarray(decoded)
        samples = samples.astype(np.uint16) if header.depth == 16 else samples
        samples = samples[..., None] if samples.ndim == 2 else samples
    else:
        import cv2  # Pillow drops the lower 8 bits of colours

        samples = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        if samples is None or samples.dtype != np.uint16 or samples.shape[:2] != (header.height, header.width):
            raise DataError(f"{path}: {header.format} of 16 bits that cannot be decoded; save it in 8 bits")
        samples = np.concatenate([samples[..., 2::-1], samples[..., 3:]], axis=2)  # OpenCV has blue first
    colours = samples.shape[2] - 1 if samples.shape[2] in (2, 4) else samples.shape[2]
    has_alpha = samples.shape[2] > colours and header.colour in (GREY_ALPHA, RGBA)
    return samples[..., :colours], samples[..., colours] if has_alpha else None


def _in_8_bits(path: Path, values: np.ndarray, value_range: tuple[int, int] | None) -> np.ndarray:
    """16 bits as 8: the upper ones, or the range that somebody declared."""
    if value_range is not None:
        low, high = value_range
        return np.rint(np.clip((values.astype(np.float32) - low) * (255 / (high - low)), 0, 255)).astype(np.uint8)
    largest = int(values.max())
    if 0 < largest <= _DARK:
        likely = (1 << largest.bit_length()) - 1
        raise DataError(
            f"{path}: 16 bits, but its largest value is {largest}, which would be shown dark or black; say which values"
            f" are black and white: range: [0, {likely}] (or [0, 65535]) in the folder's dataset.yaml, or --range"
            f" 0,{likely} of segkd visualize"
        )
    return (values >> 8).astype(np.uint8)


def _as_it_looks(path: Path, decoded: Image.Image) -> np.ndarray:
    """(H,W,3) uint8 RGB, transparency left out; an index without a colour, which Pillow shows black, is an error."""
    decoded.info.pop("transparency", None)
    if decoded.mode == "P":
        largest, colours = decoded.getextrema()[1], len(decoded.palette.palette) // len(decoded.palette.mode)
        if largest >= colours:
            raise DataError(f"{path}: damaged file: pixels of colour {largest}, but a palette of {colours}")
    return np.array(decoded if decoded.mode == "RGB" else decoded.convert("RGB"))


def _ids_in_channels(path: Path, colours: np.ndarray) -> np.ndarray:
    """The ids (H,W) that stand in red, green and blue alike."""
    ids = colours[..., 0]
    grey = (colours == ids[..., None]).all(axis=2)
    if not grey.all():
        row, column = np.unravel_index(np.argmin(grey), grey.shape)
        colour = tuple(int(value) for value in colours[row, column])
        raise DataError(
            f"{path}: RGB mask: colour {colour} at pixel (row {row}, column {column}); write labels: colours and the"
            " colour of each class, as classes: {road: [128, 64, 128], ...}, in the folder's dataset.yaml, or save ids"
            " as grey levels"
        )
    return np.ascontiguousarray(ids)


def _ids_of_colours(path: Path, image: np.ndarray, colour_map: Mapping[tuple[int, int, int], int]) -> np.ndarray:
    packed = image.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], dtype=np.uint32)
    mask = np.zeros(packed.shape, dtype=np.uint8)
    known = np.zeros(packed.shape, dtype=bool)
    for (red, green, blue), label in colour_map.items():
        here = packed == (red << 16 | green << 8 | blue)
        mask[here] = label
        known |= here
    if not known.all():
        row, column = np.unravel_index(np.argmin(known), known.shape)
        colour = tuple(int(value) for value in image[row, column])
        raise DataError(f"{path}: colour {colour} at pixel (row {row}, column {column}) is not in the colour map")
    return mask
