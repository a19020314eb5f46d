"""Moves that are refused: what a verdict is, and how many in a row end a run."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from segkd.foundation.errors import NumbersError
from segkd.machine import waiting


@dataclass(frozen=True)
class Verdict:
    """Whether a move is refused: () bool on the device, alike in all processes.

    `why` says it in words, and waits for the device: it is asked of refused moves alone.
    """

    refused: Tensor
    why: Callable[[], str]

    def explained(self, terms: Mapping[str, Tensor], sound: Mapping[str, Tensor] | None = None) -> Verdict:
        """The same, with words for what was not `sound` (() bools), and for the values of the loss terms."""

        def why() -> str:
            unsound = [name for name, value in (sound or {}).items() if not value]
            said = f"{' and '.join(unsound)} are not finite" if unsound else self.why()
            bad = {name: value for name, value in terms.items() if not torch.isfinite(value)} or terms
            told = ", ".join(f"term {name} is {value.item():.3g}" for name, value in bad.items())
            return f"{said} ({told})" if told else said

        return Verdict(self.refused, why)


class Refusals:
    """Counts refused moves: each is named in `notes`, and more than `max_bad` in a row of one player end the run.

    Each player counts for itself: one that is always refused learns nothing, however well the other plays.
    On an accelerator the verdicts of a step are read at the end of the next one, so that it never waits for the host; who
    asks for the state reads all.
    """

    def __init__(self, max_bad: int) -> None:
        self.max_bad = max_bad
        self.total = 0
        self.in_a_row: dict[str, int] = {}
        self.notes: list[str] = []
        self._recorded: list[tuple[str, int, Verdict]] = []
        self._sent: deque[tuple[list[tuple[str, int, Verdict]], waiting.Sent]] = deque()

    def record(self, player: str, step: int, verdict: Verdict) -> None:
        """Take note of a move's verdict, at once where that costs no wait.

        Raises:
            NumbersError: too many were refused in a row.
        """
        self._recorded.append((player, step, verdict))
        if waiting.on_cpu(verdict.refused):
            self._read()

    def end_step(self) -> None:
        """Send for the verdicts of this step, and read those of the one before. Raises NumbersError as `record` does."""
        self._send()
        while len(self._sent) > 1:
            self._settle(*self._sent.popleft())

    def _read(self) -> None:
        """Read what was recorded, in order."""
        self._send()
        while self._sent:
            self._settle(*self._sent.popleft())

    def _send(self) -> None:
        if self._recorded:
            self._sent.append(
                (self._recorded, waiting.Sent(torch.stack([verdict.refused for *_, verdict in self._recorded])))
            )
            self._recorded = []

    def _settle(self, moves: list[tuple[str, int, Verdict]], sent: waiting.Sent) -> None:
        for (player, step, verdict), refused in zip(moves, sent.read().tolist(), strict=True):
            if refused:
                self.notes.append(self.refuse(player, step, verdict.why()))
            else:
                self.accept(player)

    def accept(self, player: str) -> None:
        self.in_a_row.pop(player, None)

    def refuse(self, player: str, step: int, reason: str) -> str:
        """The line to log.

        Raises:
            NumbersError: too many in a row.
        """
        self.total += 1
        self.in_a_row[player] = self.in_a_row.get(player, 0) + 1
        line = f"step {step}: {player} {reason}"
        if self.in_a_row[player] > self.max_bad:
            raise NumbersError(
                f"{line}, {self.in_a_row[player]} refused updates in a row (run.max_bad {self.max_bad}): it has diverged;"
                " lower the learning rates or run.precision=fp32, and resume"
            )
        return f"{line}: update refused, nothing changed"

    def state(self) -> dict:
        """The counts after all moves so far. Raises NumbersError as `record` does."""
        self._read()
        return {"total": self.total, "in_a_row": dict(self.in_a_row)}

    def restore(self, state: dict) -> None:
        """Count on from `state`; what was heard since, and not read, is of moves that are undone."""
        self._recorded, self._sent = [], deque()
        self.total, self.in_a_row = state["total"], dict(state["in_a_row"])
