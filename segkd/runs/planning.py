"""What a run takes: for `segkd distill RECIPE --plan` measured on games apart, for its first lines on its own steps."""

from __future__ import annotations

import torch

from segkd import build
from segkd.foundation import memory, ranks
from segkd.foundation.machine import machine
from segkd.recipe import DistillRecipe, with_values
from segkd.runs.folder import Bench, bench_of, settled
from segkd.training import plan
from segkd.training.plan import Cost

SPARE = 0.9
"""Share of the memory that is left which a larger batch may fill: looks at val and saving need some too."""


def planned(recipe: DistillRecipe, trust_pickle: bool = False) -> list[str]:
    """Lines: each move's time and memory at this batch and at another, steps for the budget, the largest batch."""
    bench = bench_of(recipe)
    batch = recipe.run.batch
    other = max(2, batch // 2) if batch > 2 else 2 * batch
    costs, full, precision = {}, {}, ""
    for size in sorted((batch, other)):  # the smaller first: memory that was held once may stay held
        costs[size], full[size], precision = _costs(recipe, size, bench, trust_pickle)
    here, step = costs[batch], sum(cost.times * cost.seconds for cost in costs[batch].values())
    lines = [
        f"{machine()}, {torch.get_num_threads()} threads, {precision}",
        f"{'move':<10}{'a step':>8}{'seconds':>10}{f'MB at {batch}':>12}{f'MB at {other}':>12}",
        *(
            f"{name:<10}{cost.times:>8}{cost.seconds:>10.3f}{_mb(cost):>12}{_mb(costs[other][name]):>12}"
            for name, cost in here.items()
        ),
        f"a step: {step:.2f} s; {_steps(recipe, step)}, looks and saves not counted",
    ]
    peaks = {size: max(cost.peak_mb or 0.0 for cost in found.values()) + full[size] for size, found in costs.items()}
    left = _left_mb(bench)
    if left is not None and all(cost.peak_mb for cost in here.values()):
        (small, large) = sorted(peaks.items())
        most = plan.largest_batch(small, large, SPARE * left)
        lines.append(f"the most at batch {batch}: {peaks[batch]:,.0f} MB, the full bank included")
        lines.append(f"the largest batch for {SPARE:.0%} of {left:,.0f} MB: {most}")
    return lines


def outlook(recipe: DistillRecipe, bench: Bench, first: plan.FirstSteps, steps: int) -> list[str]:
    """The first lines of a run: what its own first `steps` steps have shown of its moves, its length and its memory."""
    game, costs = first.game, first.costs(steps)
    step = sum(cost.times * cost.seconds for cost in costs.values())
    moves = ", ".join(f"{cost.times} {name} of {cost.seconds:.2g} s and {_mb(cost)} MB" for name, cost in costs.items())
    lines = [f"plan: {_steps(recipe, step)}, looks and saves not counted; a step: {moves}"]
    left, peak = _left_mb(bench), max((cost.peak_mb or 0.0 for cost in costs.values()), default=0.0)
    if left is not None and first.held_mb is not None and peak and ranks.size() == 1:
        full = peak + plan.bank_mb(game)
        most = plan.largest_batch((0, first.held_mb), (recipe.run.batch, full), SPARE * left)
        lines.append(
            f"plan: {full:,.0f} MB with a full bank; about {most} images a batch fit {SPARE:.0%} of {left:,.0f} MB"
        )
    return lines


def _costs(recipe: DistillRecipe, batch: int, bench: Bench, trust_pickle: bool) -> tuple[dict[str, Cost], float, str]:
    """The moves of a game of that batch, what its bank will still take, and its precision."""
    recipe = with_values(recipe, {"run.batch": batch, **({"run.steps": 10} if recipe.run.budget else {})})
    teacher = build.teacher_of(recipe.teacher, trust_pickle).to(bench.device, memory_format=torch.channels_last)
    game = build.distiller_of(recipe, teacher, bench.device, bench.bf16)
    settled(bench, game)
    return plan.costs(game), plan.bank_mb(game), game.precision


def _steps(recipe: DistillRecipe, step: float) -> str:
    if recipe.run.budget is not None:
        return f"{max(1, int(recipe.run.budget / step)):,} steps in the budget of {recipe.run.budget / 60:.0f} minutes"
    return f"{recipe.run.steps:,} steps take {recipe.run.steps * step / 60:.1f} minutes"


def _mb(cost: Cost) -> str:
    return "-" if cost.peak_mb is None else f"{cost.peak_mb:,.0f}"


def _left_mb(bench: Bench) -> float | None:
    """What the process may hold in all: on a GPU its whole memory, else what it has and what is left."""
    if bench.device.type == "cuda":
        return torch.cuda.get_device_properties(bench.device).total_memory / 2**20
    left, own = memory.available_mb(), memory.resident_mb()
    return None if left is None or own is None else left + own
