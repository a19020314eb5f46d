"""Procedural pictures as a source: drawn by rules, without any file or teacher. Nothing is learnt."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from segkd.foundation.channels import in_channels
from segkd.machine import ranks
from segkd.procedural import leaves, rooms, scenes
from segkd.synthesis import collage
from segkd.synthesis.augment import Augment
from segkd.synthesis.source import Batch, Judge, Move, Size, Source

POOL = 512
"""Pictures of a kind: each is drawn once, and shown again."""
FIRST_SEED = 3_000_000
"""Of the pool: the data set `scenes` has the pictures of smaller seeds, and its test images teach nobody."""


def leaf_shapes(seed: int, size: Size) -> np.ndarray:
    """Which of random shapes that hide each other lies on top, (H,W) numbers up to `collage.LEAVES`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        [shapes] = collage.leaves(1, *size).numpy()
    return shapes


def dead_leaves(seed: int, size: Size) -> np.ndarray:
    """Such shapes, each of a colour and texture of its own."""
    return leaves.painted(np.random.default_rng(seed), leaf_shapes(seed, size))


KINDS: Mapping[str, Callable[[int, Size], np.ndarray]] = {
    "leaves": dead_leaves,
    "streets": lambda seed, size: scenes.render(seed, size)[0],
    "rooms": lambda seed, size: rooms.render(seed, size)[0],
}
"""A picture (H,W,3) uint8 RGB of a size (H,W) from a seed."""


class Pictures(Source):
    """Pictures of a pool, in the teacher's input range.

    Args:
        kinds: of KINDS, each as likely as the others where nobody says otherwise.
        low, high: values (1,) or (3,) that black and white take after the teacher's normalisation.
    """

    def __init__(self, kinds: tuple[str, ...], low: Tensor, high: Tensor, augment: Augment | None = None) -> None:
        super().__init__(augment)
        self.kinds = kinds
        self.register_buffer("low", low.view(1, -1, 1, 1), persistent=False)
        self.register_buffer("span", (high - low).view(1, -1, 1, 1), persistent=False)

    def draw(self, batch: int, size: Size, move: Move, judge: Judge | None = None) -> Batch:
        """`batch` images of `size`."""
        return Batch(self.augmented(self.shown(batch, size, move, [1.0] * len(self.kinds)), move))

    def shown(self, batch: int, size: Size, move: Move, shares: Sequence[float]) -> Tensor:
        """This process's part of `batch` images (N,K,H,W) of `size`, as they are, of the kinds in such shares."""
        move.begin(ranks.stream("synthesis"))
        count, channels = move.share(batch), self.low.shape[1]
        kinds = torch.multinomial(torch.tensor(shares), count, replacement=True).tolist()
        seeds = torch.randint(POOL, (count,)).tolist()
        drawn = [_rendered(self.kinds[kind], seed, size, channels) for kind, seed in zip(kinds, seeds, strict=True)]
        pixels = torch.from_numpy(np.stack(drawn)).to(self.low.device).permute(0, 3, 1, 2).float() / 255
        return pixels * self.span + self.low


@lru_cache(maxsize=POOL)  # of a kind, or as many of several
def _rendered(kind: str, seed: int, size: Size, channels: int) -> np.ndarray:
    return in_channels(KINDS[kind](FIRST_SEED + seed, size), channels)
