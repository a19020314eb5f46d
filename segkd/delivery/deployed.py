"""A student as it is deployed: with or without its normalisation and the choice of a class, and images prepared for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segkd.delivery.folder import LoadedStudent
from segkd.foundation.resize import reduced
from segkd.models.adapters import as_logits

BYTES = 255.0
"""The largest value of an image that is not normalised yet."""


class Deployed(nn.Module):
    """Images (N,K,H,W) to logits (N,C,H,W), or to class ids (N,H,W) uint8; H and W are multiples of the student's.

    Args:
        normalises: images are given as numbers from 0 to 255, and normalised here; else by whoever gives them.
        chooses: the answer is the class with the largest logit.
    """

    def __init__(self, student: LoadedStudent, normalises: bool = False, chooses: bool = False) -> None:
        super().__init__()
        self.network, self.chooses = student.network, chooses
        mean, std = (torch.tensor(values).view(1, -1, 1, 1) * BYTES for values in (student.mean, student.std))
        self.register_buffer("mean", mean if normalises else None)
        self.register_buffer("std", std if normalises else None)

    def forward(self, images: Tensor) -> Tensor:
        """Logits or class ids."""
        if self.mean is not None:
            images = (images - self.mean) / self.std
        logits = as_logits(self.network(images))
        return logits.argmax(1).to(torch.uint8) if self.chooses else logits


def prepared(student: LoadedStudent, image: np.ndarray, normalises: bool, least: int = 1) -> np.ndarray:
    """An image (H,W,K) uint8 as the deployed student takes it: (1,K,h,w) float32, reduced and padded as it is used to.

    Its sides are padded to `least` pixels at least, which a file may ask for.
    """
    x = np.atleast_3d(reduced(image, student.shorter_side)).astype(np.float32)
    if not normalises:
        x = (x / np.float32(BYTES) - np.float32(student.mean)) / np.float32(student.std)
    return np.ascontiguousarray(padded(student, torch.from_numpy(x).permute(2, 0, 1)[None], least).numpy())


def padded(student: LoadedStudent, images: Tensor, least: int) -> Tensor:
    """Images (N,K,H,W) with sides that the student takes, of at least `least` pixels: bottom and right, by replication."""
    bottom, right = (max(0, least - side) for side in images.shape[-2:])
    return student.sizes.fitted(F.pad(images, (0, right, 0, bottom), mode="replicate"))


def denormalised(student: LoadedStudent, images: Tensor) -> Tensor:
    """Normalised images (N,K,H,W) as numbers from 0 to 255."""
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (student.mean, student.std))
    return (images * std + mean) * BYTES


def output_name(chooses: bool) -> Literal["classes", "logits"]:
    """What the answer is called in a file."""
    return "classes" if chooses else "logits"


def about(student: LoadedStudent, normalises: bool, chooses: bool, least: int) -> dict[str, object]:
    """What whoever runs the file has to know, as JSON; `least` is the shortest side of an image that it takes."""
    values: dict[str, Sequence[object]] = {"mean": student.mean, "std": student.std}
    return {
        "classes": list(student.names), "palette": [list(colour) for colour in student.palette],
        "input": "numbers from 0 to 255" if normalises else "x / 255, less mean, divided by std",
        **{name: list(value) for name, value in values.items()}, "output": output_name(chooses),
        "shorter_side": student.shorter_side, "multiple_of": student.stride, "least_side": least,
        "pad": "bottom and right, replicate",
    }  # fmt: skip
