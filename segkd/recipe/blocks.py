"""The typed blocks of a recipe. What is written here is what a recipe may say; nothing else is accepted.

Types are strict (`"5"` is not 5), numbers finite, unknown keys errors. `null` means unset: the default holds, except
where null is itself a value of the field. Lengths are pixels, times seconds, unless a description says otherwise.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from segkd.foundation.channels import READ, RGB, name_of
from segkd.recipe import datasets, hub, networks, strict_yaml
from segkd.recipe.datasets import final_split
from segkd.recipe.options import Options, Wrong, refuse
from segkd.recipe.values import (
    IMAGENET,
    SCALE_255,
    Architecture,
    Betas,
    Budget,
    Channels,
    ClassNames,
    Count,
    CountOrZero,
    DataName,
    Decay,
    Fraction,
    FurtherTerms,
    Names,
    NotNegative,
    Place,
    Positive,
    Range,
    Rhythm,
    Size,
    Spread,
    StudentClasses,
    Text,
    Weights,
    without_file,
    without_nulls,
    wrong_classes,
)


class Block(BaseModel):
    """A mapping of a recipe: immutable, strict, and closed to unknown keys."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _null_is_unset(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        return {key: value for key, value in data.items() if value is not None or not cls._has_value(key)}

    @classmethod
    def _has_value(cls, key: str) -> bool:
        """True for a known field of which null is not a value."""
        field = cls.model_fields.get(key)
        return field is not None and type(None) not in get_args(field.annotation)


class Optimizer(Block):
    """An optimiser of torch."""

    name: Literal["sgd", "adam", "adamw"] = Field(description="the optimiser")
    lr: Positive = Field(description="learning rate at the start of the schedule")
    momentum: Decay = Field(0.9, description="sgd only")
    weight_decay: NotNegative = Field(0.0, description="L2 penalty (sgd, adam) or decoupled decay (adamw)")
    betas: Betas = Field((0.9, 0.999), description="adam and adamw only")
    clip: Positive | None = Field(None, description="largest gradient norm; null: not clipped")


class Schedule(Block):
    """How the learning rate falls over the run's steps."""

    name: Literal["constant", "poly", "cosine", "step"] = Field("poly", description="the shape of the fall")
    power: Positive = Field(0.9, description="poly: exponent of the remaining fraction of the run")
    every: Annotated[float, Field(ge=0.001, le=1)] = Field(
        0.3333, description="step: fraction of the run between falls"
    )
    gamma: Annotated[float, Field(gt=0, le=1)] = Field(0.1, description="step: factor of each fall")
    warmup: CountOrZero = Field(0, description="steps of linear warm-up")


