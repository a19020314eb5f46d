"""Real images in the synthesiser's place: what `synth.kind: images` shows, and what the run then owns up to."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segkd.data.resize import reduced
from segkd.data.samples import Dataset


class ImageStream(nn.Module):
    """Random crops of a set's images, without their labels, in the teacher's input range.

    Args:
        data: the set; its images are read once.
        low, high: values (3,) that black and white take after the teacher's normalisation.
    """

    def __init__(self, data: Dataset, low: Tensor, high: Tensor) -> None:
        super().__init__()
        samples = (reduced(sample) for sample in data)
        self.images = [torch.from_numpy(np.ascontiguousarray(s.image)).permute(2, 0, 1) for s in samples]
        self.register_buffer("low", low.view(3, 1, 1), persistent=False)
        self.register_buffer("span", (high - low).view(3, 1, 1), persistent=False)

    def __len__(self) -> int:
        return len(self.images)

    def forward(self, z: Tensor, size: tuple[int, int]) -> Tensor:
        """Images (N,3,H,W) of `size`, drawn by torch's global generator; `z` (N,latent) only counts them.

        Where an image is smaller than `size`, its last row and column are repeated.
        """
        return torch.stack([self._crop(int(i), size) for i in torch.randint(len(self.images), (len(z),))])

    def _crop(self, index: int, size: tuple[int, int]) -> Tensor:
        image = self.images[index].to(self.low.device).float() / 255
        below, beside = max(size[0] - image.shape[1], 0), max(size[1] - image.shape[2], 0)
        if below or beside:
            image = F.pad(image[None], (0, beside, 0, below), mode="replicate")[0]
        top = int(torch.randint(image.shape[1] - size[0] + 1, ()))
        left = int(torch.randint(image.shape[2] - size[1] + 1, ()))
        return image[:, top : top + size[0], left : left + size[1]] * self.span + self.low
