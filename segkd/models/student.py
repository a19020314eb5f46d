"""The student as a folder: written in smp's own form, read back, and asked for masks."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from segkd.foundation.errors import StorageError, TeacherError
from segkd.foundation.files import atomic_write, fsync_folder, write_failure
from segkd.models.adapters import Adapter, pad_to_multiple
from segkd.models.segnet import SegNet

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
    folder = next((inner for inner in (folder / "student", folder / "model") if inner.is_dir()), folder)
    for name in ("config.json", "model.safetensors", "preprocess.json"):
        if not (folder / name).is_file():
            raise TeacherError(f"{folder}: no {name}; name a student folder or the folder of a finished run")
    import segmentation_models_pytorch as smp

    try:
        preprocess = json.loads((folder / "preprocess.json").read_text())
        config = json.loads((folder / "config.json").read_text())
        kind = config.pop("_model_class")
        network = (SegNet if kind == SegNet.__name__ else getattr(smp, kind))(**config)
        from safetensors.torch import load_file

        network.load_state_dict(load_file(folder / "model.safetensors"), strict=True)
        return LoadedStudent(network, preprocess)
    except Exception as error:  # a damaged folder fails in many ways; all mean the same to the user
        reason = str(error).partition("\n")[0][:120]
        raise TeacherError(f"{folder}: not a readable student ({type(error).__name__}: {reason})") from error


def preprocessed(image: np.ndarray, preprocess: dict) -> Tensor:
    """One image (H,W,3) uint8 prepared as a `preprocess.json` says: (1,3,H',W'), padded to the network's multiple."""
    x = _normalised(image, preprocess["mean"], preprocess["std"])
    return pad_to_multiple(x, preprocess["size"]["multiple_of"])


def _normalised(image: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """An RGB image (H,W,3) uint8 as (1,3,H,W) float32, less `mean` and divided by `std` on the scale 0..1."""
    x = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float() / 255
    mean_, std_ = (torch.tensor(value).view(1, 3, 1, 1) for value in (mean, std))
    return (x - mean_) / std_
