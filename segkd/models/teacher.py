"""The teacher: any segmentation network, frozen, with its normalisation, size rule and class names."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from segkd.models.adapters import Adapter
from segkd.models.family import Sizes


class Teacher(Adapter):
    """A frozen network in eval mode that maps normalised images (N,3,H,W) to logits (N,C,H,W).

    Its input is RGB in [0,1] less `mean`, divided by `std`. It stays in eval mode whatever `train()` says, and its
    parameters ask for no gradient; gradients still flow through it to the images.
    """

    def __init__(
        self,
        network: nn.Module,
        names: Sequence[str],
        mean: Sequence[float],
        std: Sequence[float],
        sizes: Sizes | None = None,
        features: Sequence[str] = (),
        probabilities: bool = False,
    ) -> None:
        super().__init__(network, len(names), sizes, features, probabilities)
        self.names = tuple(names)
        self.mean, self.std = tuple(mean), tuple(std)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Teacher:
        """Keep eval mode: batch statistics in the teacher would change what it teaches."""
        return super().train(False)


def input_range(mean: Sequence[float], std: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Lowest and highest value (3,) that an image in [0,1] takes after normalisation: the range of a source."""
    mean_, std_ = torch.tensor(mean), torch.tensor(std)
    return -mean_ / std_, (1 - mean_) / std_
