"""Real images as a source: a data set's, or those of a folder; the run then owns up to them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segkd.data.resize import reduced
from segkd.data.samples import Sample
from segkd.foundation.channels import in_channels
from segkd.foundation.errors import DataError
from segkd.machine import memory, ranks
from segkd.synthesis.augment import Augment
from segkd.synthesis.source import Batch, Judge, Move, Size, Source


class Images(Source):
    """Random crops of images, whose labels nobody looks at, in the teacher's input range.

    Args:
        data: the images, which are read once and kept, their shorter side reduced to 256 pixels.
        low, high: values (1,) or (3,) that black and white take after the teacher's normalisation.

    Raises:
        DataError: an image is damaged, or they take more memory than is left.
    """

    def __init__(self, data: Sequence[Sample], low: Tensor, high: Tensor, augment: Augment | None = None) -> None:
        super().__init__(augment)
        self.images, left = [], (memory.available_mb() or math.inf) * 2**20
        for sample in map(reduced, data):
            left -= sample.image.nbytes
            if left < 0:
                raise DataError(f"{len(data)} images do not fit into memory; name a smaller folder or set")
            image = in_channels(sample.image, len(low))
            self.images.append(torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1))
        self.register_buffer("low", low.view(-1, 1, 1), persistent=False)
        self.register_buffer("span", (high - low).view(-1, 1, 1), persistent=False)

    @property
    def real(self) -> int:
        return len(self.images)

    def draw(self, batch: int, size: Size, move: Move, judge: Judge | None = None) -> Batch:
        """`batch` images of `size`; where a file is smaller, its last row and column are repeated."""
        move.begin(ranks.stream("synthesis"))
        chosen = torch.randint(len(self.images), (move.share(batch),))
        return Batch(self.augmented(torch.stack([self._crop(int(i), size) for i in chosen]), move))

    def _crop(self, index: int, size: tuple[int, int]) -> Tensor:
        image = self.images[index].to(self.low.device).float() / 255
        below, beside = max(size[0] - image.shape[1], 0), max(size[1] - image.shape[2], 0)
        image = F.pad(image[None], (0, beside, 0, below), mode="replicate")[0]
        top = int(torch.randint(image.shape[1] - size[0] + 1, ()))
        left = int(torch.randint(image.shape[2] - size[1] + 1, ()))
        return image[:, top : top + size[0], left : left + size[1]] * self.span + self.low
