"""One batch of latents for all that a step does."""

from __future__ import annotations

from dataclasses import replace

from segkd.synthesis.source import Around, Batch, Judge, Move, Size


class Repeated(Around):
    """Images of another source, of the same random numbers for every draw of a step: those of the step's first move.

    A generator that has learnt in that move paints the same latents anew. Source: arXiv:1905.09768.
    """

    def draw(self, batch: int, size: Size, move: Move, judge: Judge | None = None) -> Batch:
        """Those of the first move; images that teach nobody are drawn as they are asked for."""
        return super().draw(batch, size, move if move.progress is None else replace(move, index=0), judge)
