"""The student as a folder: written in smp's own form, read back, and asked for masks."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, overload

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, TypeAdapter, ValidationError, model_validator
from safetensors import SafetensorError
from safetensors.torch import save as safetensors_bytes
from torch import nn

from segkd.delivery.card import model_card
from segkd.delivery.pt2 import program_bytes
from segkd.foundation.channels import MOST_CHANNELS, READ, RGB, name_of
from segkd.foundation.errors import ArgumentError, NumbersError, StorageError, TeacherError, one_line
from segkd.foundation.files import atomic_write, fsync_files, fsync_folder, write_failure
from segkd.foundation.resize import LARGEST_SIDE, PROTOCOL_SIDE, Size, reduced, side_of
from segkd.foundation.rng import check_idle
from segkd.machine.ambient import as_new
from segkd.machine.memory import out_of_memory
from segkd.models.adapters import Adapter
from segkd.models.building import at_most, fitting_mb, is_local, unknown_arguments
from segkd.models.families.segnet import STRIDE, SegNet
from segkd.models.family import Family, Sizes, architectures, family_of
from segkd.models.masks import as_images, class_ids, judging, normalised, number_of
from segkd.models.tensors import load_safetensors
from segkd.models.weights import load_weights

_Byte = Annotated[int, Field(ge=0, le=255)]
_CONFIG = TypeAdapter(dict[str, Any], config=ConfigDict(title="config.json"))
MOST_JSON = 1_000_000
"""Bytes of `config.json` and of `preprocess.json`."""


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class _Size(_Strict):
    shorter_side: int | None = Field(PROTOCOL_SIDE, ge=1, le=LARGEST_SIDE)
    reduce: str = "images whose shorter side is longer, bilinear and antialiased; null: none"
    multiple_of: int = Field(ge=1, le=1024)
    pad: str = "bottom and right, replicate"
    crop: str = "the logits back to the image"
    enlarge: str = "the logits to the image's own size, bilinear"


def _called(channels: int) -> str | int:
    return name_of(channels) if channels in READ else channels


class Preprocess(_Strict):
    """What a network is shown and what it answers, in numbers and in words."""

    model_config = ConfigDict(title="preprocess.json")
    channels: Literal["RGB", "grey"] | Annotated[int, Field(ge=2, le=MOST_CHANNELS)] = "RGB"
    range: tuple[float, float] = (0.0, 1.0)
    mean: tuple[float, ...]
    std: tuple[PositiveFloat, ...]
    size: _Size
    classes: Annotated[tuple[str, ...], Field(min_length=1, max_length=254)]
    palette: tuple[tuple[_Byte, _Byte, _Byte], ...]
    ignore: int = 255

    @model_validator(mode="after")
    def _as_drawn(self) -> Self:
        if self.range != (0, 1) or not len(self.classes) == len(set(self.classes)) == len(self.palette):
            raise ValueError("another range than 0 to 1, a class twice, or not as many classes as colours")
        if self.channels != _called(len(self.mean)) or len(self.mean) != len(self.std):
            raise ValueError("not as many values of mean, or of std, as channels")
        return self


def save_network(
    network: nn.Module, folder: Path, *, names: Sequence[str], palette: Sequence[Sequence[int]], mean: Sequence[float],
    std: Sequence[float], stride: int, shorter_side: int | None, known: Sequence[str] = (),
) -> Path:  # fmt: skip
    """Write `folder` in smp's form: `config.json`, `model.safetensors`, a model card, and `preprocess.json`.

    The folder loads without segkd: `smp.from_pretrained(folder)`, for a SegNet `torch.export.load` of its `model.pt2`, for
    a network of torchvision its builder and `model.safetensors`; on an input prepared as `preprocess.json` says. It appears
    whole or not at all.

    Args:
        shorter_side: pixels of the shorter side to which larger images are reduced, as it was made and measured; None:
            they are shown as they are.
        known: lines of the card about how it was made and what it reaches; see `write_card`.

    Raises:
        StorageError: the folder cannot be written.
    """
    size = {"shorter_side": shorter_side, "multiple_of": stride}
    about = {
        "channels": _called(len(mean)),
        "mean": mean,
        "std": std,
        "size": size,
        "classes": names,
        "palette": palette,
    }
    preprocess = Preprocess.model_validate(about, strict=False).model_dump()
    fresh = folder.with_name(f".tmp-{folder.name}-{os.getpid()}")
    try:
        shutil.rmtree(fresh, ignore_errors=True)
        _save(network, fresh, len(mean))
        atomic_write(fresh / "preprocess.json", json.dumps(preprocess, indent=2) + "\n")
        write_card(fresh, network, known)
        _share(fresh)
        fsync_files(fresh)
        fsync_folder(fresh)
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(fresh, folder)
        fsync_folder(folder.parent)
    except (OSError, SafetensorError, StorageError) as error:  # the last two wrap what the disk said
        needed = sum(value.nbytes for value in network.state_dict().values())
        reason = error.__cause__ if isinstance(error.__cause__, OSError) else error
        message = write_failure(folder, needed, reason)  # before the clean-up, which frees some space
        shutil.rmtree(fresh, ignore_errors=True)
        raise StorageError(f"{message}; free space, or choose another run.dir") from error
    return folder


def _save(network: nn.Module, folder: Path, channels: int) -> None:
    """Write what smp's networks write by themselves, and of a SegNet `model.pt2`, which runs where segkd is not installed."""
    config = family_of(network).config(network)
    if config is None:
        network.save_pretrained(folder)
        return
    folder.mkdir(parents=True, exist_ok=True)
    state = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    atomic_write(folder / "config.json", json.dumps(config, indent=2) + "\n")
    atomic_write(folder / "model.safetensors", safetensors_bytes(state, metadata={"format": "pt"}))
    if isinstance(network, SegNet):
        atomic_write(folder / "model.pt2", program_bytes(network, STRIDE, channels))


