"""A teach recipe: the supervised game and its network."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from segkd.builders.networks import described, network_of, start_from
from segkd.builders.player import player_of
from segkd.data import catalogue
from segkd.data import classes as class_lists
from segkd.data.resize import at_size
from segkd.data.samples import Dataset, Sample
from segkd.data.sets.folder import Folder
from segkd.data.transforms import TrainTransform
from segkd.foundation import terminal
from segkd.foundation.errors import DataError, TeacherError
from segkd.machine.passes import Passes
from segkd.models.adapters import Adapter
from segkd.models.trial import try_passes
from segkd.players.refusals import Refusals
from segkd.recipe import TeachRecipe
from segkd.training.teaching import Objective, Teaching, class_weights


def teaching_of(recipe: TeachRecipe, device: torch.device, bf16: bool) -> tuple[Teaching, Adapter]:
    """The supervised game of a teach recipe, and its network."""
    classes = catalogue.classes_of(recipe.model.classes)
    data = catalogue.dataset(recipe.data.name, recipe.data.root, recipe.data.train, classes)
    if wrong := class_lists.disagreement(classes.names, data.classes, "model"):
        raise TeacherError(f"{wrong}; set model.classes")
    terminal.say(*data.notes)
    check_held_out(recipe, data)
    torch.manual_seed(recipe.run.seed)
    network = network_of(recipe.model, len(classes), recipe.model.channels)
    start_from(network, recipe.model.weights)
    adapter = Adapter(network, len(classes), channels=recipe.model.channels)
    adapter = adapter.to(device, memory_format=torch.channels_last)
    train = recipe.train
    try_passes(adapter, "model", described(recipe.model), train.crop, recipe.run.batch, device, bf16)
    player = player_of("network", adapter, train.optimizer, train.schedule, recipe.run.steps, train.ema)
    samples: Sequence[Sample] = [at_size(sample, recipe.data.size) for sample in data]  # read or rendered once
    if not any((sample.mask != class_lists.IGNORE).any() for sample in samples):
        raise DataError(f"data.train: no pixel of the {len(samples)} images in {recipe.data.train} belongs to a class")
    transform = TrainTransform(train.crop, train.scale, train.flip, train.colour, recipe.model.mean, recipe.model.std)
    weights = class_weights(samples, len(classes), train.class_weights)
    game = Teaching(
        player, samples, transform, Objective(train.loss, train.gamma, weights),
        batch=recipe.run.batch, seed=recipe.run.seed, passes=Passes(bf16), refusals=Refusals(recipe.run.max_bad),
    )  # fmt: skip
    return game, adapter


def check_held_out(recipe: TeachRecipe, data: Dataset) -> None:
    """A folder without splits has the same images under every name. Raises DataError where they would train and measure."""
    for key, split in (("watch", recipe.data.watch), ("final", recipe.data.final)):
        if isinstance(data, Folder) and split not in (None, recipe.data.train):
            other = catalogue.dataset(recipe.data.name, recipe.data.root, split, data.classes)
            if other.pairs == data.pairs:
                same = f"the {len(data)} images of {recipe.data.train} and {split} are the same"
                raise DataError(f"data.{key}: {same}; list them apart (docs/data.md), or set data.{key}=null")
