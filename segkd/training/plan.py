"""What a run will take: seconds and memory of each move, steps for a budget, and the largest batch that fits.

A budget of time becomes a number of steps once, before step 1: schedules depend on steps only, never on the clock.
"""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from segkd.foundation import memory
from segkd.training.distiller import Distiller


@dataclass(frozen=True)
class Cost:
    """What a kind of move costs: `times` a step, `seconds` each; `peak_mb` is the most that the process held meanwhile.

    On a GPU `peak_mb` is what tensors took there; it is None where the system does not tell.
    """

    times: int
    seconds: float
    peak_mb: float | None


def steps_for(seconds: float, play: Callable[[int], object], trials: int = 3) -> int:
    """How many steps fit into `seconds`: the median of `trials` played steps, after one that warms up; at least 1."""
    play(0)
    times = []
    for step in range(1, trials + 1):
        start = time.perf_counter()
        play(step)
        times.append(time.perf_counter() - start)
    return max(1, int(seconds / statistics.median(times)))


def costs(game: Distiller, trials: int = 3) -> dict[str, Cost]:
    """The cost of each kind of move of `game`, a game of its own: its players learn from being measured."""
    game.play(0)
    moves, found = game.method.moves(1), {}
    for name in dict.fromkeys(moves):
        seen = [_seen(functools.partial(game._moves[name], 1, trial), game.device)[1:] for trial in range(trials)]
        found[name] = _cost(moves.count(name), seen)
    return found


class FirstSteps:
    """The costs of a run's own moves, seen while it plays its first steps: no step is played for them.

    Attributes:
        held_mb: what the process held before the first move; None where the system does not tell.
    """

    def __init__(self, game: Distiller) -> None:
        self.game, self.held_mb = game, _held_mb(game.device)
        self._moves, self._seen = dict(game._moves), {name: [] for name in game._moves}
        for name, move in self._moves.items():
            game._moves[name] = functools.partial(self._watched, name, move)

    def _watched(self, name: str, move: Callable[[int, int], dict[str, Tensor]], step: int, index: int) -> object:
        values, *seen = _seen(functools.partial(move, step, index), self.game.device)
        self._seen[name].append(seen)
        return values

    def costs(self, steps: int) -> dict[str, Cost]:
        """What was seen in `steps` steps, of which the first warmed up; the moves are watched no more."""
        self.game._moves.update(self._moves)
        times = {name: len(seen) // steps for name, seen in self._seen.items()}
        return {name: _cost(count, self._seen[name][count:]) for name, count in times.items() if count}


def _seen(move: Callable[[], object], device: torch.device) -> tuple[object, float, float | None]:
    """What a move returns, its seconds, and the most MB that were held meanwhile."""
    _forget_peak(device)
    start = time.perf_counter()
    values = move()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return values, time.perf_counter() - start, _peak_mb(device)


def _cost(times: int, seen: Sequence[Sequence[float | None]]) -> Cost:
    """Of a move that is played `times` a step, from the seconds and MB of some."""
    seconds, peaks = zip(*seen, strict=True)
    return Cost(times, statistics.median(seconds), None if None in peaks else max(peaks))


def bank_mb(game: Distiller) -> float:
    """MB that the bank will still take until it is full."""
    bank = game.replay
    if bank is None or not len(bank):
        return 0.0
    each = sum(kind[0].numel() * kind[0].element_size() for kind in bank.held)
    return each * (bank.capacity - len(bank)) / 2**20


def largest_batch(smaller: tuple[int, float], larger: tuple[int, float], most_mb: float) -> int:
    """The batch at which memory reaches `most_mb`, on the line through two measured pairs (batch, MB); at least 0."""
    slope = (larger[1] - smaller[1]) / (larger[0] - smaller[0])
    if slope <= 0:
        return larger[0]  # too little to be measured: no more is promised than was seen
    return max(0, int((most_mb - larger[1]) / slope + larger[0]))


def _held_mb(device: torch.device) -> float | None:
    return torch.cuda.memory_allocated(device) / 2**20 if device.type == "cuda" else memory.resident_mb()


def _forget_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        memory.forget_peak()


def _peak_mb(device: torch.device) -> float | None:
    return torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else memory.peak_mb()
