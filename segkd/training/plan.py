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

from segkd.machine.allocations import Allocations
from segkd.training.distiller import Distiller


@dataclass(frozen=True)
class Cost:
    """What a kind of move costs: `times` a step, `seconds` each; `mb` is the most that the tensors made in it take at once."""

    times: int
    seconds: float
    mb: float


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
    """The costs of a run's own moves, seen while it plays its first steps: no step is played for them."""

    def __init__(self, game: Distiller) -> None:
        self.game = game
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
    modules = [game.teacher, game.source, game.method, *(m for p in players for m in (p.network, p.headline))]
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
