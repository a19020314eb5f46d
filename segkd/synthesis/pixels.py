"""Images that follow their judges themselves, pixel by pixel, before they are kept."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segkd.players.player import Player
from segkd.synthesis.label_maps import resampled
from segkd.synthesis.source import Around, Batch, Judge, Move, Size, Source

PACE = 0.08
"""Adam's learning rate, on logits of the unit range: a pixel moves by at most a fiftieth of the range a step.

Half or twice as much makes images on CamVid that a student learns less from (recipes/logs/trials_camvid_val.jsonl)."""


@dataclass(frozen=True)
class Descent:
    """How images go down their loss: by `steps` updates of Adam on their pixels.

    Args:
        pace: the learning rate, on logits of the unit range.
        betas: Adam's.
        half: share of the updates that is made first, at half the height and width.
        jitter: most pixels by which images are rolled along both sides for an update; at half size half as many.
        flip: every second update or so is made on mirror images.
    """

    steps: int
    pace: float = PACE
    betas: tuple[float, float] = (0.9, 0.999)
    half: float = 0.0
    jitter: int = 0
    flip: bool = False


class Pixels(Around):
    """Images of another source, after a few steps of Adam on their pixels down a loss, within [low, high].

    A generator that has just begun cannot paint what its judges want; a few steps of the images themselves bring their
    statistics in the teacher nearer to those of its training images than hundreds of moves of the generator.
    Source of the idea: arXiv:1912.08795, which makes images of noise by thousands of such steps. Differs: few steps, from
    images that already have borders and textures, unless a method asks for more. Logits keep pixels in their range, which are
    cut there as published; jitter is a roll, in which maps of classes follow their images.

    Args:
        start: what they begin with; it also learns, if it can. What it makes meanwhile is not kept: students learn more
            where no raw images are among the refined ones.
        how: how many steps, and which.
        low, high: the teacher's input range (K,).
    """

    def __init__(self, start: Source, how: Descent, low: Tensor, high: Tensor) -> None:
        super().__init__(start)
        self.how = how
        self.register_buffer("low", low.view(1, -1, 1, 1), persistent=False)
        self.register_buffer("span", (high - low).view(1, -1, 1, 1), persistent=False)

    @property
    def inverts(self) -> bool:
        return not self.start.learns

    def draw(self, batch: int, size: Size, move: Move, judge: Judge | None = None) -> Batch:
        """Images that have followed `judge`; without one, those that they would begin with."""
        drawn = self.start.draw(batch, size, move)
        return drawn if judge is None else self.refined(drawn, judge)

    def improve(self, batch: int, size: Size, judge: Judge) -> None:
        """One move of the source that the images begin with."""
        self.start.improve(batch, size, judge)

    @torch.enable_grad()
    def refined(self, drawn: Batch, judge: Judge) -> Batch:
        """The batch after its steps, detached."""
        how, small, images = self.how, round(self.how.half * self.how.steps), drawn.images
        if small:
            half = tuple(max(side // 2, 1) for side in images.shape[2:])
            labels = None if drawn.labels is None else resampled(drawn.labels, half)
            begun = replace(drawn, images=resampled(images, half), labels=labels)
            images = F.interpolate(
                self._followed(begun, judge, small, how.jitter // 2), images.shape[2:], mode="bilinear"
            )
        images = self._followed(replace(drawn, images=images), judge, how.steps - small, how.jitter)
        return replace(drawn, images=images)

    def _followed(self, drawn: Batch, judge: Judge, steps: int, jitter: int) -> Tensor:
        """The images after so many steps, detached."""
        # logits keep the pixels in their range; the ends themselves have none
        logits = nn.Parameter(torch.logit(((drawn.images - self.low) / self.span).clamp(0.01, 0.99)))
        make = partial(torch.optim.Adam, lr=self.how.pace, betas=self.how.betas, fused=True)
        player = Player("pixels", nn.ParameterList([logits]), make, shared=False)
        for _ in range(steps):
            judge.update(
                player, lambda: judge(self._shaken(replace(drawn, images=self._pixels(logits)), judge, jitter))
            )
        return self._pixels(logits).detach()

    def _shaken(self, batch: Batch, judge: Judge, jitter: int) -> Batch:
        """The batch as it is judged: rolled and mirrored, all its images alike."""
        if not (jitter or self.how.flip):
            return batch
        judge.move.begin("jitter")
        rolled, mirrored = torch.randint(-jitter, jitter + 1, (2,)).tolist(), bool(torch.rand(()) < 0.5)

        def shaken(maps: Tensor) -> Tensor:
            maps = maps.roll(rolled, (-2, -1))
            return maps.flip(-1) if self.how.flip and mirrored else maps

        images = shaken(batch.images).contiguous(memory_format=torch.channels_last)
        return replace(batch, images=images, labels=None if batch.labels is None else shaken(batch.labels))

    def _pixels(self, logits: Tensor) -> Tensor:
        return (logits.sigmoid() * self.span + self.low).contiguous(memory_format=torch.channels_last)
