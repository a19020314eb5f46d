"""A distill recipe: the method, the networks, and the game that they play, tried once."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from segkd.builders.networks import described, network_of, start_from, start_from_teacher
from segkd.builders.player import player_of
from segkd.builders.source import GENERATORS, bank_of, source_of
from segkd.builders.teacher import recorded_of
from segkd.foundation.errors import RecipeError
from segkd.foundation.rng import seed_for
from segkd.machine import ranks
from segkd.machine.batchnorm import synced
from segkd.machine.passes import Passes
from segkd.methods.base import Method, Rules
from segkd.methods.finding import MethodFile, method_class, term_class
from segkd.models.adapters import Adapter
from segkd.models.recorded import RecordedStatistics
from segkd.models.taps import check_statistics
from segkd.models.teacher import Teacher
from segkd.models.trial import tried, try_passes
from segkd.players.refusals import Refusals
from segkd.recipe import DistillRecipe, blocks
from segkd.synthesis.pixels import Pixels
from segkd.synthesis.source import TRIAL, Move, Sampling, Source
from segkd.training.distiller import Distiller
from segkd.training.networks import Networks


def method_of(recipe: DistillRecipe, own: MethodFile | None = None) -> Method:
    """The method of a recipe, in segkd or a user's own, with the further student terms that have weight."""
    names = {field.name for field in dataclasses.fields(Rules)}
    rules = Rules(recipe.run.steps, **{key: value for key, value in recipe.game.model_dump().items() if key in names})
    method = method_class(recipe.method, own)(rules, recipe.weights, recipe.options)
    for name, settings in recipe.terms.items():
        options = {key: value for key, value in settings.items() if key != "weight"}
        if settings["weight"] > 0:
            method.take(name, term_class(name)(options), settings["weight"])
    return method


def distiller_of(
    recipe: DistillRecipe, teacher: Teacher, device: torch.device, bf16: bool, own: MethodFile | None = None
) -> Distiller:
    """The game of a distill recipe, with fresh players, on `device`.

    Raises:
        RecipeError: the recipe's parts do not fit each other or the teacher.
    """
    synth, run = recipe.synth, recipe.run
    torch.manual_seed(seed_for(run.seed, 0, 0, "weights"))
    network, features = _student_network(recipe.student, teacher), recipe.student.features
    student = Adapter(network, len(teacher.names), features=features, channels=teacher.channels)
    student = student.to(device, memory_format=torch.channels_last)
    method, passes = method_of(recipe, own).to(device), Passes(bf16, run.checkpointing)
    _check_processes(recipe)
    _check_method(recipe, method)
    source = source_of(recipe, teacher, device, passes, bool(method.terms("source")), synth.refine > 0)
    with nullcontext() if own is None else own.blamed():
        method.meet(teacher)
        source = method.source_around(made := source).to(device)
    if synth.refine and isinstance(source, Pixels) and source is not made:
        raise RecipeError(
            [f"synth.refine: images follow the terms of {recipe.method} as its options say; set synth.refine=0"]
        )
    if method.terms("source") and not source.learns:
        raise RecipeError(
            [f"synth.kind: {synth.kind} cannot learn, and {recipe.method} needs a generator: {GENERATORS}"]
        )
    if run.sync_bn:
        try:
            for network in (student, source, *([source.player.ema_or_live] if source.player else [])):
                synced(network)
        except ValueError as error:
            raise RecipeError([f"run.sync_bn: {error}"]) from error
    recorded = recorded_of(recipe.teacher, teacher)
    refines = synth.refine > 0 or isinstance(source, Pixels)
    moves = bool(method.terms("source") or (refines and method.terms("pixels")))
    if recorded is None and moves and method.chosen.get("bn", 0) > 0:
        check_statistics(teacher.network, recipe.teacher.weights or "teacher")
    sizes = (synth.size, *synth.sizes)
    if recipe.game.logits == "head":
        _check_heads(teacher, student, sizes)
    _try_networks(recipe, teacher, student, source, device, bf16, moves)
    return Distiller(
        method, _networks_of(recipe, teacher, student, device, passes, recorded),
        player_of("student", student, recipe.student.optimizer, recipe.student.schedule, run.steps, recipe.student.ema),
        source, bank=bank_of(synth, bf16) if synth.replay else None, sampling=Sampling(run.batch, sizes, run.seed),
        refusals=Refusals(run.max_bad),
    )  # fmt: skip


