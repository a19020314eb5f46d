"""What a run will take: seconds and memory of each move, steps for a budget, and the largest batch that fits.

A budget of time becomes a number of steps once, before step 1: schedules depend on steps only, never on the clock.
"""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from segkd.foundation import terminal
from segkd.machine import memory, ranks
from segkd.machine.allocations import Allocations
from segkd.machine.device import machine
from segkd.recipe import DistillRecipe
from segkd.runs.place import Place
from segkd.training.distiller import Distiller

TRIALS = 3
"""Steps that tell how many fit into a budget, after one that warms up: with it a run, so that both of a method's stages are seen."""
SPARE = 0.9
"""Share of the memory that is left which a larger batch may fill: evaluating and saving need some too."""
LIBRARIES_MB = 1024
"""What Python, the libraries and the labelled images may take beside the tensors of a run on a CPU."""
WORDS = {"student": "student update", "source": "generator update", "keep": "batch for the image bank"}
"""A kind of move, as people say it."""


@dataclass(frozen=True)
class Cost:
    """What a kind of move costs: `times` a step, `seconds` each; `mb` is the most that the tensors made in it take at once."""

    times: int
    seconds: float
    mb: float


def table(recipe: DistillRecipe, place: Place, game: Distiller) -> list[str]:
    """Lines: each move's time and memory, the time or the steps of the run, and the largest batch; the game learns from it."""
    costs = costs_of(game)
    return [
        f"{machine()}, {torch.get_num_threads()} threads, {game.precision}, batch {recipe.run.batch}",
        f"{'':<26}{'in a step':>10}{'seconds':>10}{'MB':>10}",
        *(f"{WORDS[name]:<26}{cost.times:>10}{cost.seconds:>10.3f}{_mb(cost.mb):>10}" for name, cost in costs.items()),
        *_length_and_memory(recipe, place, game, costs),
    ]


def forecast(recipe: DistillRecipe, place: Place, first: FirstSteps, steps: int) -> list[str]:
    """The first lines of a run: what its own first `steps` steps have shown of its moves, its length and its memory."""
    costs = first.costs(steps)
    moves = ", ".join(f"{_many(cost.times, WORDS[name])} of {cost.seconds:.2g} s" for name, cost in costs.items())
    beside = ", beside the student's" if first.game.in_threads else ""
    return [f"a step is {moves}{beside}", *_length_and_memory(recipe, place, first.game, costs)]


def _length_and_memory(recipe: DistillRecipe, place: Place, game: Distiller, costs: dict[str, Cost]) -> list[str]:
    sides = {name: cost.times * cost.seconds for name, cost in costs.items()}
    learning = sides.pop("student", 0.0)
    step = max(learning, sum(sides.values())) if game.in_threads else learning + sum(sides.values())
    lines = [f"{_steps(recipe, step)}, evaluations and checkpoints not counted"]
    last = game.method.rules.steps - 1
    if later := {WORDS[name] for name in game.method.moves(last)} - {WORDS[name] for name in costs}:
        lines[0] += f"; nor is a later stage, of each {' and '.join(sorted(later))}"
    left, batch, bank = _left_mb(place), recipe.run.batch, bank_mb(game)
    if costs and left is not None and ranks.size() == 1:
        fixed = held_mb(game) + (0 if place.device.type == "cuda" else LIBRARIES_MB)
        most = largest_batch(costs.values(), bank, batch, SPARE * left - fixed)
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


def _left_mb(place: Place) -> float | None:
    """What the process may hold in all: on a GPU its whole memory, else what it has and what is left."""
    if place.device.type == "cuda":
        return torch.cuda.get_device_properties(place.device).total_memory / 2**20
    left, own = memory.available_mb(), memory.resident_mb()
    return None if left is None or own is None else left + own


