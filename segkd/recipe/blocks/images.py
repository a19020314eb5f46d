"""The blocks of images: those that are made, in which turn, and those that measure."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from segkd.recipe.blocks.block import Block, Optimizer, Schedule
from segkd.recipe.datasets import final_split
from segkd.recipe.values import (
    CountOrZero,
    DataName,
    Decay,
    Fraction,
    Size,
    Text,
    without_nulls,
)


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
    class_balance: Annotated[float, Field(ge=0, le=4)] = Field(
        0.0,
        description="how much more often the bank shows images of rare classes: by their share to minus this power; 0: off",
    )
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
