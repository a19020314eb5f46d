"""Where the time of a step goes."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

import torch

from segkd.synthesis.pixels import Pixels
from segkd.training.distiller import Distiller

NAMES = ("synthesis", "teacher", "student forward", "backward", "optimiser", "rest")


class Phases:
    """Seconds by name. What runs inside another phase counts for itself, and not for the outer one."""

    def __init__(self, device: torch.device) -> None:
        self.seconds = dict.fromkeys(NAMES, 0.0)
        self._device, self._open, self._since = device, [], 0.0

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, whose time is counted under `name`."""

        @functools.wraps(function)
        def call(*arguments: Any, **options: Any) -> Any:
            self._turn(name)
            try:
                return function(*arguments, **options)
            finally:
                self._turn(None)

        return call

    def _turn(self, name: str | None) -> None:
        """Count the time until now for the phase that was on; then enter `name`, or return to the phase around."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)  # kernels of the phase before are its own
        now = time.perf_counter()
        if self._open:
            self.seconds[self._open[-1]] += now - self._since
        if name is None:
            self._open.pop()
        else:
            self._open.append(name)
        self._since = now


def watched(game: Distiller, device: torch.device) -> Phases:
    """Phases of which every later step of `game` takes note; the steps become slower by next to nothing on a CPU."""
    phases = Phases(device)
    game.play = phases.timed("rest", game.play)
    game.source.draw = phases.timed("synthesis", game.source.draw)
    game.source.improve = phases.timed("synthesis", game.source.improve)
    game.networks.teacher_outputs = phases.timed("teacher", game.networks.teacher_outputs)
    game.networks.student_outputs = phases.timed("student forward", game.networks.student_outputs)
    if isinstance(game.source, Pixels):
        game.source.refined = phases.timed("backward", game.source.refined)  # the teacher inside it counts for itself
    for player in (game.student, game.source.player):
        if player is not None:
            player.update = phases.timed("backward", player.update)
            player.optimizer.step = phases.timed("optimiser", player.optimizer.step)
            player.update_average = phases.timed("optimiser", player.update_average)
    return phases
