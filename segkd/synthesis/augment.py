"""Changes to synthetic images on the device, before the teacher labels them: so no mask is ever warped."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from segkd.synthesis.collage import collage


class Augment(nn.Module):
    """Augmentations by name, on images (N,3,H,W) in [low, high]; gradients flow through to the images.

    `flip`: mirror half of them; `jitter`: brightness, contrast, saturation +-0.2 on [0,1]; `crop`: zoom into a random
    60-100 % of the area, back at full size; `erase`: a grey rectangle of 2-10 %; `noise`: Gaussian, sd 0.03 of [0,1].
    These five are kornia's. `collage`: cut the finished images into dead leaves (see `collage`), until `collage_until` of
    the run is done: what a young generator lacks, a grown one has learnt, and scenes that are not cut up look more real.
    """

    def __init__(self, names: Sequence[str], low: Tensor, high: Tensor, collage_until: float = 1.0) -> None:
        super().__init__()
        import kornia.augmentation as K

        self.names, self.collage_until = tuple(names), collage_until
        self.register_buffer("low", low.view(1, -1, 1, 1), persistent=False)
        self.register_buffer("span", (high - low).view(1, -1, 1, 1), persistent=False)
        parts = {
            "flip": lambda: K.RandomHorizontalFlip(p=0.5),
            "jitter": lambda: K.ColorJiggle(0.2, 0.2, 0.2, 0.0, p=0.8),
            "erase": lambda: K.RandomErasing(scale=(0.02, 0.1), value=0.5, p=0.5),
            "noise": lambda: K.RandomGaussianNoise(std=0.03, p=0.5),
        }
        self.zoom = "crop" in self.names
        chosen = [parts[name]() for name in self.names if name in parts]
        self.rest = K.AugmentationSequential(*chosen, data_keys=["input"], same_on_batch=False)

    def forward(self, images: Tensor, done: float = 0.0) -> Tensor:
        """Changed images of the same shape and range, by torch's global generator; `done` is the run's fraction so far."""
        return self.alike(images, None, done)[0]

    def alike(self, images: Tensor, labels: Tensor | None, done: float = 0.0) -> tuple[Tensor, Tensor | None]:
        """Changed images, and the maps of class ids (N,H,W) that they show: each id goes where its pixel goes.

        Not for `crop` and `erase`, which labels cannot follow.
        """
        if not self.names:
            return images, labels
        import kornia.augmentation as K

        unit = (images - self.low) / self.span
        if self.zoom:
            unit = K.RandomResizedCrop(images.shape[2:], scale=(0.6, 1.0), ratio=(0.9, 1.1))(unit)
        ids = None if labels is None else labels.unsqueeze(1).to(unit.dtype)
        if ids is None:
            unit = self.rest(unit)
        elif len(self.rest):
            unit, ids = self.rest(unit, ids, data_keys=["input", "mask"])
        if "collage" in self.names and done < self.collage_until:
            cut = collage(unit if ids is None else torch.cat([unit, ids], 1))
            unit, ids = (cut, None) if ids is None else (cut[:, :-1], cut[:, -1:])
        return unit.clamp(0, 1) * self.span + self.low, None if ids is None else ids.squeeze(1).round().to(labels.dtype)
