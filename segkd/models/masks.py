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

from segkd.foundation.errors import ArgumentError

EXPECTED = "expected an RGB image as a NumPy array (H,W,3) of uint8, 0 to 255"
_READ = "np.asarray(PIL.Image.open(path).convert('RGB'))"


def as_images(given: object) -> tuple[list[np.ndarray], bool]:
    """The images (H,W,3) uint8 in the argument of a call, and whether it was one alone.

    Raises:
        ArgumentError: anything else, in one line that says what it is and how it becomes an image.
    """
    if isinstance(given, np.ndarray) and given.ndim != 4:
        return [_checked(given, "image")], True
    many = isinstance(given, (np.ndarray, Sequence, Iterator)) and not isinstance(given, (str, bytes))
    if not many:
        return [_checked(given, "images")], True
    return [_checked(image, f"images[{index}]") for index, image in enumerate(given)], False


def _checked(image: object, name: str) -> np.ndarray:
    if isinstance(image, np.ndarray):
        wrong = [hint for hint in (_shape_wrong(image.shape), _kind_wrong(image.dtype)) if hint is not None]
        if isinstance(image, np.ma.MaskedArray):
            wrong.append("; image.filled(0) makes one of a masked array")
        if wrong:
            raise ArgumentError(f"{name}: {image.dtype} of shape {image.shape}: {EXPECTED}{wrong[0]}")
        return image
    if isinstance(image, (str, PathLike)):
        raise ArgumentError(f"{name}: a path: {EXPECTED}; {_READ} reads a file, segkd.visualize draws files")
    if isinstance(image, Tensor):
        how = "tensor.permute(1, 2, 0).cpu().numpy() makes one of (3,H,W)"
        raise ArgumentError(f"{name}: a {str(image.dtype)[6:]} tensor of shape {tuple(image.shape)}: {EXPECTED}; {how}")
    if isinstance(image, Image.Image):
        raise ArgumentError(f"{name}: a PIL image: {EXPECTED}; np.asarray(image.convert('RGB')) makes one")
    raise ArgumentError(f"{name}: {type(image).__name__}: {EXPECTED}, or a list of them")


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
    """RGB images (H,W,3) uint8 of one size as (N,3,H,W), less `mean` and divided by `std` on the scale 0..1.

    They travel as bytes, and are normalised in fp32 on the device.
    """
    rows = torch.from_numpy(np.stack(images)).to(device).flatten(2).float()  # (N,H,W*3)
    width = rows.shape[2] // 3
    mean_, std_ = (torch.tensor(x, dtype=torch.float32, device=device).repeat(width) for x in (mean, std))
    # (pixels / 255 - mean) / std, in one pass over whole rows
    pixels = torch.addcmul(-mean_ / std_, rows, 1 / (255 * std_))
    return pixels.unflatten(2, (width, 3)).permute(0, 3, 1, 2).to(dtype)


def class_ids(logits: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
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
