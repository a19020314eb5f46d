"""A mapping of a recipe, and what several of them share: an optimiser, a schedule.

Types are strict (`"5"` is not 5), numbers finite, unknown keys errors. `null` means unset: the default holds, except
where null is itself a value of the field. Lengths are pixels, times seconds, unless a description says otherwise.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from segkd.recipe.values import (
    Betas,
    CountOrZero,
    Decay,
    NotNegative,
    Positive,
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