def write_card(folder: Path, network: nn.Module, known: Sequence[str]) -> None:
    """Write the model card of a student's folder, with what is known of the network by now; see `model_card`.

    Raises:
        StorageError: it cannot be written.
    """
    preprocess = json.loads((folder / "preprocess.json").read_text())
    atomic_write(folder / "README.md", model_card(network, preprocess, known, (folder / "model.pt2").is_file()))


def _share(folder: Path) -> None:
    """Give every file the permissions that new files have: safetensors lets none but the owner read what it writes."""
    mode = stat.S_IMODE((folder / "preprocess.json").stat().st_mode)
    for path in folder.iterdir():
        if path.is_file():
            path.chmod(mode)


class LoadedStudent(Adapter):
    """A student (or teacher) read from its folder, with what is needed to use it on plain images.

    Attributes:
        names, palette: its classes and their colours.
        mean, std: normalisation of images in [0,1], a value for each channel.
        shorter_side: pixels of the shorter side to which larger images are reduced before the network sees them, as when
            it was made and measured; None: they are shown as they are. Where the folder does not say so (`size_known`
            is False; before November 2026 none did), it is 256, as `segkd eval` always had it.
    """

    def __init__(self, network: nn.Module, about: Preprocess) -> None:
        sizes, channels = Sizes(about.size.multiple_of), len(about.mean)
        super().__init__(network, classes=len(about.classes), sizes=sizes, channels=channels)
        self.names, self.palette, self.mean, self.std = about.classes, about.palette, about.mean, about.std
        self.size_known = "shorter_side" in about.size.model_fields_set
        self.shorter_side = about.size.shorter_side
        self.eval()

    @overload
    def predict(self, images: np.ndarray, size: Size | None = None) -> np.ndarray: ...

    @overload
    def predict(self, images: Sequence[np.ndarray], size: Size | None = None) -> list[np.ndarray]: ...

    def predict(
        self, images: np.ndarray | Sequence[np.ndarray], size: Size | None = None
    ) -> np.ndarray | list[np.ndarray]:
        """Masks (H,W) uint8 of class ids for RGB images (H,W,3) uint8, each at its image's own size.

        A network of grey images takes (H,W), (H,W,1), and RGB, which it turns grey (luma of ITU-R BT.601, as Pillow's
        `convert("L")`); one of other channels takes (H,W,K).

        The network runs in evaluation mode, where it is and in the numbers that it has: after `.cuda().half()` on the
        GPU in fp16.

        Args:
            images: one image, which gives one mask, or a list of images of any sizes, which gives a list.
            size: what the network is shown: `protocol` a shorter side of at most 256 pixels, `original` the image as it
                is, or a number of pixels; None: what it was made and measured at (`shorter_side`).

        Raises:
            ArgumentError: a UsageError and a TypeError: anything but uint8 with such channels, or another size.
            NumbersError: the logits are not finite.
        """
        found, alone = as_images(images, self.channels)
        side = self.shorter_side if size is None else side_of(size)
        device = next((value.device for value in self.parameters()), torch.device("cpu"))
        masks = []
        with judging(self):
            for image in found:
                x = normalised([reduced(image, side)], self.mean, self.std, device, number_of(self))
                ids, finite = class_ids(self(x), image.shape[:2])
                if not finite:
                    raise NumbersError(
                        f"the network's logits are not finite in {str(x.dtype)[6:]}: its masks mean nothing"
                    )
                masks.append(ids[0].cpu().numpy())
        return masks[0] if alone else masks


