"""Where the images of a recipe come from, and the bank that keeps them."""

from __future__ import annotations

import torch
from torch import nn

from segkd.builders.player import player_of
from segkd.data import catalogue
from segkd.data.photos import Photos
from segkd.foundation.errors import RecipeError
from segkd.machine import ranks
from segkd.machine.passes import Passes
from segkd.models.teacher import Teacher, input_range
from segkd.recipe import DistillRecipe, blocks, expand_root
from segkd.synthesis import architectures
from segkd.synthesis.augment import Augment
from segkd.synthesis.bank import Replay
from segkd.synthesis.conditional import Conditional, ConditionalNetwork
from segkd.synthesis.generator import Generator
from segkd.synthesis.images import Images
from segkd.synthesis.label_maps import LabelMaps
from segkd.synthesis.mixed import Mixed
from segkd.synthesis.noise import Noise
from segkd.synthesis.pictures import Pictures
from segkd.synthesis.pixels import Descent, Pixels
from segkd.synthesis.source import Source
from segkd.synthesis.translator import Translator, Unet

GENERATORS = "dcgan, resize, unet or conditional"


def generator_network_of(recipe: DistillRecipe, teacher: Teacher) -> nn.Module:
    """The generator of a recipe, in the teacher's input range; weights from torch's global generator.

    Raises:
        RecipeError: its images come from elsewhere.
    """
    synth, ends = recipe.synth, input_range(teacher.mean, teacher.std)
    largest = max((synth.size, *synth.sizes), key=lambda size: size[0] * size[1])
    if synth.kind == "unet":
        return Unet(synth.width, *ends)
    if synth.kind == "conditional":
        return ConditionalNetwork(len(teacher.names), synth.latent, largest, synth.width, *ends)
    make = {"dcgan": architectures.dcgan, "resize": architectures.resize_convolution}.get(synth.kind)
    if make is None:
        raise RecipeError([f"synth.kind: {synth.kind} has nothing to learn; set {GENERATORS}"])
    return make(synth.latent, largest, synth.width, *ends)


def generator_of(
    recipe: DistillRecipe, teacher: Teacher, augment: Augment | None = None, passes: Passes | None = None
) -> Generator:
    """The generator of a recipe as a source that does not learn yet.

    Raises:
        RecipeError: its images come from elsewhere.
    """
    network, synth = generator_network_of(recipe, teacher), recipe.synth
    if isinstance(network, Unet):
        pictures = Pictures(synth.pictures, *input_range(teacher.mean, teacher.std))
        return Translator(network, pictures, augment=augment, passes=passes)
    if isinstance(network, ConditionalNetwork):
        maps = LabelMaps(synth.labels, len(teacher.names), synth.size)
        return Conditional(network, synth.latent, maps, augment=augment, passes=passes)
    return Generator(network, synth.latent, augment=augment, passes=passes)


def source_of(
    recipe: DistillRecipe, teacher: Teacher, device: torch.device, passes: Passes, learns: bool, refines: bool
) -> Source:
    """Where the images come from, on `device`; `learns`: a generator is trained; `refines`: its images are optimised, too."""
    synth = recipe.synth
    low, high = input_range(teacher.mean, teacher.std)
    augment = Augment(synth.augment, low, high, synth.collage_until) if synth.augment else None

    def source(kind: str) -> Source:
        if kind == "noise":
            return Noise(low, high, augment)
        if kind == "images":
            mapping = catalogue.class_map(*recipe.teacher.mapped_classes)
            data = catalogue.measuring(recipe.data.name, recipe.data.root, synth.split, mapping)
            ranks.say(*data.notes)
            return Images(data, low, high, augment)
        if kind == "folder":
            photos = Photos(expand_root(synth.root))
            ranks.say(*photos.notes)
            return Images(photos, low, high, augment)
        if kind == "pictures":
            return Pictures(synth.pictures, low, high, augment)
        generator = generator_of(recipe, teacher, augment, passes)
        generator.network.to(device, memory_format=torch.channels_last)
        if learns:
            rule = synth.optimizer, synth.schedule, recipe.run.steps, synth.ema
            generator.player = player_of("source", generator.network, *rule)
        return generator

    main = source(synth.kind)
    if refines:
        main = Pixels(main, Descent(synth.refine), low, high)
    if synth.mix:
        main = Mixed(main, {kind: (source(kind), share) for kind, share in synth.mix.items()})
        for kind, count in main.counts(recipe.run.batch).items():
            if not count:
                share = f"{synth.mix[kind]:g} of a batch of {recipe.run.batch}"
                raise RecipeError([f"synth.mix: {kind}: {share} is no image a process; raise it, or run.batch"])
    return main.to(device)


def bank_of(synth: blocks.Synth, bf16: bool) -> Replay:
    dtype = torch.bfloat16 if bf16 else torch.float32
    return Replay(synth.replay, dtype, "flip" in synth.augment, synth.replay_uint8, synth.class_balance)
