"""How many channels the images have that a network takes: one of grey, red, green and blue, or others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from segkd.foundation.errors import DataError

if TYPE_CHECKING:  # recipes are checked without NumPy
    import numpy as np

GREY, RGB = 1, 3
MOST_CHANNELS = 512
READ = (GREY, RGB)
"""Channels of the pictures that files hold, as segkd reads them."""
FROM_PYTHON = "segkd reads RGB and grey pictures; load_student(DIR).predict takes arrays of all channels"


def name_of(channels: int) -> str:
    """What images of so many channels are called."""
    return {GREY: "grey", RGB: "RGB"}.get(channels, f"{channels} channels")


def stands_in(image: np.ndarray, channels: int) -> np.ndarray:
    """A picture (H,W,3) for a network of any channels: where these are neither RGB nor grey, each is its grey."""
    return in_channels(image, channels) if channels in READ else in_channels(image, GREY).repeat(channels, axis=2)


def in_channels(image: np.ndarray, channels: int) -> np.ndarray:
    """An image (H,W) or (H,W,K) uint8 as (H,W,channels): as it is where K is that, or as the grey of its colours.

    Grey is the luma of ITU-R BT.601, 0.299 R + 0.587 G + 0.114 B, rounded as Pillow's `convert("L")` does; where the three
    are equal, as of a grey file that was read as RGB, it is their value.

    Raises:
        DataError: it has other channels than are asked for.
    """
    image = image[..., None] if image.ndim == 2 else image
    if image.shape[2] == channels:
        return image
    if (image.shape[2], channels) != (RGB, GREY):
        raise DataError(f"an image of {name_of(image.shape[2])} for a network of {name_of(channels)}: {FROM_PYTHON}")
    import numpy as np
    from PIL import Image

    return np.array(Image.fromarray(image).convert("L"))[..., None]
