"""Real images as a source: what `synth.kind: images` shows, and what the run then owns up to."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segkd.data.resize import reduced
from segkd.data.samples import Dataset
from segkd.machine import ranks
from segkd.synthesis.augment import Augment
from segkd.synthesis.source import Batch, Judge, Move, Size, Source


class Images(Source):
    """Random crops of a set's images, without their labels, in the teacher's input range.

    Args:
        data: the set; its images are read once.
        low, high: values (3,) that black and white take after the teacher's normalisation.
    """

    def __init__(self, data: Dataset, low: Tensor, high: Tensor, augment: Augment | None = None) -> None:
        super().__init__(augment)
        samples = (reduced(sample) for sample in data)
        self.images = [torch.from_numpy(np.ascontiguousarray(s.image)).permute(2, 0, 1) for s in samples]
        self.register_buffer("low", low.view(3, 1, 1), persistent=False)
        self.register_buffer("span", (high - low).view(3, 1, 1), persistent=False)

    @property
    def real(self) -> int:
        return len(self.images)

    @torch.no_grad()
    def draw(self, batch: int, size: Size, move: Move, judge: Judge | None = None) -> Batch:
        """`batch` images of `size`; where a file is smaller, its last row and column are repeated."""
        move.begin(ranks.stream("synthesis"))
        chosen = torch.randint(len(self.images), (move.share(batch),))
        return Batch(self.finished(torch.stack([self._crop(int(i), size) for i in chosen]), move))

    def _crop(self, index: int, size: tuple[int, int]) -> Tensor:
        image = self.images[index].to(self.low.device).float() / 255
        below, beside = max(size[0] - image.shape[1], 0), max(size[1] - image.shape[2], 0)
        if below or beside:
            image = F.pad(image[None], (0, beside, 0, below), mode="replicate")[0]
        top = int(torch.randint(image.shape[1] - size[0] + 1, ()))
        left = int(torch.randint(image.shape[2] - size[1] + 1, ()))
        return image[:, top : top + size[0], left : left + size[1]] * self.span + self.low
