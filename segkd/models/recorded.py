"""Statistics of a user's images in a teacher's layers: recorded once, in the place of those that BatchNorm remembers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from segkd.foundation.errors import TeacherError, one_line
from segkd.models.own import digest
from segkd.models.taps import BatchNormTap, Moments, last_maps, normalisations
from segkd.models.teacher import Teacher
from segkd.models.tensors import load_safetensors, to_safetensors

KIND = "statistics of images in the layers of a teacher"
"""What the file says of itself."""


@dataclass(frozen=True)
class RecordedStatistics:
    """Mean and biased variance (C,) of images at the inputs of a teacher's layers, by the layers' names.

    `images` is how many there were, `teacher` the SHA-256 of its parameters and buffers (`own.digest`).
    """

    images: int
    teacher: str
    layers: Mapping[str, Moments]

    def to_bytes(self) -> bytes:
        """A safetensors file: `NAME.mean` and `NAME.var` of each layer, and the rest in its metadata."""
        tensors = {
            f"{name}.{part}": value
            for name, moments in self.layers.items()
            for part, value in zip(("mean", "var"), moments, strict=True)
        }
        names = json.dumps([*self.layers])
        about = {"kind": KIND, "images": str(self.images), "teacher": self.teacher, "layers": names}
        return to_safetensors(tensors, **about, sha256=hash_of(tensors, about))


@torch.no_grad()
def record(teacher: Teacher, images: Iterable[Tensor]) -> RecordedStatistics:
    """The statistics of images (1,K,H,W) of any sizes, each of equal weight, in a teacher's normalisation layers.

    These are layers of every kind (BatchNorm, LayerNorm, GroupNorm, ...), at their inputs; of a teacher that has none, as one
    whose BatchNorm is folded, the last maps of each stage. So a teacher without BatchNorm has statistics to follow, too: a
    SegFormer's at some thirty layers.

    Raises:
        TeacherError: nothing of it can be listened to, or what it computes is not finite.
    """
    tap, count, sums = None, 0, {}
    for image in images:
        tap = tap or BatchNormTap(teacher.network, dict.fromkeys(_layers(teacher, image), (torch.empty(0),) * 2))
        with tap.open() as found:
            teacher(image)
        count += 1
        for layer in found:
            mean, var = layer.mean.double().cpu(), layer.var.double().cpu()
            times, first, second = sums.get(layer.name, (0, 0.0, 0.0))
            sums[layer.name] = times + 1, first + mean, second + var + mean.square()
    layers = {}
    for name, (times, first, second) in sums.items():
        mean = first / times
        layers[name] = mean.float(), (second / times - mean.square()).clamp_min(0).float()
        if not torch.cat(layers[name]).isfinite().all():
            raise TeacherError(f"{name}: what the teacher computes there is not finite for these images")
    if not layers:
        raise TeacherError("no layer of the teacher is given maps of more than one pixel: there is nothing to record")
    return RecordedStatistics(count, digest(teacher.network), layers)


def _layers(teacher: Teacher, image: Tensor) -> list[str]:
    found = [*normalisations(teacher.network)]
    if not found:
        teacher(image)  # says so where it gives no logits, from which the last maps are looked for
        found = [*last_maps(teacher.network, teacher.sizes.fitted(image))]
    if not found:
        raise TeacherError("no layer of the teacher can be listened to (of an exported program none can)")
    return found


def read_recorded(path: Path, teacher: Teacher) -> RecordedStatistics:
    """What `record` has written of a teacher, on the teacher's device.

    Raises:
        TeacherError: there is no such file, it is damaged, of another teacher, or does not fit this one's layers.
    """
    try:
        tensors = load_safetensors(path)
        with safe_open(path, "pt") as file:
            about = file.metadata() or {}
        if about.get("kind") != KIND:
            raise TeacherError(f"{path}: holds no statistics; make them with: segkd record RECIPE IMAGES --out {path}")
        if about.pop("sha256") != hash_of(tensors, about):
            raise ValueError("its bytes do not match the hash in it")
        names, images = json.loads(about["layers"]), int(about["images"])
        layers = {name: (tensors[f"{name}.mean"], tensors[f"{name}.var"]) for name in names}
    except FileNotFoundError as error:
        raise TeacherError(f"{path}: no such file; make it with: segkd record RECIPE IMAGES --out {path}") from error
    except (ValueError, KeyError, TypeError, OSError, SafetensorError) as error:
        raise TeacherError(f"{path}: damaged statistics ({one_line(error)}); record them again") from error
    if about["teacher"] != (own := digest(teacher.network)):
        what = f"statistics of another teacher (sha256 {one_line(about['teacher'][:12])}, and of this one {own[:12]})"
        raise TeacherError(f"{path}: {what}; record them with this one")
    _check_fit(path, layers, teacher.network)
    device = teacher.device
    return RecordedStatistics(
        images, own, {name: (mean.to(device), var.to(device)) for name, (mean, var) in layers.items()}
    )


def _check_fit(path: Path, layers: Mapping[str, Moments], network: nn.Module) -> None:
    modules = dict(network.named_modules())
    for name, (mean, var) in layers.items():
        if name not in modules:
            raise TeacherError(
                f"{path}: statistics of a layer {one_line(name)} that the teacher has not; record them again"
            )
        channels = getattr(modules[name], "num_features", len(mean))
        if mean.dim() != 1 or mean.shape != var.shape or len(mean) != channels:
            raise TeacherError(
                f"{path}: statistics of {name} that are not of its {channels} channels; record them again"
            )
        if not (torch.cat([mean, var]).isfinite().all() and var.min() >= 0):
            raise TeacherError(f"{path}: statistics of {name} that no images can have; record them again")
    if not layers:
        raise TeacherError(f"{path}: statistics of no layer; record them again")


def hash_of(tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> str:
    """The SHA-256 of what such a file holds, and says of it."""
    found = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name, value in sorted(tensors.items()):
        found.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        found.update(value.contiguous().view(-1).view(torch.uint8).numpy())
    return found.hexdigest()
