"""The one strict reader of image files: a damaged file is an error with its name, never a wrong pixel.

The order is: size and format from the header, all bytes, checksums of PNG chunks, decoding. OpenCV would be quicker, but
returns a full-size array for a JPEG cut to 30 %, palette masks as grey levels, and decodes a bomb before it says no.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from segkd.data.image_files import GREY, GREY_ALPHA, RGB, RGBA, Header, read_checked
from segkd.foundation.errors import DataError

_ORIENTATION = 0x0112


def read_image(path: str | os.PathLike[str], *, apply_orientation: bool = False) -> np.ndarray:
    """Read a PNG or JPEG file as (H,W,3) uint8 RGB; grey is repeated, 16 bits lose the lower 8, alpha is dropped.

    Args:
        path: the file; its suffix does not matter, its content does.
        apply_orientation: turn the image as its EXIF orientation says. Right for a lone image; where a mask belongs
            to the image nobody knows whether it was turned too, so that the default is to refuse such a file.

    Raises:
        DataError: missing, not PNG or JPEG, damaged, too large, animated, CMYK, or turned by EXIF; with the path.
    """
    path = Path(path)
    data, header = read_checked(path)
    decoded = _decode(path, data, header)
    if decoded.getexif().get(_ORIENTATION, 1) != 1:
        if not apply_orientation:
            turned = decoded.getexif()[_ORIENTATION]
            raise DataError(f"{path}: EXIF orientation {turned}; save the image upright, so that it fits its mask")
        decoded = ImageOps.exif_transpose(decoded)
    if decoded.mode == "CMYK":
        raise DataError(f"{path}: CMYK image; convert it to RGB")
    if decoded.mode.startswith("I"):
        grey = (np.asarray(decoded).astype(np.uint32) >> 8).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    return _as_it_looks(path, decoded)


def read_mask(
    path: str | os.PathLike[str], *, colour_map: Mapping[tuple[int, int, int], int] | None = None
) -> np.ndarray:
    """Read a PNG label file as (H,W) ids: uint8, or uint16 for 16-bit files.

    Grey levels and palette indices are the ids, whatever the bit depth; the palette's colours do not matter.

    Args:
        path: the file; its suffix does not matter, its content does.
        colour_map: the id (0-255) of each RGB colour, for masks that are pictures in colour; without it they are
            refused. With it every mask is a picture in colour: one with a palette, or in grey, as it looks.

    Raises:
        DataError: missing, not PNG, damaged, too large, in colour without a map, or a colour outside the map.
    """
    path = Path(path)
    data, header = read_checked(path)
    if header.format != "PNG":
        raise DataError(f"{path}: JPEG mask; its compression changes the ids, masks must be PNG")
    if header.colour == RGB and colour_map is None:
        raise DataError(f"{path}: RGB mask; ids must be grey levels or palette indices, or give read_mask a colour_map")
    if header.colour in (GREY_ALPHA, RGBA) or (header.depth == 16 and (header.colour == RGB or colour_map is not None)):
        raise DataError(f"{path}: mask with an alpha channel or 16-bit colours; ids must be grey levels or a palette")
    decoded = _decode(path, data, header)
    if decoded.getexif().get(_ORIENTATION, 1) != 1:
        raise DataError(f"{path}: EXIF orientation {decoded.getexif()[_ORIENTATION]} in a mask; save it upright")
    if colour_map is not None:
        return _ids_of_colours(path, _as_it_looks(path, decoded), colour_map)
    if header.depth == 16:
        return np.asarray(decoded).astype(np.uint16)
    if header.colour == GREY and header.depth < 8:
        # Pillow stretches 1, 2 and 4 bits to 0-255: undo it, the ids are the raw values
        return np.array(decoded.convert("L")) // np.uint8(255 // (2**header.depth - 1))
    return np.array(decoded)


def _decode(path: Path, data: bytes, header: Header) -> Image.Image:
    """Decode, with every failure of the decoder turned into one line that names the file."""
    try:
        image = Image.open(io.BytesIO(data), formats=(header.format,))
        if image.size != (header.width, header.height):
            raise ValueError(f"two sizes, {header.width}x{header.height} and {image.width}x{image.height}")
        image.load()
        image.getexif()
    except MemoryError:
        raise
    except Exception as error:  # Pillow raises a dozen types for damaged files
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path}: damaged {header.format}: {reason}") from error
    return image


def _as_it_looks(path: Path, decoded: Image.Image) -> np.ndarray:
    """(H,W,3) uint8 RGB, transparency left out; an index without a colour, which Pillow shows black, is an error."""
    decoded.info.pop("transparency", None)
    if decoded.mode == "P":
        largest, colours = decoded.getextrema()[1], len(decoded.palette.palette) // 3
        if largest >= colours:
            raise DataError(f"{path}: damaged PNG: pixels of colour {largest}, but a palette of {colours}")
    return np.array(decoded if decoded.mode == "RGB" else decoded.convert("RGB"))


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
