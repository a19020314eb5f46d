"""Several sources as one: each batch has images of all of them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from segkd.machine import ranks
from segkd.players.player import Player
from segkd.synthesis.source import Batch, Judge, Move, Size, Source


class Mixed(Source):
    """Images of a main source, which learns if it can, and a share of each batch from others.

    What the main source makes while it learns is kept without images of the others.

    Args:
        main: where the rest of a batch comes from; its images alone follow a judge.
        others: by name, a source and its share of a batch, 0..1.
    """

    def __init__(self, main: Source, others: Mapping[str, tuple[Source, float]]) -> None:
        super().__init__()
        self.main, self.shares = main, {name: share for name, (_, share) in others.items()}
        self.others = nn.ModuleDict({name: source for name, (source, _) in others.items()})
        self.updates = main.updates

    @property
    def player(self) -> Player | None:
        return self.main.player

    @property
    def real(self) -> int:
        return sum(source.real for source in (self.main, *self.others.values()))

    def counts(self, batch: int) -> dict[str, int]:
        """Images of a batch that each of the others gives: its share, rounded down, alike in all processes."""
        return {name: int(share * batch / ranks.size()) * ranks.size() for name, share in self.shares.items()}

    def draw(self, batch: int, size: Size, move: Move, judge: Judge | None = None) -> Batch:
        """The main source's images first; labels and latents of single sources are not handed on."""
        counts = {name: count for name, count in self.counts(batch).items() if count}
        parts = [self.main.draw(batch - sum(counts.values()), size, move, judge)]
        parts += [self.others[name].draw(count, size, move.of(name)) for name, count in counts.items()]
        images = torch.cat([part.images for part in parts])
        return Batch(images.contiguous(memory_format=torch.channels_last))

    def improve(self, batch: int, size: Size, judge: Judge) -> Batch | None:
        """One move of the main source."""
        return self.main.improve(batch, size, judge)