def student_folder(folder: Path) -> Path:
    """That of the network that a run has made, or the folder itself."""
    return next((inner for inner in (folder / "student", folder / "model") if os.path.isdir(inner)), folder)


@as_new()
def load_student(folder: str | Path) -> LoadedStudent:
    """The network of a student folder (or of a run folder that holds `student/` or `model/`), ready for `predict`.

    Raises:
        TeacherError: no such folder, a file missing in it, or weights that do not fit.
        UsageError: a run goes on in another thread, or `folder` is no path.
    """
    check_idle()
    if not isinstance(folder, (str, os.PathLike)):
        raise ArgumentError(f"folder: expected the path of a student or run folder, got {type(folder).__name__}")
    folder = student_folder(Path(folder))
    for name in ("config.json", "model.safetensors", "preprocess.json"):
        if not os.path.isfile(folder / name):
            raise TeacherError(f"{folder}: no {name}; name a student folder or the folder of a finished run")
    try:
        about = Preprocess.model_validate_json(_text(folder / "preprocess.json"))
        state = load_safetensors(folder / "model.safetensors")
        config = _CONFIG.validate_json(_text(folder / "config.json"))
        network = _network_of(config, about, fitting_mb(state))
        load_weights(network, state, str(folder / "model.safetensors"))
        return LoadedStudent(network, about)
    except TeacherError:
        raise
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, (error.title, *first["loc"])))
        raise TeacherError(f"{folder}: not a readable student ({where}: {one_line(first['msg'])})") from error
    except Exception as error:  # a damaged folder fails in many ways; all mean the same to the user
        if out_of_memory(error):
            raise
        raise TeacherError(f"{folder}: not a readable student ({type(error).__name__}: {one_line(error)})") from error


def _text(path: Path) -> str:
    if path.stat().st_size > MOST_JSON:
        raise ValueError(f"{path.name}: larger than {MOST_JSON} bytes")
    return path.read_text()


def _network_of(config: dict[str, Any], about: Preprocess, megabytes: float) -> nn.Module:
    """The network that `config.json` describes; it is data from anybody, and must not lead to any other call."""
    classes, multiple = len(about.classes), about.size.multiple_of
    if config.get("classes") != classes:
        raise ValueError(f"config.json: {config.get('classes')} classes, but preprocess.json names {classes}")
    name, encoder = config.pop("_model_class"), config.get("encoder_name")
    family, kind = architectures().get(name, (None, None))
    if family is None or type(family).build is Family.build:
        raise ValueError(f"config.json: {name} is no network that a student can be")
    if not is_local(encoder):
        raise ValueError(f"config.json: no encoder is called {encoder}")
    if unknown := unknown_arguments(kind, encoder, config):
        raise ValueError(f"config.json: {unknown[0]} is no argument of {name}")
    if config.get("activation") or config.get("aux_params"):
        raise ValueError("config.json: not a network of images to logits alone")
    if config.get("in_channels", RGB) != len(about.mean):
        raise ValueError(
            f"config.json: images of {config.get('in_channels', RGB)} channels, but of {len(about.mean)} in preprocess.json"
        )
    with at_most(megabytes):
        options = {
            key: value for key, value in config.items() if key not in ("classes", "encoder_name", "encoder_weights")
        }
        network = family.build(kind, encoder, classes, options)
    need = family.sizes(network).multiple
    if multiple % need:
        raise ValueError(f"preprocess.json: size.multiple_of: {multiple}, but the network needs multiples of {need}")
    return network
