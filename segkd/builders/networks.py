"""Networks of a recipe: as they are built, what they start from, and how they are called."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from segkd.foundation.channels import RGB
from segkd.foundation.errors import RecipeError
from segkd.machine import ranks
from segkd.models.building import create_network
from segkd.models.selection import select_weights
from segkd.models.teacher import Teacher
from segkd.models.weights import first_few, load_weights, read_state
from segkd.recipe import blocks, expand_root


def network_of(
    model: blocks.Model | blocks.Student, classes: int, channels: int = RGB, megabytes: float | None = None,
    folder: Path | None = None,
) -> nn.Module:  # fmt: skip
    """The network of a recipe block, with random weights drawn from torch's global generator; `folder`: of its weights.

    Raises:
        RecipeError: it cannot be built, or not in so many MB.
    """
    block = {blocks.Teacher: "teacher", blocks.Student: "student"}.get(type(model), "model")
    options = {key: value for key, value in model.options.items() if key != "in_channels"}  # is known to agree
    return create_network(
        model.arch, model.encoder, classes, options, channels=channels, block=block, megabytes=megabytes, folder=folder
    )


def start_from(network: nn.Module, weights: str | None) -> None:
    """Load the weights that a fresh network starts from: those of its encoder, or of all of it; None or `none`: no change."""
    if weights is None or weights == "none":
        return
    path = Path(expand_root(weights))
    state = read_state(path)
    encoder = getattr(network, "encoder", getattr(network, "backbone", None))  # as smp and as torchvision call it
    is_encoder = encoder is not None and state.keys() <= encoder.state_dict().keys()
    load_weights(encoder if is_encoder else network, state, str(path))


def start_from_teacher(network: nn.Module, teacher: Teacher) -> None:
    """Give a fresh student evenly spaced channels of the teacher's weights; a line tells which tensors have none.

    Raises:
        RecipeError: none has.
    """
    left = select_weights(network, teacher.network, teacher.classes, teacher.first_members)
    numbers = sum(value.is_floating_point() for value in network.state_dict().values())
    if len(left) == numbers:
        raise RecipeError([
            f"student.weights: teacher, but the teacher has no tensor for {left[0]} or any other of the student, with as many"
            " channels or more; set student.weights=none, or the teacher's arch and encoder"
        ])  # fmt: skip
    if left:
        why = "for the teacher has none so large"
        ranks.say(f"student.weights: {len(left)} of {numbers} tensors start fresh, {why}: {first_few(left)}")


def classes_at_start(student: blocks.Student, classes: int, channels: int) -> int:
    """The number of classes of the weights that a student starts from; `classes` where they tell none, or do not fit."""
    if student.weights in ("none", "teacher"):
        return classes
    state = read_state(Path(expand_root(student.weights)))
    own = network_of(student, classes, channels).state_dict()
    counts = set()
    for key, here in own.items():
        there = state.get(key, here)
        if here.ndim and there.ndim and here.shape[1:] == there.shape[1:] and len(here) == classes != len(there):
            counts.add(len(there))
    return counts.pop() if len(counts) == 1 else classes


def described(model: blocks.Model | blocks.Student) -> str:
    """Architecture and encoder of a block, in words."""
    return f"{model.arch} with encoder {model.encoder}" if model.encoder else model.arch
