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
SURE = 0.5
"""From this probability of its class on a student is sure of a pixel: below it, 8 bits change the class where it hardly matters."""
RUNS = 15
"""Of which the median is the time that an image takes; the first few are not counted."""


@dataclass(frozen=True)
class Verdict:
    """What comparing both on images has shown.

    Attributes:
        images: how many.
        agreement: share of all pixels to which both give the same class.
        sure: the same of the pixels to whose class the student gives a probability of at least a half; of all, where there are none.
        largest: the largest difference of logits; None where the file gives classes.
        worst: the image on which they agree least, and their agreement there.
    """

    images: int
    agreement: float
    sure: float
    largest: float | None
    worst: tuple[str, float]


@torch.no_grad()
def compared(reference: nn.Module, run: Run, images: Iterable[tuple[str, np.ndarray]]) -> Verdict:
    """A file beside what gives the student's logits, on named images (1,K,h,w) as both take them; where numbers are none, nothing agrees.

    The file gives logits, too, or class ids.
    """
    same = pixels = same_sure = sure = count = 0
    largest: float | None = None
    worst = ("", 2.0)
    for name, image in images:
        logits, theirs = reference(torch.from_numpy(image)), run(image)
        probabilities, ours = logits.softmax(1).amax(1).numpy(), logits.argmax(1).numpy()  # a softmax makes ties
        if theirs.ndim == 4:
            difference = float(np.abs(logits.numpy().astype(np.float64) - theirs).max())
            largest = difference if largest is None or not difference <= largest else largest
            alike = (ours == theirs.argmax(1)) & np.isfinite(theirs).all(1)
        else:
            alike = ours == theirs
        certain = probabilities >= SURE
        same, pixels, count = same + int(alike.sum()), pixels + alike.size, count + 1
        same_sure, sure = same_sure + int((alike & certain).sum()), sure + int(certain.sum())
        worst = min(worst, (name, float(alike.mean())), key=lambda found: found[1])
    return Verdict(count, same / pixels, same_sure / sure if sure else same / pixels, largest, worst)


def milliseconds(run: Run, image: np.ndarray) -> float:
    """What one image takes, the median of several runs."""
    took = []
    for _ in range(RUNS + 3):
        begun = time.perf_counter()
        run(image)
        took.append(time.perf_counter() - begun)
    return 1000 * median(took[3:])
