"""Whether a file answers as the student that it was made of."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch
from torch import nn

Run = Callable[[np.ndarray], np.ndarray]
RUNS = 15
"""Of which the median is the time that an image takes; the first few are not counted."""


@dataclass(frozen=True)
class Verdict:
    """What comparing both on images has shown.

    Attributes:
        images: how many.
        agreement: share of all pixels to which both give the same class.
        largest: the largest difference of logits; None where the file gives classes.
        worst: the image on which they agree least, and their agreement there.
    """

    images: int
    agreement: float
    largest: float | None
    worst: tuple[str, float]

    def passes(self, least: float) -> bool:
        """Whether as many pixels agree as is asked for; where numbers are none, nothing agrees."""
        return self.agreement >= least


@torch.no_grad()
def compared(reference: nn.Module, run: Run, images: Iterable[tuple[str, np.ndarray]]) -> Verdict:
    """A deployed student beside its file, on named images (1,K,h,w) as both take them."""
    same = pixels = count = 0
    largest: float | None = None
    worst = ("", 2.0)
    for name, image in images:
        ours, theirs = reference(torch.from_numpy(image)).numpy(), run(image)
        if ours.ndim == 4:
            difference = float(np.abs(ours.astype(np.float64) - theirs).max())
            largest = difference if largest is None or not difference <= largest else largest
            alike = (ours.argmax(1) == theirs.argmax(1)) & np.isfinite(theirs).all(1)
        else:
            alike = ours == theirs
        same, pixels, count = same + int(alike.sum()), pixels + alike.size, count + 1
        worst = min(worst, (name, float(alike.mean())), key=lambda found: found[1])
    return Verdict(count, same / pixels, largest, worst)


def milliseconds(run: Run, image: np.ndarray) -> float:
    """What one image takes, the median of several runs."""
    took = []
    for _ in range(RUNS + 3):
        begun = time.perf_counter()
        run(image)
        took.append(time.perf_counter() - begun)
    return 1000 * median(took[3:])
