"""A network as one file that runs where neither segkd nor its code is installed: a `torch.export` program."""

from __future__ import annotations

import copy
import io

import torch
from torch import nn

from segkd.foundation.channels import RGB


def program_bytes(network: nn.Module, stride: int, channels: int = RGB) -> bytes:
    """The bytes of a `.pt2` file of `network` in eval mode, in fp32 for the CPU; `torch.export.load(file).module()`.

    It takes any number N of images (N,channels,H,W), H and W multiples of `stride` from 2 * `stride` on. The network itself, its
    mode and its memory format stay as they are.
    """
    return saved_bytes(exported_program(network, stride, channels))


def exported_program(network: nn.Module, stride: int, channels: int = RGB) -> torch.export.ExportedProgram:
    """The same as a program in memory."""
    twin = copy.deepcopy(network).cpu().float().eval().requires_grad_(False).to(memory_format=torch.contiguous_format)
    # Two images and unequal sides, so that nothing that is equal by chance is taken for a rule.
    example = torch.zeros(2, channels, 2 * stride, 3 * stride)
    # Maps of 1 pixel, which smaller images would lead to, are a case apart for torch.export.
    rows, columns = (torch.export.Dim(name, min=2) for name in ("rows", "columns"))
    sizes = {0: torch.export.Dim("images"), 2: stride * rows, 3: stride * columns}
    program = torch.export.export(twin, (example,), dynamic_shapes=(sizes,))
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # where the code lay on this machine is nobody's business
    return program


def saved_bytes(program: torch.export.ExportedProgram) -> bytes:
    """The bytes of a program's file."""
    file = io.BytesIO()
    torch.export.save(program, file)
    return file.getvalue()