def _student_network(student: blocks.Student, teacher: Teacher) -> nn.Module:
    """A fresh student, with the weights that it starts from."""
    network = network_of(student, len(teacher.names), teacher.channels)
    if student.weights == "teacher":
        start_from_teacher(network, teacher)
    else:
        start_from(network, student.weights)
    return network


def _networks_of(
    recipe: DistillRecipe, teacher: Teacher, student: Adapter, device: torch.device, passes: Passes,
    recorded: RecordedStatistics | None,
) -> Networks:  # fmt: skip
    run, synth, at_head = recipe.run, recipe.synth, recipe.game.logits == "head"
    # Not where images are padded: a mirrored image's padding would be on its other side.
    unpadded = all(map(teacher.keeps_head, (synth.size, *synth.sizes)))
    return Networks(
        teacher, student, passes=passes, at_head=at_head, keeps_heads=at_head or (synth.replay > 0 and unpadded),
        recording=run.cuda_graphs and device.type == "cuda" and ranks.size() == 1 and not run.checkpointing,
        statistics=recorded,
    )  # fmt: skip


def _check_processes(recipe: DistillRecipe) -> None:
    """Every process needs two images of a batch or more, as many as the others."""
    batch, processes = recipe.run.batch, ranks.size()
    if batch % processes or (processes > 1 and batch < 2 * processes):
        raise RecipeError([
            f"run.batch: {batch} images cannot be shared out to {processes} processes, two or more to each; set"
            f" run.batch={2 * processes * max(1, batch // (2 * processes))}"
        ])  # fmt: skip


def _check_method(recipe: DistillRecipe, method: Method) -> None:
    """The method's terms need what the recipe's other blocks give."""
    synth, game = recipe.synth, recipe.game
    if not method.terms("student"):
        raise RecipeError(
            [f"weights: no student term of {recipe.method} has weight; set weights.{method.student[0]}=1"]
        )
    asking = {
        "game.keep_moves": game.keep_moves,
        "synth.replay_uint8": synth.replay_uint8,
        "synth.class_balance": synth.class_balance,
    }
    if not synth.replay and any(asking.values()):
        raise RecipeError(
            [f"{key}: there is no bank to keep images in; set synth.replay" for key, asked in asking.items() if asked]
        )
    if game.overlap and not synth.replay:
        raise RecipeError(["game.overlap: there is no bank to learn from beside the generator; set synth.replay"])
    if synth.refine and not (game.keep_moves and method.terms("pixels")):
        lacks = "nothing is kept; set game.keep_moves"
        if game.keep_moves:
            lacks = f"{recipe.method} has no term for it"
            if method.pixels:
                lacks = f"none of its terms has weight; set one of weights.{', '.join(method.pixels)}"
        raise RecipeError([f"synth.refine: images are refined as they are kept, but {lacks}; or set synth.refine=0"])


def _try_networks(
    recipe: DistillRecipe,
    teacher: Teacher,
    student: Adapter,
    source: Source,
    device: torch.device,
    bf16: bool,
    moves: bool,
) -> None:
    """Show the networks images once, so that what cannot be computed is told before anything else is done.

    `moves`: images follow the teacher's gradient.
    """
    synth, batch = recipe.synth, recipe.run.batch // ranks.size()

    def images(count: int) -> Tensor:
        return source.draw(count, synth.size, Move(recipe.run.seed, TRIAL, 0)).images

    if not source.real:  # images are read, and counted
        advice = "set another synth.size or synth.kind"
        tried(images, source, batch, f"synth: {synth.kind} cannot make images", advice, device)
    for size in dict.fromkeys((synth.size, *synth.sizes)):
        try_passes(teacher, "teacher", described(recipe.teacher), size, 1, device, bf16, follows=moves)
        try_passes(student, "student", described(recipe.student), size, batch, device, bf16)


def _check_heads(teacher: Teacher, student: Adapter, sizes: Sequence[tuple[int, int]]) -> None:
    if teacher.head_stride != student.head_stride:
        raise RecipeError([
            f"game.logits: head, but the teacher's head is at stride {teacher.head_stride} and the student's at"
            f" {student.head_stride}; set game.logits=full"
        ])  # fmt: skip
    need = max(teacher.stride, student.stride, teacher.head_stride)
    for height, width in sizes:
        if height % need or width % need:
            good = [-(-height // need) * need, -(-width // need) * need]
            raise RecipeError(
                [f"synth.size: [{height}, {width}] must be a multiple of {need} for game.logits=head, such as {good}"]
            )
