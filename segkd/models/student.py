"""The student as a folder: written in smp's own form, read back, and asked for masks."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from segkd.foundation.errors import StorageError, TeacherError, one_line
from segkd.foundation.files import atomic_write, fsync_files, fsync_folder, write_failure
from segkd.foundation.memory import out_of_memory
from segkd.foundation.tensors import load_safetensors
from segkd.models.adapters import Adapter, is_local, load_weights, pad_to_multiple
from segkd.models.segnet import SegNet

MOST_JSON = 1_000_000
"""Bytes of `config.json` and of `preprocess.json`."""

LICENCE = "other"
LICENCE_NOTE = (
    "\n## Licence of the weights\n\nThe weights follow the licence of the teacher and of the data that it was trained on;"
    " `license: other` above says only that segkd cannot know it.\n"
)


def save_network(
    network: nn.Module, folder: Path, *, names: Sequence[str], palette: Sequence[Sequence[int]], mean: Sequence[float],
    std: Sequence[float], stride: int,
) -> Path:  # fmt: skip
    """Write `folder` in smp's form: `config.json`, `model.safetensors`, a model card, and `preprocess.json`.

    The folder loads without segkd: `smp.from_pretrained(folder)`, or for a SegNet `torch.export.load` of its
    `model.pt2`, on an input prepared as `preprocess.json` says. It appears whole or not at all.

    Raises:
        StorageError: the folder cannot be written.
    """
    preprocess = {
        "channels": "RGB",
        "range": [0.0, 1.0],
        "mean": list(mean),
        "std": list(std),
        "size": {"multiple_of": stride, "pad": "bottom and right, replicate", "crop": "the logits back to the image"},
        "classes": list(names),
        "palette": [list(colour) for colour in palette],
        "ignore": 255,
    }
    fresh = folder.with_name(f".tmp-{folder.name}-{os.getpid()}")
    try:
        shutil.rmtree(fresh, ignore_errors=True)
        network.save_pretrained(fresh)
        _rewrite_licence(fresh / "README.md")
        atomic_write(fresh / "preprocess.json", json.dumps(preprocess, indent=2) + "\n")
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


def _rewrite_licence(card: Path) -> None:
    """Replace smp's hard-coded MIT line, and say why: segkd cannot grant a licence on what a teacher learnt."""
    text = card.read_text()
    card.write_text(text.replace("license: mit", f"license: {LICENCE}", 1) + LICENCE_NOTE)


class LoadedStudent(Adapter):
    """A student (or teacher) read from its folder, with what is needed to use it on plain images.

    Attributes:
        names, palette: its classes and their colours.
        mean, std: normalisation of RGB images in [0,1].
    """

    def __init__(self, network: nn.Module, preprocess: dict) -> None:
        super().__init__(network, classes=len(preprocess["classes"]), stride=preprocess["size"]["multiple_of"])
        self.names: tuple[str, ...] = tuple(preprocess["classes"])
        self.palette: tuple[tuple[int, int, int], ...] = tuple(tuple(c) for c in preprocess["palette"])
        self.mean, self.std = tuple(preprocess["mean"]), tuple(preprocess["std"])
        self.eval()

    def predict(self, images: Sequence[np.ndarray] | np.ndarray) -> list[np.ndarray]:
        """Masks (H,W) uint8 of class ids for RGB images (H,W,3) uint8, each of its own size."""
        with torch.inference_mode():
            logits = (self(_normalised(image, self.mean, self.std)) for image in images)
            return [each.argmax(1)[0].to(torch.uint8).numpy() for each in logits]