class Model(Block):
    """A segmentation network and the input that it was made for."""

    arch: Architecture = Field(
        description="architecture, by its name in smp, torchvision or transformers, SegNet, module (your own) or exported"
    )
    encoder: Text | None = Field(
        None, description="encoder by name; null where the architecture has no choice", validate_default=True
    )
    classes: ClassNames = Field(description="what the network tells apart")
    weights: Annotated[Text | None, BeforeValidator(without_file)] = Field(
        None, description="file with the weights, relative to the recipe; null or none: fresh"
    )
    mean: Channels = Field(
        (0.5, 0.5, 0.5),
        description="what the network's training took from each channel (R, G, B, or grey alone), on the scale 0..1",
    )
    std: Spread = Field((0.5, 0.5, 0.5), description="and what it divided them by, on the same scale")
    options: Options = Field(
        {}, description="further arguments of the architecture, scalars or lists; null leaves one out"
    )

    @field_validator("arch")
    @classmethod
    def _can_be_taught(cls, arch: str) -> str:
        if cls is Model and arch.lower() in map(str.lower, networks.only_teachers()):
            trained = "networks of smp, such as DeepLabV3Plus, and of torchvision, and SegNets"
            raise ValueError(f"{arch} can only be a teacher that was trained elsewhere: segkd trains {trained}")
        return arch

    @property
    def mapped_classes(self) -> tuple[Any, Any]:
        """Its classes, and those that a student makes of them; None: the same."""
        return self.classes, getattr(self, "student_classes", None)

    @field_validator("encoder")
    @classmethod
    def _encoder_given(cls, encoder: str | None, info: ValidationInfo) -> str | None:
        return _require_encoder(encoder, info)

    @field_validator("mean")
    @classmethod
    def _on_scale(cls, mean: tuple[float, ...]) -> tuple[float, ...]:
        if max(mean) > 2:
            raise ValueError(SCALE_255)
        if min(mean) < -1:
            raise ValueError("expected means between -1 and 2, of an input of 0..1")
        return mean

    @field_validator("std")
    @classmethod
    def _of_the_same_scale(cls, std: tuple[float, ...], info: ValidationInfo) -> tuple[float, ...]:
        mean = info.data.get("mean")  # absent: told already, with a remedy for both
        if mean is not None and max(std) > 4:
            raise ValueError(SCALE_255)
        if mean is not None and _near(mean, IMAGENET[1]) and _near(std, IMAGENET[0]):
            raise ValueError(f"mean and std are exchanged: ImageNet's are {list(IMAGENET[0])} and {list(IMAGENET[1])}")
        return std

    @field_validator("options")
    @classmethod
    def _of_as_many_channels(cls, options: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        if "mean" in info.data:
            refuse(_other_channels(options, len(info.data["mean"])))
        return options

    @model_validator(mode="after")
    def _of_equal_lengths(self) -> Model:
        if len(self.mean) != len(self.std):
            lengths = f"expected {len(self.std)} values, as std has: one for each channel of its images"
            refuse({("mean",): (lengths, self.mean)})
        return self

    @property
    def channels(self) -> int:
        """Those of the images that the network takes."""
        return len(self.mean)


def _near(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return len(a) == len(b) and all(abs(one - other) < 0.01 for one, other in zip(a, b, strict=True))


def _other_channels(options: dict[str, Any], channels: int, *block: str) -> Wrong:
    """What is wrong with `in_channels` of a network's options, which need not say it."""
    given = options.get("in_channels")
    if given is None or (type(given) is int and given == channels):
        return {}
    values = "a value" if channels == 1 else f"{channels} values"
    why = f"mean and std have {values}, one for each channel of an image: give them as many, or leave this out"
    return {(*block, "in_channels"): (why, given)}


OWN = "module"
"""The architecture of a network of one's own, whose code comes with `--teacher-file`."""


class Teacher(Model):
    """The frozen network to be distilled."""

    weights: Text | None = Field(
        None,
        description="file, or folder of save_pretrained, relative to the recipe, or hf://OWNER/NAME; needed, but for a module",
        validate_default=True,
    )
    weights_key: Text | None = Field(
        None,
        description="entry of a checkpoint to take where it holds several, as state_dict_ema; a.b: one within another",
    )
    student_classes: StudentClasses | None = Field(
        None, description="the student's: {road: [road, pavement], sky: sky}; others are dropped"
    )
    recipe: Text | None = Field(None, description="name of the teach recipe that makes the weights")
    multiple: Annotated[int, Field(ge=1, le=4096)] | None = Field(
        None, description="images are padded to multiples of this; null: as its architecture needs"
    )
    size: Size | None = Field(
        None,
        description="[height, width] of the only images that it takes; others are resampled",
    )

    statistics: Text | None = Field(
        None, description="file of segkd record that takes the place of BatchNorm's statistics, relative to the recipe"
    )
    output: Literal["logits", "probabilities"] = Field(
        "logits", description="what it gives; of the probabilities of a softmax or sigmoid, logits are made"
    )
    features: Names = Field(
        (),
        description="submodules whose last maps a term may look at, as [layer3, head]; none: those that it has by itself",
    )

    @field_validator("weights")
    @classmethod
    def _trained(cls, weights: str | None, info: ValidationInfo) -> str | None:
        if weights == "none":
            raise ValueError("a teacher needs trained weights: name their file")
        if weights is not None and hub.on_hub(weights) and (wrong := hub.wrong_name(weights)):
            raise ValueError(wrong)
        if weights is None and not _is_own(info.data.get("arch", OWN)):
            raise ValueError("missing")
        return weights

    @field_validator("student_classes")
    @classmethod
    def _of_the_teachers(
        cls, classes: tuple[dict[str, tuple[str, ...]], ...] | None, info: ValidationInfo
    ) -> tuple[dict[str, tuple[str, ...]], ...] | None:
        of = info.data.get("classes")
        known = datasets.class_names(of) if isinstance(of, str) else of if isinstance(of, tuple) else ()
        if classes and known and (wrong := wrong_classes(classes, known)):
            raise ValueError(wrong)
        return classes

    @field_validator("size")
    @classmethod
    def _one_rule(cls, size: tuple[int, int] | None, info: ValidationInfo) -> tuple[int, int] | None:
        if size is not None and info.data.get("multiple") is not None:
            raise ValueError("takes images of one size only: leave multiple out")
        return size

    @model_validator(mode="after")
    def _stated(self) -> Teacher:
        unsaid = [key for key in ("mean", "std") if key not in self.model_fields_set]
        if _is_own(self.arch) and unsaid:
            plain = "[0, 0, 0] and [1, 1, 1] where its input is RGB in 0..1 as it is"
            raise ValueError(f"missing: {' and '.join(unsaid)}: of a network of your own they are not known; {plain}")
        if unsaid and self.arch.lower() in {name.lower() for name in networks.with_presets()}:
            presets = f"mean: {list(IMAGENET[0])} and std: {list(IMAGENET[1])}"
            raise ValueError(f"missing: {' and '.join(unsaid)}: the library's own scripts train with {presets}")
        if self.weights is None and self.weights_key is not None:
            raise ValueError("weights_key: there is no file of weights that it is an entry of")
        return self


def _is_own(arch: str) -> bool:
    return arch.lower() == OWN


class Student(Block):
    """The network to be trained; it takes its classes and its input from the teacher."""

    arch: Architecture = Field(description="architecture of smp or torchvision, or SegNet")
    encoder: Text | None = Field(
        None, description="encoder by name; null where the architecture has no choice", validate_default=True
    )
    weights: Text = Field(
        "none", description="none: fresh; teacher: evenly spaced channels of its weights; or a file (whole, or encoder)"
    )
    options: Options = Field(
        {}, description="further arguments of the architecture, scalars or lists; null leaves one out"
    )
    optimizer: Optimizer = Field(description="the student's optimiser")
    schedule: Schedule = Field(Schedule(), description="the student's learning-rate schedule")
    features: Names = Field((), description="submodules whose last maps a term may look at, as for the teacher")
    ema: Decay = Field(0.999, description="decay of the averaged weights a step; 0: off")

    @field_validator("arch")
    @classmethod
    def _can_be_saved(cls, arch: str) -> str:
        if arch.lower() in map(str.lower, networks.only_teachers()):
            raise ValueError(
                f"{arch} can only be a teacher: a student is a network of smp, such as DeepLabV3Plus, of torchvision, or a SegNet"
            )
        return arch

    @field_validator("encoder")
    @classmethod
    def _encoder_given(cls, encoder: str | None, info: ValidationInfo) -> str | None:
        return _require_encoder(encoder, info)


def _require_encoder(encoder: str | None, info: ValidationInfo) -> str | None:
    arch = info.data.get("arch")
    if arch is not None and arch.lower() in map(str.lower, networks.without_encoder()):
        if encoder is not None:
            raise ValueError(f"{arch} has no choice of encoder: set it to null")
        return None
    if encoder is None:
        if arch is not None:
            raise ValueError(f"missing: {arch} needs an encoder")
    elif wrong := networks.unknown_encoder(encoder):
        raise ValueError(wrong)
    return encoder


class Synth(Block):
    """Where the synthetic images come from."""

    kind: Literal["dcgan", "resize", "unet", "conditional", "pictures", "noise", "images", "folder"] = Field(
        description="generators, pictures, noise, a data set, or a folder"
    )
    mix: Annotated[
        dict[Literal["pictures", "noise", "images", "folder"], Annotated[float, Field(gt=0, lt=1)]],
        BeforeValidator(without_nulls),
        Field(strict=False),
    ] = Field({}, description="further sources, each with its share of a batch: {noise: 0.25}; null leaves one out")
    pictures: Annotated[tuple[Literal["leaves", "streets", "rooms"], ...], Field(strict=False)] = Field(
        ("leaves",), description="kinds of procedural pictures, for unet and pictures"
    )
    labels: Annotated[tuple[Literal["noise", "teacher", "scenes"], ...], Field(strict=False)] = Field(
        ("noise",), description="conditional: maps of classes to be painted, of each kind as many"
    )
    latent: Annotated[int, Field(ge=1, le=65536)] = Field(
        256, description="numbers in the input of dcgan, resize and conditional"
    )
    size: Size = Field(description="[height, width] of the images")
    sizes: Annotated[tuple[Size, ...], Field(strict=False)] = Field((), description="further sizes, drawn in turn")
    width: Annotated[int, Field(ge=1, le=4096)] = Field(64, description="channels of a generator's last stage")
    augment: Annotated[
        tuple[Literal["flip", "jitter", "crop", "erase", "noise", "collage"], ...], Field(strict=False)
    ] = Field((), description="changes to the images before the teacher labels them")
    collage_until: Fraction = Field(1.0, description="fraction of the run after which collage leaves images whole")
    optimizer: Optimizer | None = Field(None, description="the generator's optimiser", validate_default=True)
    schedule: Schedule = Field(Schedule(), description="the generator's learning-rate schedule")
    ema: Decay = Field(0.0, description="decay of the generator's averaged weights; 0: off")
    refine: Annotated[int, Field(ge=0, le=1000)] = Field(
        0,
        description="steps down the losses on an image's own pixels, before it goes into the bank; 0: off",
    )
    replay: CountOrZero = Field(0, description="batches in the image bank, with the teacher's logits; 0: off")
    replay_uint8: bool = Field(False, description="the bank keeps 8 bits a number: a quarter of fp32's memory")
    split: Text = Field("train", description="images: the split of data.name to train on")
    root: Text | None = Field(
        None,
        description="folder: where the images lie, relative to the working directory; ${SEGKD_DATA} allowed",
        validate_default=True,
    )

    @field_validator("mix")
    @classmethod
    def _shared(cls, mix: dict[str, float], info: ValidationInfo) -> dict[str, float]:
        if info.data.get("kind") in mix:
            raise ValueError(f"{info.data['kind']} is the main source already: name others")
        if sum(mix.values()) >= 1:
            raise ValueError("the shares leave nothing of a batch to the main source")
        if mix and info.data.get("kind") == "conditional":
            raise ValueError("images of others have no map of classes, as those of conditional have: leave it out")
        return mix

    @field_validator("pictures", "labels")
    @classmethod
    def _once(cls, kinds: tuple[str, ...]) -> tuple[str, ...]:
        if not kinds:
            raise ValueError("name one kind or more")
        if len(set(kinds)) < len(kinds):
            raise ValueError("each kind once")
        return kinds

    @field_validator("augment")
    @classmethod
    def _with_maps(cls, names: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if info.data.get("kind") == "conditional" and (lost := [name for name in names if name in ("crop", "erase")]):
            raise ValueError(
                f"a map of classes cannot follow {lost[0]}; of conditional's images: flip, jitter, noise, collage"
            )
        return names

    @field_validator("root")
    @classmethod
    def _where(cls, root: str | None, info: ValidationInfo) -> str | None:
        named = "folder" in (info.data.get("kind"), *info.data.get("mix", ()))
        if named and root is None:
            raise ValueError("missing: name the folder of the images")
        if root is not None and not named and "kind" in info.data:
            raise ValueError("a folder that nothing reads: set synth.kind=folder, or synth.mix={folder: 0.5}")
        return root

    @property
    def shows_set(self) -> bool:
        """Whether the student is shown images of a data set."""
        return "images" in (self.kind, *self.mix)

    @property
    def shows_folder(self) -> bool:
        """Whether the student is shown images of a folder."""
        return "folder" in (self.kind, *self.mix)

    @field_validator("optimizer")
    @classmethod
    def _trained(cls, optimizer: Optimizer | None, info: ValidationInfo) -> Optimizer | None:
        kind = info.data.get("kind")
        if optimizer is None and kind in ("dcgan", "resize", "unet", "conditional"):
            raise ValueError(f"missing: {kind} is trained, and needs one")
        return optimizer


MOST_MOVES = 17
"""In a step that overlaps: a signal waits for its end, and 16 other moves may have to be played before a checkpoint is saved."""


class Game(Block):
    """How student and generator are trained in turn. A move is an update, or a batch for the bank."""

    student_moves: Annotated[int, Field(ge=1, le=1000)] = Field(5, description="updates of the student in a step")
    synth_moves: Annotated[int, Field(ge=0, le=1000)] = Field(1, description="updates of the generator in a step")
    keep_moves: Annotated[int, Field(ge=0, le=1000)] = Field(
        0, description="batches in a step that are made for the image bank only"
    )
    logits: Literal["full", "head"] = Field("full", description="compare at the image's or at the head's resolution")

    overlap: bool = Field(
        False,
        description="the student learns from images kept before the step; on a CPU beside the generator",
    )

    @field_validator("overlap")
    @classmethod
    def _few(cls, overlap: bool, info: ValidationInfo) -> bool:
        moves = sum(info.data.get(f"{kind}_moves", 0) for kind in ("student", "synth", "keep"))
        if overlap and moves > MOST_MOVES:
            raise ValueError(f"more than {MOST_MOVES} moves a step: where they overlap, a signal waits for its end")
        return overlap


class Data(Block):
    """The labelled images that measure the student; they train nothing but teachers and labelled comparisons."""

    name: DataName | None = Field(None, description="data set; null: nothing is measured")
    root: Text | None = Field(None, description="its folder, relative to the working directory; ${SEGKD_DATA} allowed")
    train: Text = Field("train", description="split that a teacher trains on")
    watch: Text | None = Field(None, description="split to follow during training; null: none")
    final: Text | None = Field(
        "test",
        description="split measured once, after the last step (val, where the set has no public test labels); null: none",
    )
    size: Literal["protocol", "original"] = Field(
        "protocol", description="taught and measured with a shorter side of 256 at most, or at the files' own size"
    )

    @model_validator(mode="before")
    @classmethod
    def _final(cls, given: Any) -> Any:
        """A set states which of its splits is the final one."""
        named = isinstance(given, dict) and isinstance(given.get("name"), str)
        return {"final": final_split(given["name"]), **given} if named else given


class TeachData(Data):
    """The labelled images that a teacher trains on and is measured with."""

    name: DataName = Field(description="data set")  # type: ignore[assignment]


class Run(Block):
    """How long, how large, how often."""

    dir: Place | None = Field(
        None, description="run folder, relative to the working directory; null: runs/RECIPE-sSEED"
    )
    budget: Budget = Field(None, description="where set, it decides the number of steps before step 1")
    steps: Count | None = Field(
        None, description="steps of the run; needed where no budget is set", validate_default=True
    )
    batch: Annotated[int, Field(ge=1, le=65536)] = Field(description="images in an update, over all processes")
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(0, description="all randomness follows from it")
    save_every: Rhythm = Field("3m", description="steps, or a time, between checkpoints; a time becomes steps once")
    eval_every: Rhythm = Field(
        "5m", description="steps, or a time, between evaluations: agreement, and mIoU on data.watch"
    )
    sample_every: Rhythm = Field("5m", description="steps, or a time, between sample panels")
    keep: Annotated[int, Field(ge=1, le=1000)] = Field(2, description="checkpoints kept")
    max_bad: CountOrZero = Field(5, description="refused steps in a row before the run stops")
    rollback: Annotated[int, Field(ge=0, le=100)] = Field(
        0,
        description="times that a run that collapsed or diverged goes back to its last checkpoint; 0: it only says so",
    )
    headline: Literal["ema", "last", "agreement"] = Field(
        "ema",
        description="the weights whose score is the result; agreement: the averaged ones that agreed best when looked at",
    )
    patience: Count | None = Field(
        None,
        description="evaluations without a better agreement after which the run ends; null: it plays all its steps",
    )
    tensorboard: bool = Field(
        False, description="what metrics.jsonl holds also as events, in the run folder's tensorboard"
    )
    device: Text = Field("auto", description="auto, cpu, mps, cuda or cuda:N")
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="of the networks; losses are fp32")
    threads: Annotated[int, Field(ge=1, le=1024)] | None = Field(None, description="CPU threads; null: torch's choice")
    checkpointing: bool = Field(False, description="gradient checkpointing: updates take less memory and more time")
    cuda_graphs: bool = Field(
        True, description="on one GPU: networks are recorded once and replayed; updates take more memory and less time"
    )
    sync_bn: bool = Field(False, description="BatchNorm of student and generator over the batches of all processes")

    @field_validator("steps")
    @classmethod
    def _bounded(cls, steps: int | None, info: ValidationInfo) -> int | None:
        if steps is None and "budget" in info.data and info.data["budget"] is None:
            raise ValueError("missing: give run.steps or run.budget")
        return steps

    @field_validator("device")
    @classmethod
    def _known_device(cls, device: str) -> str:
        if not re.fullmatch(r"auto|cpu|mps|cuda(:[0-9]{1,3})?", device):
            raise ValueError("expected auto, cpu, mps, cuda or cuda:N")
        return device


class TeachRun(Run):
    """As of a distillation, but evaluations choose the best weights: two runs are alike only if these come after as many steps."""

    headline: Literal["ema", "last"] = Field("ema", description="the weights whose score is the result")  # type: ignore[assignment]
    patience: None = Field(None, description="of distillations only")  # type: ignore[assignment]

    eval_every: Rhythm = Field(500, description="steps, or a time, between evaluations on data.watch")


class Train(Block):
    """Supervised training of a teacher."""

    loss: Literal["cross_entropy", "focal"] = Field("cross_entropy", description="loss a pixel")
    gamma: NotNegative = Field(2.0, description="focal: the exponent")
    class_weights: Literal["none", "median", "sqrt"] = Field("none", description="weights by inverse frequency")
    optimizer: Optimizer = Field(description="the teacher's optimiser")
    schedule: Schedule = Field(Schedule(), description="its learning-rate schedule")
    crop: Size = Field(description="[height, width] of the random crop")
    scale: Range = Field((0.5, 2.0), description="range of the random scale before the crop")
    flip: bool = Field(True, description="mirror left and right at random")
    colour: Fraction = Field(0.3, description="strength of the colour jitter; 0: off")
    ema: Decay = Field(0.0, description="decay of the averaged weights a step; 0: off")

    @field_validator("scale")
    @classmethod
    def _ordered(cls, scale: tuple[float, float]) -> tuple[float, float]:
        if scale[0] > scale[1]:
            raise ValueError("the smaller scale comes first")
        return scale


class Recipe(Block):
    """What both kinds of recipe can do."""

    def as_dict(self) -> dict[str, Any]:
        """Dicts, lists and scalars only, every default filled in: for checkpoints, logs and `differences`."""
        return self.model_dump(mode="json")

    def to_yaml(self) -> str:
        """The whole recipe, defaults included, as YAML that `load` reads back as an equal recipe."""
        return strict_yaml.dump(self.as_dict())


class DistillRecipe(Recipe):
    """Teacher to student without the teacher's data."""

    method: Text = Field(description="a file in segkd/methods")
    variant: Text | None = Field(None, description="a form of the method: V of a preset METHOD.V")
    weights: Weights = Field({}, description="weight of each of the method's terms; 0 removes its cost")
    options: dict[str, Any] = Field({}, description="the method's own options")
    terms: FurtherTerms = Field(
        {}, description="further student terms: each one's weight and options; `cwd: 1.0` is its weight alone"
    )
    game: Game = Field(Game(), description="how student and generator are trained in turn")
    teacher: Teacher = Field(description="the frozen network")
    student: Student = Field(description="the network to be trained")
    synth: Synth = Field(description="the source of images")
    data: Data = Field(Data(), description="measuring only")
    run: Run = Field(description="length, size, place")

    @model_validator(mode="after")
    def _of_as_many_channels(self) -> DistillRecipe:
        """The student's images are the teacher's, and files hold those of some numbers of channels only."""
        channels, synth = self.teacher.channels, self.synth
        wrong = _other_channels(self.student.options, channels, "student", "options")
        if "jitter" in synth.augment and channels != RGB:
            wrong["synth", "augment"] = (f"jitter is for RGB images, not those of {name_of(channels)}", synth.augment)
        if channels not in READ:
            why = f"segkd reads RGB and grey pictures, and teacher.mean says {name_of(channels)}"
            if self.data.name is not None:
                wrong["data", "name"] = (f"{why}: set data.name=null", self.data.name)
            for kind, key in ((synth.kind, "kind"), *((kind, "mix") for kind in synth.mix)):
                if kind in ("images", "folder", "pictures", "unet"):
                    wrong["synth", key] = (f"{why}: leave {kind} out", kind)
        refuse(wrong)
        return self


class TeachRecipe(Recipe):
    """A teacher from labelled images."""

    model: Model = Field(description="the network to be trained")
    train: Train = Field(description="how it is trained")
    data: TeachData = Field(description="the labelled images")
    run: TeachRun = Field(description="length, size, place")
    output: Place | None = Field(None, description="file for the fp16 weights, relative to the recipe, with a card")

    @field_validator("model")
    @classmethod
    def _of_pictures(cls, model: Model) -> Model:
        if model.channels not in READ:
            why = f"segkd reads RGB and grey pictures, and mean says {name_of(model.channels)}"
            refuse({("mean",): (why, model.mean)})
        return model
