"""What a run takes: for `segkd distill RECIPE --plan` measured on games apart, for its first lines on its own steps."""

from __future__ import annotations

import torch

from segkd import build
from segkd.foundation import terminal
from segkd.machine import memory, ranks
from segkd.machine.device import machine
from segkd.recipe import DistillRecipe, with_values
from segkd.runs.folder import Bench, bench_of, settled
from segkd.training import plan
from segkd.training.distiller import Distiller

SPARE = 0.9
"""Share of the memory that is left which a larger batch may fill: evaluating and saving need some too."""
LIBRARIES_MB = 1024
"""What Python, the libraries and the labelled images may take beside the tensors of a run on a CPU."""
WORDS = {"student": "student update", "source": "generator update", "keep": "batch for the image bank"}
"""A kind of move, as people say it."""


def planned(recipe: DistillRecipe, trust_pickle: bool = False) -> list[str]:
    """Lines: each move's time and memory, steps for the budget, the largest batch; measured on a game apart."""
    bench, short = bench_of(recipe), {"run.steps": 10} if recipe.run.budget else {}
    teacher = build.teacher_of(recipe.teacher, trust_pickle).to(bench.device, memory_format=torch.channels_last)
    game = build.distiller_of(with_values(recipe, short), teacher, bench.device, bench.bf16)
    settled(bench, game)
    terminal.doing("timing updates")
    costs = plan.costs(game)
    return [
        f"{machine()}, {torch.get_num_threads()} threads, {game.precision}, batch {recipe.run.batch}",
        f"{'':<26}{'in a step':>10}{'seconds':>10}{'MB':>10}",
        *(f"{WORDS[name]:<26}{cost.times:>10}{cost.seconds:>10.3f}{_mb(cost.mb):>10}" for name, cost in costs.items()),
        *_length_and_memory(recipe, bench, game, costs),
    ]


def outlook(recipe: DistillRecipe, bench: Bench, first: plan.FirstSteps, steps: int) -> list[str]:
    """The first lines of a run: what its own first `steps` steps have shown of its moves, its length and its memory."""
    costs = first.costs(steps)
    moves = ", ".join(f"{_many(cost.times, WORDS[name])} of {cost.seconds:.2g} s" for name, cost in costs.items())
    beside = ", beside the student's" if first.game.in_threads else ""
    return [f"a step is {moves}{beside}", *_length_and_memory(recipe, bench, first.game, costs)]


def _length_and_memory(recipe: DistillRecipe, bench: Bench, game: Distiller, costs: dict[str, plan.Cost]) -> list[str]:
    sides = {name: cost.times * cost.seconds for name, cost in costs.items()}
    learning = sides.pop("student", 0.0)
    step = max(learning, sum(sides.values())) if game.in_threads else learning + sum(sides.values())
    lines = [f"{_steps(recipe, step)}, evaluations and checkpoints not counted"]
    left, batch, bank = _left_mb(bench), recipe.run.batch, plan.bank_mb(game)
    if costs and left is not None and ranks.size() == 1:
        fixed = plan.held_mb(game) + (0 if bench.device.type == "cuda" else LIBRARIES_MB)
        most = plan.largest_batch(costs.values(), bank, batch, SPARE * left - fixed)
        largest = max(cost.mb for cost in costs.values())
        full = f" and {_mb(bank)} MB for a full image bank" if bank else ""
        lines.append(
            f"memory: {_mb(largest)} MB for an update of batch {batch}{full};"
            f" run.batch up to about {most:,} would fit into {SPARE:.0%} of {left:,.0f} MB"
        )
    return lines


def _mb(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def _many(times: int, what: str) -> str:
    first, *rest = what.split(" ")
    several = " ".join([f"{first}es", *rest]) if first == "batch" else f"{what}s"
    return f"{times} {what if times == 1 else several}"


def _steps(recipe: DistillRecipe, step: float) -> str:
    if recipe.run.budget is not None:
        steps = max(1, int(recipe.run.budget / step))
        return f"{steps:,} steps of {step:.2g} s in the budget of {terminal.spoken(recipe.run.budget)}"
    return f"{recipe.run.steps:,} steps of {step:.2g} s take {terminal.spoken(recipe.run.steps * step)}"


def _left_mb(bench: Bench) -> float | None:
    """What the process may hold in all: on a GPU its whole memory, else what it has and what is left."""
    if bench.device.type == "cuda":
        return torch.cuda.get_device_properties(bench.device).total_memory / 2**20
    left, own = memory.available_mb(), memory.resident_mb()
    return None if left is None or own is None else left + own
