"""The block of a run: how long, how large, how often, where."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from segkd.recipe.blocks.block import Block
from segkd.recipe.values import (
    Budget,
    Count,
    CountOrZero,
    Place,
    Rhythm,
    Text,
)


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