def load_student(folder: str | Path) -> LoadedStudent:
    """The network of a student folder (or of a run folder that holds `student/` or `model/`), ready for `predict`.

    Raises:
        TeacherError: no such folder, a file missing in it, or weights that do not fit.
    """
    folder = Path(folder)
    folder = next((inner for inner in (folder / "student", folder / "model") if os.path.isdir(inner)), folder)
    for name in ("config.json", "model.safetensors", "preprocess.json"):
        if not os.path.isfile(folder / name):
            raise TeacherError(f"{folder}: no {name}; name a student folder or the folder of a finished run")
    try:
        preprocess = _checked(_read_json(folder / "preprocess.json"))
        network = _network_of(_read_json(folder / "config.json"), len(preprocess["classes"]))
        load_weights(network, load_safetensors(folder / "model.safetensors"), str(folder / "model.safetensors"))
        return LoadedStudent(network, preprocess)
    except TeacherError:
        raise
    except Exception as error:  # a damaged folder fails in many ways; all mean the same to the user
        if out_of_memory(error):
            raise
        raise TeacherError(f"{folder}: not a readable student ({type(error).__name__}: {one_line(error)})") from error


def _read_json(path: Path) -> dict[str, Any]:
    if path.stat().st_size > MOST_JSON:
        raise ValueError(f"{path.name}: larger than {MOST_JSON} bytes")
    value = json.loads(path.read_text())
    if not isinstance(value, dict):
        raise ValueError(f"{path.name}: expected an object")
    return value


def _checked(preprocess: dict[str, Any]) -> dict[str, Any]:
    """`preprocess.json` once every value that is used is what it should be."""
    names, palette, mean, std = (preprocess[key] for key in ("classes", "palette", "mean", "std"))
    multiple = preprocess["size"]["multiple_of"]
    triples = [value for value in (mean, std) if isinstance(value, list) and len(value) == 3]
    numbers = [number for triple in triples for number in triple if type(number) in (int, float)]
    right = {
        "classes": isinstance(names, list) and 0 < len(names) < 255 and all(isinstance(name, str) for name in names)
        and len(set(names)) == len(names),
        "palette": isinstance(palette, list) and [len(colour) for colour in palette] == [3] * len(names)
        and all(type(part) is int and 0 <= part <= 255 for colour in palette for part in colour),
        "mean and std": len(numbers) == 6 and all(map(math.isfinite, numbers)) and min(std) > 0,
        "size.multiple_of": type(multiple) is int and 1 <= multiple <= 1024,
    }  # fmt: skip
    wrong = [key for key, holds in right.items() if not holds]
    if wrong:
        raise ValueError(f"preprocess.json: {wrong[0]}: not what a student's folder says")
    return preprocess


def _network_of(config: dict[str, Any], classes: int) -> nn.Module:
    """The network that `config.json` describes; it is data from anybody, and must not lead to any other call."""
    import segmentation_models_pytorch as smp

    if config.get("classes") != classes:
        raise ValueError(f"config.json: {config.get('classes')} classes, but preprocess.json names {classes}")
    kind = config.pop("_model_class")
    if kind == SegNet.__name__:
        return SegNet(**config)
    make = getattr(smp, kind)
    if not (isinstance(make, type) and issubclass(make, smp.base.SegmentationModel)):
        raise ValueError(f"config.json: {kind} is no network of smp")
    if not is_local(config.get("encoder_name")):
        raise ValueError(f"config.json: no encoder is called {config['encoder_name']}")
    return make(**{**config, "encoder_weights": None})


def preprocessed(image: np.ndarray, preprocess: dict) -> Tensor:
    """One image (H,W,3) uint8 prepared as a `preprocess.json` says: (1,3,H',W'), padded to the network's multiple."""
    x = _normalised(image, preprocess["mean"], preprocess["std"])
    return pad_to_multiple(x, preprocess["size"]["multiple_of"])


def _normalised(image: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """An RGB image (H,W,3) uint8 as (1,3,H,W) float32, less `mean` and divided by `std` on the scale 0..1."""
    x = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float() / 255
    mean_, std_ = (torch.tensor(value).view(1, 3, 1, 1) for value in (mean, std))
    return (x - mean_) / std_
