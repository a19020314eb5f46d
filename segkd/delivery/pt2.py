"""A network as one file that runs where neither segkd nor its code is installed: a `torch.export` program."""

from __future__ import annotations

import copy
import io
import math
import operator

import torch
from torch import nn

from segkd.foundation.channels import RGB

_LEAST = 32
"""Pixels: of a network of any size, whose maps are smaller by 16 all the same."""


def program_bytes(network: nn.Module, stride: int, channels: int = RGB) -> bytes:
    """The bytes of a `.pt2` file of `network` in eval mode, in fp32 for the CPU; `torch.export.load(file).module()`.

    It takes any number N of images (N,channels,H,W), H and W multiples of `stride` from `least_side(stride)` on. The network itself, its
    mode and its memory format stay as they are.
    """
    return saved_bytes(exported_program(network, stride, channels))


def exported_program(network: nn.Module, stride: int, channels: int = RGB) -> torch.export.ExportedProgram:
    """The same as a program in memory."""
    twin = copy.deepcopy(network).cpu().float().eval().requires_grad_(False).to(memory_format=torch.contiguous_format)
    # Maps of 1 pixel, which smaller images would lead to, are a case apart for torch.export.
    least = least_side(stride) // stride
    rows, columns = (torch.export.Dim(name, min=least) for name in ("rows", "columns"))
    # Two images and unequal sides, so that nothing that is equal by chance is taken for a rule.
    example = torch.zeros(2, channels, least * stride, (least + 1) * stride)
    sizes = {0: torch.export.Dim("images"), 2: stride * rows, 3: stride * columns}
    program = torch.export.export(twin, (example,), dynamic_shapes=(sizes,))
    _in_whole_numbers(program.graph)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # where the code lay on this machine is nobody's business
    return program


def least_side(stride: int) -> int:
    """Pixels of the shortest side of an image that a program takes, of a network that takes multiples of `stride`."""
    return max(2 * stride, -(-_LEAST // stride) * stride)


def _in_whole_numbers(graph: torch.fx.Graph) -> None:
    """timm's networks pad by ceil(size / stride), which no file of a program can hold: the same by a division without a rest."""
    for node in [node for node in graph.nodes if node.target is math.ceil]:
        fraction = node.args[0]
        if not isinstance(fraction, torch.fx.Node) or fraction.target is not operator.truediv:
            continue
        size, stride = fraction.args
        with graph.inserting_before(node):
            above = graph.call_function(operator.add, (size, stride - 1))
            whole = graph.call_function(operator.floordiv, (above, stride))
        above.meta["val"], whole.meta["val"] = size.meta["val"] + stride - 1, node.meta["val"]
        node.replace_all_uses_with(whole)
        graph.erase_node(node)
        if not fraction.users:
            graph.erase_node(fraction)


def saved_bytes(program: torch.export.ExportedProgram) -> bytes:
    """The bytes of a program's file."""
    file = io.BytesIO()
    torch.export.save(program, file)
    return file.getvalue()
