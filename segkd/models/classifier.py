"""The last layer of a network, which tells classes apart."""

from __future__ import annotations

from torch import Tensor, nn

from segkd.foundation.errors import TeacherError


def class_weights(network: nn.Module, classes: int) -> Tensor:
    """The weights (classes,D) of the last convolution that gives a map for each class.

    Raises:
        TeacherError: there is none.
    """
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d) and m.out_channels == classes]
    if not convolutions:
        raise TeacherError(
            f"teacher: no convolution that ends in its {classes} classes is seen, and their likeness is read off its weights;"
            " take method=deepinversion, or another teacher"
        )
    return convolutions[-1].weight.detach().flatten(1)
