"""Both kinds of recipe: blocks, and what has to fit between them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from segkd.foundation.channels import READ, RGB, name_of
from segkd.recipe import strict_yaml
from segkd.recipe.blocks.block import Block, Optimizer, Schedule
from segkd.recipe.blocks.images import Data, Game, Synth, TeachData
from segkd.recipe.blocks.networks import Model, Student, Teacher, other_channels
from segkd.recipe.blocks.run import Run, TeachRun
from segkd.recipe.options import refuse
from segkd.recipe.values import (
    Decay,
    Fraction,
    FurtherTerms,
    NotNegative,
    Place,
    Range,
    Size,
    Text,
    Weights,
)


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
        wrong = other_channels(self.student.options, channels, "student", "options")
        if "jitter" in synth.augment and channels != RGB:
            rest = ", ".join(change for change in synth.augment if change != "jitter")
            why = f"jitter is for RGB images, not those of {name_of(channels)}; set synth.augment=[{rest}]"
            wrong["synth", "augment"] = (why, synth.augment)
        if channels not in READ:
            told = f"RGB and grey pictures, and teacher.mean says {name_of(channels)}"
            if self.data.name is not None:
                wrong["data", "name"] = (f"segkd reads {told}: set data.name=null", self.data.name)
            for kind, key in ((synth.kind, "kind"), *((kind, "mix") for kind in synth.mix)):
                if does := {"images": "reads", "folder": "reads", "pictures": "draws", "unet": "draws"}.get(kind):
                    instead = (
                        "leave it out" if key == "mix" else "set synth.kind=resize, or take method=ddad variant=segkd"
                    )
                    wrong["synth", key] = (f"segkd {does} {told}: {instead}", kind)
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
