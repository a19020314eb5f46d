"""Both loops of a recipe, on the same teacher, student, generator, batch and size."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segkd import builders
from segkd.benchmark.reference import Reference
from segkd.data import catalogue
from segkd.foundation.errors import UsageError
from segkd.models.adapters import as_logits
from segkd.models.weights import weights_file
from segkd.recipe import DistillRecipe, expand_root
from segkd.training.distiller import Distiller


@dataclass(frozen=True)
class Trained:
    """The teacher of a recipe before anything is changed for speed. Without a weights file its weights are random."""

    network: nn.Module
    random: bool


def has_weights(recipe: DistillRecipe) -> bool:
    """Whether the file with the teacher's weights is there."""
    weights = recipe.teacher.weights
    return weights is not None and weights_file(expand_root(weights)).is_file()


def trained(recipe: DistillRecipe) -> Trained:
    """The recipe's teacher; where its weights are missing, one whose statistics have seen noise: as quick as another."""
    block = recipe.teacher
    torch.manual_seed(0)
    if has_weights(recipe):
        return Trained(builders.trained_network(block), False)
    network = builders.network_of(block, len(catalogue.class_map(*block.mapped_classes).teacher), block.channels)
    with torch.no_grad():
        network.train()(torch.randn(2, block.channels, *recipe.synth.size))
    return Trained(network, True)


def distiller(recipe: DistillRecipe, device: torch.device, bf16: bool) -> Distiller:
    """segkd's game, its bank full as in the middle of a run."""
    found = trained(recipe)
    teacher = builders.teacher_around(found.network, recipe.teacher)
    game = builders.distiller_of(recipe, teacher.to(device, memory_format=torch.channels_last), device, bf16)
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
        UsageError: the recipe has no generator, or a network cannot take images of its size or gives no logits for
            the student's classes.
    """
    for key, said in (("student_classes", "merges no classes"), ("size", "resamples no images")):
        if getattr(recipe.teacher, key) is not None:
            raise UsageError(f"teacher.{key}: the plain loop {said}; bench with {key}=null")
    if (
        takes := {"unet": "changes pictures", "conditional": "paints maps of classes"}.get(recipe.synth.kind)
    ) is not None:
        why = f"{recipe.synth.kind} {takes}, and the plain loop's generator paints latents"
        raise UsageError(f"synth.kind: {why}; bench with synth.kind=resize")
    if recipe.teacher.output != "logits":
        raise UsageError("teacher.output: the plain loop makes no logits of probabilities; bench with output=logits")
    found = trained(recipe)
    plain = Logits(copy.deepcopy(found.network))  # a Teacher's is quickened
    teacher = builders.teacher_around(found.network, recipe.teacher)
    generator = builders.generator_network_of(recipe, teacher)
    if any(side % teacher.stride for side in recipe.synth.size):
        raise UsageError(f"synth.size: {list(recipe.synth.size)} must be a multiple of {teacher.stride} to be compared")
    student = builders.network_of(recipe.student, len(teacher.names), teacher.channels)
    return Reference(
        plain.to(device), student.to(device), generator.to(device),
        latent=recipe.synth.latent, size=recipe.synth.size, batch=recipe.run.batch, device=device,
    )  # fmt: skip


class Logits(nn.Module):
    """A network whose logits may lie in a dict, and have a stride of their own."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        logits = as_logits(self.network(images))
        return (
            logits if logits.shape[2:] == images.shape[2:] else F.interpolate(logits, images.shape[2:], mode="bilinear")
        )
