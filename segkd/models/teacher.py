"""The teacher: any segmentation network, frozen, with its normalisation, size rule and class names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from segkd.foundation.errors import TeacherError
from segkd.models.adapters import Adapter
from segkd.models.family import Size, Sizes


class Teacher(Adapter):
    """A frozen network in eval mode that maps normalised images (N,channels,H,W) to logits (N,C,H,W).

    Its input is images in [0,1] less `mean`, divided by `std`, which have a value for each channel. It stays in eval mode
    whatever `train()` says, and its parameters ask for no gradient; gradients still flow through it to the images.

    Args:
        names: of the network's classes.
        taught: those of a student, each with the numbers of the network's that it is made of; None: the same. The logit of
            several is the logarithm of the sum of their exponentials, so that its softmax is the sum of theirs; the others
            are left out of the softmax.

    Attributes:
        names: of the classes of its logits.
        classes: how many the network has.
        first_members: which of these each class of its logits is made of, the first of several.
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
        taught: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        super().__init__(network, len(names), sizes, features, probabilities, len(mean))
        self.names = tuple(names if taught is None else taught)
        members = [(index,) for index in range(len(names))]
        self._members = members if taught is None else [tuple(group) for group in taught.values()]
        self._same = self._members == members
        self.first_members = [group[0] for group in self._members]
        self.mean, self.std = tuple(mean), tuple(std)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Teacher:
        """Keep eval mode: batch statistics in the teacher would change what it teaches."""
        return super().train(False)

    def forward(self, images: Tensor, at_head: bool = False) -> Tensor:
        """As of an `Adapter`, of the classes that are taught."""
        logits = super().forward(images, at_head)
        return logits if self._same else self._merged(logits)

    def keeps_head(self, size: Size) -> bool:
        """As of an `Adapter`; not where classes are merged: merging and upsampling do not commute."""
        return super().keeps_head(size) and all(len(group) == 1 for group in self._members)

    def _merged(self, logits: Tensor) -> Tensor:
        """Logits (N,K,H,W) of the classes that are taught, of those (N,C,H,W) of the network's; merged ones in fp32 or wider."""
        if logits.shape[1] != self.classes:
            raise TeacherError(f"the teacher gives {logits.shape[1]} maps for {self.classes} classes")
        merges = any(len(group) > 1 for group in self._members)
        number = torch.promote_types(logits.dtype, torch.float32) if merges else logits.dtype
        maps = logits.unbind(1)  # no table of numbers, which a CUDA graph could not hold
        taken = (torch.stack([maps[index] for index in group]).to(number) for group in self._members)
        return torch.stack([one[0] if len(one) == 1 else one.logsumexp(0) for one in taken], 1)


def input_range(mean: Sequence[float], std: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Lowest and highest value (K,) that an image in [0,1] takes after normalisation: the range of a source."""
    mean_, std_ = torch.tensor(mean), torch.tensor(std)
    return -mean_ / std_, (1 - mean_) / std_
