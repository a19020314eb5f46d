"""CamVid's teacher with the inputs and heads that other people's networks have, each a builder of `--teacher-file`.

    segkd distill panel/camvid_heads --teacher-file recipes/panel/heads.py:grey teacher.mean='[0.5]' teacher.std='[0.5]'
    python recipes/panel/heads.py DIR           # the same network as programs: DIR/camvid.pt (TorchScript) and DIR/camvid.pt2
    python recipes/panel/heads.py RUN CAMVID    # mIoU of a run with four channels on the val of a folder: segkd reads no such files

It is not trained anew: what is to be seen is that such a network is taken as it is.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import segmentation_models_pytorch as smp
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from segkd import load_student
from segkd.data import catalogue
from segkd.evaluation.evaluate import evaluate
from segkd.models.teacher import Teacher
from segkd.runs.labelled import Labelled

WEIGHTS = Path(__file__).resolve().parents[1] / "teachers/camvid_deeplabv3plus.safetensors"
FOUR = [0.5] * 4
"""Mean and standard deviation of each channel."""
GROUND = [3, 4]
"""Road and pavement."""


def colour() -> nn.Module:
    """The network as it ships: images (N,3,H,W) to logits (N,11,H,W)."""
    network = smp.DeepLabV3Plus(
        "tu-resnet10t", encoder_weights=None, classes=11, decoder_channels=192, channels=[48, 96, 192, 384], stem_width=24
    )  # fmt: skip
    network.load_state_dict(
        {name: value.float() if value.is_floating_point() else value for name, value in load_file(WEIGHTS).items()}
    )
    return network


def grey() -> nn.Module:
    """Images (N,1,H,W): the first layer sees all three colours alike."""
    return _first_layer(colour(), lambda weight: weight.sum(1, keepdim=True))


def four_channels() -> nn.Module:
    """Images (N,4,H,W), of which the last is left out."""
    return _first_layer(colour(), lambda weight: torch.cat([weight, torch.zeros_like(weight[:, :1])], 1))


def _first_layer(network: nn.Module, change: Callable[[Tensor], Tensor]) -> nn.Module:
    first = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
    first.weight = nn.Parameter(change(first.weight.data))
    first.in_channels = first.weight.shape[1]
    return network


class OneLogit(nn.Module):
    """One map (N,1,H,W), above 0 where the ground is: road or pavement."""

    def __init__(self) -> None:
        super().__init__()
        self.network = colour()

    def forward(self, images: Tensor) -> Tensor:
        logits = self.network(images)
        others = [each for each in range(logits.shape[1]) if each not in GROUND]
        return logits[:, GROUND].logsumexp(1, keepdim=True) - logits[:, others].logsumexp(1, keepdim=True)


class Softmax(nn.Module):
    """Probabilities in place of logits."""

    def __init__(self) -> None:
        super().__init__()
        self.network = colour()

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images).softmax(1)


def write_programs(folder: Path) -> None:
    """What `torch.jit.save` and `torch.export.save` make of the network."""
    network, shown = colour().eval(), torch.zeros(2, 3, 192, 256)
    folder.mkdir(parents=True, exist_ok=True)
    torch.jit.trace(network, shown).save(folder / "camvid.pt")
    batch = torch.export.Dim("batch")  # timm's padding cannot be exported for images of any size
    torch.export.save(torch.export.export(network, (shown,), dynamic_shapes=({0: batch},)), folder / "camvid.pt2")


def miou_of(network: nn.Module, camvid: str) -> float:
    """On the images of val, beside whose colours a fourth channel of zeros stands: no data set has such images."""
    images = Labelled(catalogue.measuring("camvid", camvid, "val", catalogue.class_map("camvid")), "protocol")
    images[:] = [replace(each, image=np.pad(each.image, ((0, 0), (0, 0), (0, 1)))) for each in images]
    return evaluate(network, images, mean=FOUR, std=FOUR)["miou"]


def main() -> None:
    if len(sys.argv) == 2:
        write_programs(Path(sys.argv[1]))
        return
    run, camvid = sys.argv[1:]
    teacher = Teacher(four_channels(), catalogue.classes_of("camvid").names, FOUR, FOUR)
    found = {"teacher_miou": miou_of(teacher, camvid), "student_miou": miou_of(load_student(run), camvid)}
    sys.stdout.write(f"{json.dumps(found)}\n")


if __name__ == "__main__":
    main()