def steps_for(seconds: float, play: Callable[[int], object], trials: int = TRIALS) -> int:
    """How many steps fit into `seconds`: the median of `trials` played steps, after one that warms up; at least 1."""
    play(0)
    times = []
    for step in range(1, trials + 1):
        start = time.perf_counter()
        play(step)
        times.append(time.perf_counter() - start)
    return max(1, int(seconds / statistics.median(times)))


def costs_of(game: Distiller, trials: int = 3) -> dict[str, Cost]:
    """The cost of each kind of move of `game`, a game of its own: its players learn from being measured."""
    game.play(0)
    moves, found = game.method.moves(1), {}
    for name in dict.fromkeys(moves):
        seen = [_seen(functools.partial(game.moves[name], 1, trial), game.device)[1:] for trial in range(trials)]
        found[name] = _cost(moves.count(name), seen)
    return found


class FirstSteps:
    """The costs of a run's own moves, seen while it plays its first steps: no step is played for them."""

    def __init__(self, game: Distiller) -> None:
        self.game = game
        self._moves, self._seen = dict(game.moves), {name: [] for name in game.moves}
        for name, move in self._moves.items():
            game.moves[name] = functools.partial(self._watched, name, move)

    def _watched(self, name: str, move: Callable[[int, int], dict[str, Tensor]], step: int, index: int) -> object:
        values, *seen = _seen(functools.partial(move, step, index), self.game.device)
        self._seen[name].append(seen)
        return values

    def costs(self, steps: int) -> dict[str, Cost]:
        """What was seen in `steps` steps, of which the first warmed up; the moves are watched no more."""
        self.game.moves.update(self._moves)
        times = {name: len(seen) // steps for name, seen in self._seen.items()}
        return {name: _cost(count, self._seen[name][count:]) for name, count in times.items() if count}


def _seen(move: Callable[[], object], device: torch.device) -> tuple[object, float, float]:
    """What a move returns, its seconds, and the most MB that its own tensors took at once.

    Tensors are counted, not what the process grows by: that depends on what it has held and freed before.
    """
    start = time.perf_counter()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        values = move()
        torch.cuda.synchronize(device)
        return values, time.perf_counter() - start, (torch.cuda.max_memory_allocated(device) - before) / 2**20
    with Allocations() as seen:
        values = move()
    return values, time.perf_counter() - start, seen.peak / 2**20


def _cost(times: int, seen: Sequence[tuple[float, float]]) -> Cost:
    """Of a move that is played `times` a step, from the seconds and MB of some."""
    seconds, most = zip(*seen, strict=True)
    return Cost(times, statistics.median(seconds), max(most))


def held_mb(game: Distiller) -> float:
    """MB of the tensors that the game holds between moves whatever its batch: networks, averages, optimisers."""
    players = [player for player in (game.student, game.source.player) if player is not None]
    modules = [game.teacher, game.source, game.method, *(m for p in players for m in (p.network, p.ema_or_live))]
    states = [value for player in players for kept in player.optimizer.state.values() for value in kept.values()]
    tensors = [*(tensor for module in modules for tensor in module.state_dict().values()), *states]
    found = [tensor.untyped_storage() for tensor in tensors if isinstance(tensor, Tensor)]
    return sum({storage.data_ptr(): storage.nbytes() for storage in found}.values()) / 2**20


def bank_mb(game: Distiller) -> float:
    """MB that the bank takes once it is full; 0 before it holds a batch."""
    bank = game.bank
    if bank is None or not len(bank):
        return 0.0
    return bank.capacity * sum(kind[0].numel() * kind[0].element_size() for kind in bank.held) / 2**20


def largest_batch(costs: Iterable[Cost], bank: float, batch: int, most_mb: float) -> int:
    """The batch, to two digits, at which moves and a full bank take `most_mb`, where at `batch` they take what is given.

    What tensors take grows as the batch does; gradients, which do not, make it a little smaller than it might be.
    """
    each = (max(cost.mb for cost in costs) + bank) / batch
    fits = max(0, int(most_mb / each))
    return fits - fits % 10 ** max(0, len(str(fits)) - 2)
