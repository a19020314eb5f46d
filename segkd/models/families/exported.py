"""Networks that were exported whole, as TorchScript or by torch.export: one file holds the program and its weights.

No hook hears what runs inside: they show neither statistics nor features.
"""

from __future__ import annotations

import math
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from segkd.foundation.errors import TeacherError, one_line
from segkd.machine.memory import out_of_memory
from segkd.models.family import Builder, Family, Sizes

NAMES = ("exported",)
ONLY_TEACHERS = True
FROM_FOLDER = True


class Program(nn.Module):
    """A program as a module: images (N,3,H,W) to what it gives.

    Attributes:
        batch: the only number of images that it takes, to which others are brought; None: any.
        sizes: the sizes of images that it says it takes.
    """

    def __init__(self, program: nn.Module, batch: int | None, sizes: Sizes) -> None:
        super().__init__()
        self.program, self.batch, self.sizes = program, batch, sizes

    def train(self, mode: bool = True) -> Program:
        """Of an exported graph the mode is what it was."""
        if isinstance(self.program, torch.jit.ScriptModule):
            return super().train(mode)
        self.training = mode
        return self

    def forward(self, images: Tensor) -> object:
        """In fp32: a graph may state the dtypes of its maps. Not optimised as it runs, so that all moves compute alike."""
        with torch.autocast(images.device.type, enabled=False), torch.jit.optimized_execution(False):
            if self.batch in (None, len(images)):
                return self.program(images.float())
            lacking = -len(images) % self.batch
            parts = torch.cat([images, images[-1:].expand(lacking, -1, -1, -1)]).float().split(self.batch)
            return _joined([self.program(part) for part in parts], len(images))


def _joined(parts: list, count: int) -> object:
    """What a program gave for the parts of a batch, as if for all of it."""
    if isinstance(parts[0], Mapping):
        return {key: _joined([part[key] for part in parts], count) for key in parts[0]}
    if isinstance(parts[0], list | tuple):
        return [_joined(list(some), count) for some in zip(*parts, strict=True)]
    return torch.cat(parts)[:count] if isinstance(parts[0], Tensor) else parts[0]


def loaded(path: Path) -> Program:
    """The program in a file. It is code: whoever loads it trusts it.

    Raises:
        TeacherError: it is none, or it takes something else than one tensor (N,3,H,W).
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if _is_script(path):
                return Program(torch.jit.load(path, map_location="cpu"), None, Sizes(32))
            exported = torch.export.load(path)
    except Exception as error:  # torch raises many kinds for a damaged file, and for one of another version
        if out_of_memory(error):
            raise
        kinds = "a TorchScript archive nor a .pt2 of torch.export"
        raise TeacherError(f"{path}: neither {kinds}: {one_line(error)}") from error
    inputs = exported.graph_signature.user_inputs
    value = (
        next((node.meta.get("val") for node in exported.graph.nodes if node.name == inputs[0]), None)
        if inputs
        else None
    )
    if len(inputs) != 1 or not isinstance(value, Tensor) or value.ndim != 4:
        raise TeacherError(f"{path}: takes something else than one tensor of images (N,3,H,W); export it so")
    number, _, *sides = value.shape
    fixed = all(isinstance(side, int) for side in sides)
    if not fixed and any(isinstance(side, int) for side in sides):
        raise TeacherError(
            f"{path}: takes images of one height or one width only; export it with both fixed, or neither"
        )
    if fixed:
        sizes = Sizes(fixed=tuple(sides))
    else:
        sizes = Sizes(math.lcm(*(int(side.node.expr.as_coeff_Mul()[0]) for side in sides)))
    return Program(exported.module(), number if isinstance(number, int) else None, sizes)


def _is_script(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        raise ValueError("no archive")
    with zipfile.ZipFile(path) as archive:
        return any(name.partition("/")[2] == "constants.pkl" for name in archive.namelist())


class Exported(Family):
    """Programs, of which torch can run what others have written."""

    from_folder = whole = True

    def architectures(self) -> Mapping[str, Builder]:
        return dict.fromkeys(NAMES, loaded)

    def build_from(self, kind: Builder, folder: Path, classes: int, channels: int) -> nn.Module:
        return kind(folder)

    def owns(self, network: nn.Module) -> bool:
        return isinstance(network, Program)

    def sizes(self, network: nn.Module) -> Sizes:
        return network.sizes


FAMILY = Exported()
