"""Both loops of a recipe, on the same teacher, student, generator, batch and size."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import nn

from segkd import build
from segkd.benchmark.reference import Reference
from segkd.data import catalogue
from segkd.foundation.errors import UsageError
from segkd.models.teacher import Teacher
from segkd.models.weights import load_weights, read_state, weights_file
from segkd.recipe import DistillRecipe, expand_root
from segkd.training.distiller import Distiller


@dataclass(frozen=True)
class Trained:
    """The teacher of a recipe before anything is changed for speed. Without a weights file its weights are random."""

    network: nn.Module
    names: tuple[str, ...]
    random: bool


def has_weights(recipe: DistillRecipe) -> bool:
    """Whether the file with the teacher's weights is there."""
    weights = recipe.teacher.weights
    return weights is not None and weights_file(expand_root(weights)).is_file()


def trained(recipe: DistillRecipe) -> Trained:
    """The recipe's teacher; where its weights are missing, one whose statistics have seen noise: as quick as another."""
    block, classes = recipe.teacher, catalogue.classes_of(recipe.teacher.classes)
    if block.student_classes is not None:
        raise UsageError("teacher.student_classes: the plain loop merges no classes; bench with student_classes=null")
    torch.manual_seed(0)
    path = expand_root(block.weights) if has_weights(recipe) else None
    network = build.network_of(block, len(classes), folder=path)
    if path is not None:
        load_weights(network, read_state(path), block.weights)
        return Trained(network, classes.names, False)
    with torch.no_grad():
        network.train()(torch.randn(2, 3, *recipe.synth.size))
    return Trained(network, classes.names, True)


def distiller(recipe: DistillRecipe, device: torch.device, bf16: bool) -> Distiller:
    """segkd's game, its bank full as in the middle of a run."""
    found = trained(recipe)
    teacher = Teacher(found.network, found.names, recipe.teacher.mean, recipe.teacher.std)
    game = build.distiller_of(recipe, teacher.to(device, memory_format=torch.channels_last), device, bf16)
    if game.bank is not None:
        game.play(0)
        if len(game.bank):
            kept = game.bank.draw(recipe.run.batch)
            while len(game.bank) < game.bank.capacity:
                game.bank.keep(*kept)
    return game


def reference(recipe: DistillRecipe, device: torch.device) -> Reference:
    """The plain loop on the same networks.

    Raises:
        UsageError: the recipe has no generator, or a network cannot take images of its size.
    """
    found = trained(recipe)
    plain = copy.deepcopy(found.network)  # a Teacher's is quickened
    teacher = Teacher(found.network, found.names, recipe.teacher.mean, recipe.teacher.std)
    generator = build.generator_network_of(recipe, teacher)
    if any(side % teacher.stride for side in recipe.synth.size):
        raise UsageError(f"synth.size: {list(recipe.synth.size)} must be a multiple of {teacher.stride} to be compared")
    student = build.network_of(recipe.student, len(found.names))
    return Reference(
        plain.to(device), student.to(device), generator.to(device),
        latent=recipe.synth.latent, size=recipe.synth.size, batch=recipe.run.batch, device=device,
    )  # fmt: skip
