"""The blocks of networks: a teacher, a student, one that is taught."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from segkd.recipe import datasets, hub, networks
from segkd.recipe.blocks.block import Block, Optimizer, Schedule
from segkd.recipe.options import Options, Wrong, refuse
from segkd.recipe.values import (
    IMAGENET,
    SCALE_255,
    Architecture,
    Channels,
    ClassNames,
    Decay,
    Names,
    Size,
    Spread,
    StudentClasses,
    Text,
    without_file,
    wrong_classes,
)


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
            refuse(other_channels(options, len(info.data["mean"])))
        return options

    @field_validator("options")
    @classmethod
    def _of_the_architecture(cls, options: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        return _require_known(options, info)

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


def other_channels(options: dict[str, Any], channels: int, *block: str) -> Wrong:
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

    @field_validator("options")
    @classmethod
    def _of_the_architecture(cls, options: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        return _require_known(options, info)


def _require_known(options: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
    if "arch" in info.data and "encoder" in info.data:
        said = [name for name, value in options.items() if value is not None]
        wrong = networks.unknown_options(info.data["arch"], info.data["encoder"], said)
        refuse({(name,): (why, options[name]) for name, why in wrong.items()})
    return options


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
