"""Recipe to objects: the only file that knows every other name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from segkd.data import catalogue
from segkd.data import classes as class_lists
from segkd.data.photos import Photos
from segkd.data.resize import at_size
from segkd.data.samples import Dataset, Sample
from segkd.data.sets.folder import Folder
from segkd.data.transforms import TrainTransform
from segkd.foundation import terminal
from segkd.foundation.channels import RGB
from segkd.foundation.errors import DataError, RecipeError, TeacherError
from segkd.foundation.rng import seed_for
from segkd.machine import ranks
from segkd.machine.batchnorm import synced
from segkd.machine.passes import Passes
from segkd.methods.base import Method, Rules
from segkd.methods.finding import MethodFile, method_class, term_class
from segkd.models.adapters import Adapter
from segkd.models.building import create_network, fitting_mb, is_whole
from segkd.models.family import Sizes, family_of
from segkd.models.own import OwnNetwork
from segkd.models.recorded import RecordedStatistics, read_recorded
from segkd.models.selection import select_weights
from segkd.models.taps import check_statistics
from segkd.models.teacher import Teacher, input_range
from segkd.models.trial import tried, try_passes
from segkd.models.weights import first_few, has_one_logit, load_weights, read_state
from segkd.players import schedule as schedules
from segkd.players.player import Player
from segkd.players.refusals import Refusals
from segkd.recipe import DistillRecipe, TeachRecipe, blocks, expand_root
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
from segkd.synthesis.source import Move, Sampling, Source
from segkd.synthesis.translator import Translator, Unet
from segkd.training.distiller import Distiller
from segkd.training.networks import Networks
from segkd.training.teaching import Objective, Teaching, class_weights

GENERATORS = "dcgan, resize, unet or conditional"


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


def _start_from_teacher(network: nn.Module, teacher: Teacher) -> None:
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


def teacher_of(block: blocks.Teacher, trust_pickle: bool = False, own: OwnNetwork | None = None) -> Teacher:
    """The frozen teacher of a recipe, or a user's own with what the recipe says of it.

    Raises:
        TeacherError: its weights are missing, damaged, or do not fit; or `own` gives no network.
    """
    return teacher_around(trained_network(block, trust_pickle, own), block)


def trained_network(block: blocks.Teacher, trust_pickle: bool = False, own: OwnNetwork | None = None) -> nn.Module:
    """The network of a teacher with its weights, as `teacher_of` takes it."""
    classes = catalogue.class_map(*block.mapped_classes).teacher
    state, path = None, None
    if block.weights is not None:
        path = Path(expand_root(block.weights))
        if own is None and is_whole(block.arch):
            _check_program(block, trust_pickle)
        else:
            state = read_state(path, block.recipe, trust_pickle, block.weights_key)
    room = None if state is None else fitting_mb(state)
    network = own.built() if own is not None else network_of(block, len(classes), block.channels, room, path)
    if state is not None:
        if own is None and len(classes) == 2 and has_one_logit(network, state):
            network = network_of(block, 1, block.channels, fitting_mb(state), path)
            terminal.say(
                f"teacher: one logit, of a sigmoid: above 0 it is {classes.names[1]}, below {classes.names[0]}"
            )
        try:
            load_weights(network, state, block.weights)
        except TeacherError as error:
            if own is None:
                raise
            raise TeacherError(f"{error}; teacher.weights=null takes the network as {own.name} gives it") from error
    return network


def teacher_around(network: nn.Module, block: blocks.Teacher) -> Teacher:
    """A trained network with what the recipe says of it: classes, normalisation, sizes, output."""
    mapping = catalogue.class_map(*block.mapped_classes)
    _compare_labels(family_of(network).labels(network), mapping.teacher)
    sizes = Sizes(block.multiple or 1, block.size) if block.multiple or block.size else None
    taught = dict(zip(mapping.student.names, mapping.members, strict=True)) if mapping.maps else None
    return Teacher(
        network, mapping.teacher.names, block.mean, block.std, sizes, block.features, block.output == "probabilities", taught
    )  # fmt: skip


def recorded_of(block: blocks.Teacher, teacher: Teacher) -> RecordedStatistics | None:
    """The statistics that take the place of those that the teacher's BatchNorm layers remember; None: nothing does.

    Raises:
        TeacherError: their file is missing or damaged, or does not fit the teacher.
    """
    return None if block.statistics is None else read_recorded(Path(expand_root(block.statistics)), teacher)


def _check_program(block: blocks.Teacher, trusted: bool) -> None:
    """Raises TeacherError where a program was not asked to be run, is not there, or is asked for an entry of its file."""
    if not Path(expand_root(block.weights)).is_file():
        raise TeacherError(f"{block.weights}: no such file; teacher.arch: {block.arch} is a program in one")
    if block.weights_key is not None:
        raise TeacherError(f"teacher.weights_key: {block.weights} is a program, of which no entry can be taken")
    if not trusted:
        raise TeacherError(
            f"{block.weights}: a program, which may do anything: pass --trust-pickle if you trust its source"
        )


def _compare_labels(labels: Sequence[str], classes: class_lists.Classes) -> None:
    """Tell where a teacher itself calls its classes otherwise than the recipe; the label of one logit is no class's name."""
    if len(labels) != len(classes):
        return
    there, here = (["".join(filter(str.isalnum, name.lower())) for name in names] for names in (labels, classes.names))
    if other := [f"{k} {labels[k]} ({classes.names[k]})" for k in range(len(labels)) if there[k] != here[k]]:
        terminal.say(
            f"teacher: {len(other)} of {len(labels)} classes have other names than in teacher.classes: {first_few(other)}"
        )


