"""Images that follow their judges themselves, pixel by pixel, before they are kept."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

PACE = 0.08
"""Adam's learning rate, on logits of the unit range: a pixel moves by at most a fiftieth of the range a step.

Half or twice as much makes images on CamVid that a student learns less from (recipes/logs/trials_camvid_val.jsonl)."""


class Refine(nn.Module):
    """A few steps of Adam on the pixels of images (N,3,H,W) down a loss, within [low, high].

    A generator that has just begun cannot paint what its judges want; a few steps of the images themselves bring their
    statistics in the teacher nearer to those of its training images than hundreds of moves of the generator.
    Source of the idea: arXiv:1912.08795, which makes images of noise by thousands of such steps. Differs: few steps, from
    images that already have borders and textures.

    Args:
        steps: how many; 0 leaves the images as they are.
        low, high: the teacher's input range (3,).
    """

    def __init__(self, steps: int, low: Tensor, high: Tensor) -> None:
        super().__init__()
        self.steps = steps
        self.register_buffer("low", low.view(1, 3, 1, 1), persistent=False)
        self.register_buffer("span", (high - low).view(1, 3, 1, 1), persistent=False)

    @torch.enable_grad()
    def forward(self, images: Tensor, loss: Callable[[Tensor], Tensor]) -> Tensor:
        """The images after their steps, detached; `loss` maps images to a scalar. Where it is not finite, they are neither."""
        if not self.steps:
            return images
        # logits keep the pixels in their range; the ends themselves have none
        logits = torch.logit(((images.detach() - self.low) / self.span).clamp(0.01, 0.99)).requires_grad_()
        optimizer = torch.optim.Adam([logits], lr=PACE)
        for _ in range(self.steps):
            optimizer.zero_grad()
            loss(self._pixels(logits)).backward(inputs=[logits])
            optimizer.step()
        return self._pixels(logits).detach()

    def _pixels(self, logits: Tensor) -> Tensor:
        return (logits.sigmoid() * self.span + self.low).contiguous(memory_format=torch.channels_last)
