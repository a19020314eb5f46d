"""Who learns: a network with the optimiser and the schedule of a recipe."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from segkd.players import schedule as schedules
from segkd.players.player import Player
from segkd.recipe import blocks


def player_of(
    name: str, network: nn.Module, optimizer: blocks.Optimizer, schedule: blocks.Schedule, steps: int, ema: float
) -> Player:
    """One side of the game."""
    return Player(name, network, optimizer_of(optimizer), factor_of(schedule, steps), ema, optimizer.clip)


def optimizer_of(block: blocks.Optimizer) -> Callable[..., torch.optim.Optimizer]:
    """The optimiser of a recipe, to be given parameters."""
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
