"""From images to masks: how a trained network is shown images, and how its logits become class ids at their size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from os import PathLike

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from segkd.foundation.channels import GREY, RGB, in_channels
from segkd.foundation.errors import ArgumentError

EXPECTED = "expected an RGB image as a NumPy array (H,W,3) of uint8, 0 to 255"
_GREY = "expected an image as a NumPy array (H,W), (H,W,1) or, RGB, (H,W,3) of uint8, 0 to 255"
_READ = "np.asarray(PIL.Image.open(path).convert('RGB'))"


def as_images(given: object, channels: int = RGB) -> tuple[list[np.ndarray], bool]:
    """The images (H,W,channels) uint8 in the argument of a call, and whether it was one alone.

    For a network of grey images, they may be (H,W), and RGB.

    Raises:
        ArgumentError: anything else, in one line that says what it is and how it becomes an image.
    """
    if isinstance(given, np.ndarray) and given.ndim != 4:
        return [_checked(given, "image", channels)], True
    many = isinstance(given, (np.ndarray, Sequence, Iterator)) and not isinstance(given, (str, bytes))
    if not many:
        return [_checked(given, "images", channels)], True
    return [_checked(image, f"images[{index}]", channels) for index, image in enumerate(given)], False


def _expected(channels: int) -> str:
    """What an image for a network of so many channels is, in words."""
    more = f"expected an image of {channels} channels as a NumPy array (H,W,{channels}) of uint8, 0 to 255"
    return {RGB: EXPECTED, GREY: _GREY}.get(channels, more)


def _checked(image: object, name: str, channels: int) -> np.ndarray:
    expected = _expected(channels)
    if isinstance(image, np.ndarray):
        shape_wrong = _shape_wrong(image.shape) if channels == RGB else _other_shape_wrong(image.shape, channels)
        wrong = [hint for hint in (shape_wrong, _kind_wrong(image.dtype)) if hint is not None]
        if isinstance(image, np.ma.MaskedArray):
            wrong.append("; image.filled(0) makes one of a masked array")
        if wrong:
            raise ArgumentError(f"{name}: {image.dtype} of shape {image.shape}: {expected}{wrong[0]}")
        return image
    if isinstance(image, (str, PathLike)):
        raise ArgumentError(f"{name}: a path: {expected}; {_READ} reads a file, segkd.visualize draws files")
    if isinstance(image, Tensor):
        how = f"tensor.permute(1, 2, 0).cpu().numpy() makes one of ({channels},H,W)"
        raise ArgumentError(f"{name}: a {str(image.dtype)[6:]} tensor of shape {tuple(image.shape)}: {expected}; {how}")
    if isinstance(image, Image.Image):
        how = {RGB: "image.convert('RGB')", GREY: "image.convert('L')"}.get(channels, "image")
        raise ArgumentError(f"{name}: a PIL image: {expected}; np.asarray({how}) makes one")
    raise ArgumentError(f"{name}: {type(image).__name__}: {expected}, or a list of them")


def _shape_wrong(shape: tuple[int, ...]) -> str | None:
    """How an array of a shape becomes an image, should that be known; None where it is one."""
    if len(shape) == 3 and shape[2] == 3:
        return None if min(shape) else "; it has no pixels"
    if len(shape) == 2:
        return "; np.stack([image] * 3, axis=-1) makes one of a grey image"
    if len(shape) == 3 and shape[2] in (1, 2):
        return "; image[..., :1].repeat(3, axis=2) makes one of a grey image"
    if len(shape) == 3 and shape[2] == 4:
        return "; image[..., :3] leaves out the fourth channel"
    return "; image.transpose(1, 2, 0) puts the channels last" if len(shape) == 3 and shape[0] == 3 else ""


def _other_shape_wrong(shape: tuple[int, ...], channels: int) -> str | None:
    """As `_shape_wrong`, of an image for a network that does not take RGB."""
    taken = (GREY, RGB) if channels == GREY else (channels,)
    if (len(shape) == 2 and channels == GREY) or (len(shape) == 3 and shape[2] in taken):
        return None if min(shape) else "; it has no pixels"
    return "; image.transpose(1, 2, 0) puts the channels last" if len(shape) == 3 and shape[0] == channels else ""


def _kind_wrong(dtype: np.dtype) -> str | None:
    """How an array of a kind of number becomes an image of bytes, should that be known; None where it is one."""
    if dtype == np.uint8:
        return None
    if dtype.kind == "f":
        return "; (image * 255).round().astype(np.uint8) makes one of values from 0 to 1"
    if dtype.newbyteorder("=") == np.uint16:
        return "; (image >> 8).astype(np.uint8) makes one of values that fill 16 bits"
    return "; image.astype(np.uint8) makes one if its values are 0 to 255" if dtype.kind in "iub" else ""


@contextmanager
def judging(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without autograd; afterwards each module has its own mode back (some may be frozen)."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for module, training in modes:
            module.training = training


def number_of(model: nn.Module) -> torch.dtype:
    """The kind of number that a network computes in: that of its parameters; fp32 where it has none."""
    return next((value.dtype for value in model.parameters() if value.is_floating_point()), torch.float32)


def normalised(
    images: Sequence[np.ndarray], mean: Sequence[float], std: Sequence[float], device: torch.device | str,
    dtype: torch.dtype = torch.float32,
) -> Tensor:  # fmt: skip
    """Images (H,W,3) uint8 of one size as (N,K,H,W), less `mean` and divided by `std`, of K values, on the scale 0..1.

    They are brought to K channels as `in_channels` does it, travel as bytes, and are normalised in fp32 on the device.

    Raises:
        DataError: they have other channels than these.
    """
    shown = np.stack([in_channels(image, len(mean)) for image in images])
    rows = torch.from_numpy(shown).to(device).flatten(2).float()  # (N,H,W*K)
    width = rows.shape[2] // len(mean)
    mean_, std_ = (torch.tensor(x, dtype=torch.float32, device=device).repeat(width) for x in (mean, std))
    # (pixels / 255 - mean) / std, in one pass over whole rows
    pixels = torch.addcmul(-mean_ / std_, rows, 1 / (255 * std_))
    return pixels.unflatten(2, (width, len(mean))).permute(0, 3, 1, 2).to(dtype)


def class_ids(logits: Tensor, size: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """The most likely class of each pixel, (N,H,W) uint8 at `size`, and () bool: whether all largest logits are finite.

    Logits (N,C,h,w) of smaller images are brought to `size` bilinearly, a class at a time: of a large photo, those of
    all classes at once would fill gigabytes.
    """
    if tuple(logits.shape[-2:]) == tuple(size):
        # Not argmax, which is several times slower on the CPU; a NaN anywhere shows in the largest logit.
        largest, ids = logits.max(1)
        return ids.to(torch.uint8), torch.stack(largest.aminmax()).isfinite().all()
    largest = torch.full((), -torch.inf, device=logits.device)
    ids = torch.zeros((), dtype=torch.uint8, device=logits.device)
    for index in range(logits.shape[1]):
        here = F.interpolate(logits[:, index : index + 1].float(), size, mode="bilinear", align_corners=False)[:, 0]
        ids = torch.where(here > largest, index, ids)
        largest = torch.maximum(largest, here)  # keeps a NaN
    return ids, torch.stack(largest.aminmax()).isfinite().all()
