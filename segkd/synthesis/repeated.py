"""One batch of latents for all that a step does."""

from __future__ import annotations

from dataclasses import replace

from segkd.players.player import Player
from segkd.synthesis.source import Batch, Judge, Move, Size, Source


class Repeated(Source):
    """Images of another source, of the same random numbers for every draw of a step: those of the step's first move.

    A generator that has learnt in that move paints the same latents anew. Source: arXiv:1905.09768.

    Args:
        start: draws them; it also learns, if it can.
    """

    def __init__(self, start: Source) -> None:
        super().__init__()
        self.start = start
        self.updates = start.updates

    @property
    def player(self) -> Player | None:
        return self.start.player

    @property
    def real(self) -> int:
        return self.start.real

    def draw(self, batch: int, size: Size, move: Move, judge: Judge | None = None) -> Batch:
        """Those of the first move; images that teach nobody are drawn as they are asked for."""
        return self.start.draw(batch, size, move if move.done is None else replace(move, index=0), judge)

    def improve(self, batch: int, size: Size, judge: Judge) -> Batch | None:
        """One move of the other source."""
        return self.start.improve(batch, size, judge)
