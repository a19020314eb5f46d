"""The most memory that a loop needs, in a process of its own."""

from __future__ import annotations

import multiprocessing
from typing import Literal

import torch

from segkd.benchmark import pair
from segkd.machine import memory
from segkd.recipe import DistillRecipe

STEPS = 2


def peak_mb(recipe: DistillRecipe, who: Literal["segkd", "reference"], device: torch.device) -> float:
    """MB that networks, bank and two steps of a loop in fp32 take beyond what the loaded libraries hold."""
    with multiprocessing.get_context("spawn").Pool(1) as processes:
        return processes.apply(_peak, (recipe, who, str(device), torch.get_num_threads()))


def _peak(recipe: DistillRecipe, who: str, device: str, threads: int) -> float:
    torch.set_num_threads(threads)
    place = torch.device(device)
    torch.conv2d(torch.zeros(1, 1, 3, 3, device=place), torch.zeros(1, 1, 3, 3, device=place))  # kernels are loaded
    before = memory.resident_mb() or 0.0
    if who == "segkd":
        memory.hold(sparing=recipe.run.checkpointing)  # as the run's command does
        game = pair.distiller(recipe, place, bf16=False)
        for step in range(1, 1 + STEPS):
            game.play(step)
    else:
        loop = pair.reference(recipe, place)
        for _ in range(STEPS):
            loop.play()
    if place.type == "cuda":
        return torch.cuda.max_memory_allocated(place) / 2**20
    return (memory.peak_mb() or 0.0) - before