def check_classes(teacher: Teacher, student: blocks.Student, data: Dataset | None) -> None:
    """Teacher, student and data must know the same classes before step 1.

    Raises:
        TeacherError: they do not; the line holds the three numbers, or the first class that is called differently.
    """
    known = "none" if data is None else f"{len(data.classes)} ({data.classes.name})"
    taught = len(teacher.names)
    count = classes_at_start(student, taught, teacher.channels)
    if count != taught:
        raise TeacherError(
            f"classes disagree: teacher {taught}, student {count} ({student.weights}), data {known};"
            " set student.weights=none, or bring another teacher"
        )
    wrong = None if data is None else class_lists.disagreement(teacher.names, data.classes, "teacher", "student")
    if wrong:
        raise TeacherError(f"{wrong}; set teacher.classes or data.name")


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


def player_of(
    name: str, network: nn.Module, optimizer: blocks.Optimizer, schedule: blocks.Schedule, steps: int, ema: float
) -> Player:
    """One side of the game."""
    return Player(name, network, optimizer_of(optimizer), factor_of(schedule, steps), ema, optimizer.clip)


def optimizer_of(block: blocks.Optimizer) -> Callable[..., torch.optim.Optimizer]:
    """What makes a recipe's optimiser of parameters."""
    kind = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[block.name]
    own = {"momentum": block.momentum} if block.name == "sgd" else {"betas": block.betas}
    return partial(kind, lr=block.lr, weight_decay=block.weight_decay, fused=True, **own)


def factor_of(block: blocks.Schedule, steps: int) -> Callable[[int], float]:
    """The learning rate's factor at a step of a run of so many."""
    factor = {
        "constant": schedules.constant,
        "poly": partial(schedules.poly, steps=steps, power=block.power),
        "cosine": partial(schedules.cosine, steps=steps),
        "step": partial(schedules.stages, steps=steps, every=block.every, gamma=block.gamma),
    }[block.name]
    return partial(schedules.warmed_up, factor=factor, warmup=block.warmup) if block.warmup else factor


def teaching_of(recipe: TeachRecipe, device: torch.device, bf16: bool) -> tuple[Teaching, Adapter]:
    """The supervised game of a teach recipe, and its network."""
    classes = catalogue.classes_of(recipe.model.classes)
    data = catalogue.dataset(recipe.data.name, recipe.data.root, recipe.data.train, classes)
    if wrong := class_lists.disagreement(classes.names, data.classes, "model"):
        raise TeacherError(f"{wrong}; set model.classes")
    terminal.say(*data.notes)
    _check_held_out(recipe, data)
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


def _check_held_out(recipe: TeachRecipe, data: Dataset) -> None:
    """A folder without splits has the same images under every name. Raises DataError where they would train and measure."""
    for key, split in (("watch", recipe.data.watch), ("final", recipe.data.final)):
        if isinstance(data, Folder) and split not in (None, recipe.data.train):
            other = catalogue.dataset(recipe.data.name, recipe.data.root, split, data.classes)
            if other.pairs == data.pairs:
                same = f"the {len(data)} images of {recipe.data.train} and {split} are the same"
                raise DataError(f"data.{key}: {same}; list them apart (docs/data.md), or set data.{key}=null")


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
    """Where the images come from, on `device`; `learns`: a generator answers to terms; `refines`: its images do, too."""
    synth = recipe.synth
    low, high = input_range(teacher.mean, teacher.std)
    augment = Augment(synth.augment, low, high, synth.collage_until)

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
            for network in (student, source, *([source.player.headline] if source.player else [])):
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
        source, bank=_bank_of(synth, bf16) if synth.replay else None, sampling=Sampling(run.batch, sizes, run.seed),
        refusals=Refusals(run.max_bad),
    )  # fmt: skip


def _student_network(student: blocks.Student, teacher: Teacher) -> nn.Module:
    """A fresh student, with the weights that it starts from."""
    network = network_of(student, len(teacher.names), teacher.channels)
    if student.weights == "teacher":
        _start_from_teacher(network, teacher)
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
    if not synth.replay and (game.keep_moves or synth.replay_uint8):
        key = "game.keep_moves" if game.keep_moves else "synth.replay_uint8"
        raise RecipeError([f"{key}: there is no bank to keep images in; set synth.replay"])
    if game.overlap and not synth.replay:
        raise RecipeError(["game.overlap: there is no bank to learn from beside the generator; set synth.replay"])
    if synth.refine and not (game.keep_moves and method.terms("pixels")):
        lacks = (
            f"{recipe.method} has no term for it with weight"
            if game.keep_moves
            else "nothing is kept; set game.keep_moves"
        )
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
        return source.draw(count, synth.size, Move(recipe.run.seed, -2, 0)).images

    if not source.real:  # images are read, and counted
        advice = "set another synth.size or synth.kind"
        tried(images, source, batch, f"synth: {synth.kind} cannot make images", advice, device)
    for size in dict.fromkeys((synth.size, *synth.sizes)):
        try_passes(teacher, "teacher", described(recipe.teacher), size, 1, device, bf16, follows=moves)
        try_passes(student, "student", described(recipe.student), size, batch, device, bf16)


def described(model: blocks.Model | blocks.Student) -> str:
    """Architecture and encoder of a block, in words."""
    return f"{model.arch} with encoder {model.encoder}" if model.encoder else model.arch


def _bank_of(synth: blocks.Synth, bf16: bool) -> Replay:
    dtype = torch.bfloat16 if bf16 else torch.float32
    return Replay(synth.replay, dtype, "flip" in synth.augment, synth.replay_uint8)


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
