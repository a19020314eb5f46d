"""The last layer of a network, which tells classes apart."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from segkd.foundation.errors import TeacherError


def class_weights(network: nn.Module, classes: int) -> Tensor:
    """The weights (classes,D) of the last convolution that gives a map for each class.

    Where one logit tells two classes apart, those of the other class are its weights with their signs turned round.

    Raises:
        TeacherError: there is none.
    """
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    for maps in (classes, 1) if classes == 2 else (classes,):
        if heads := [m for m in convolutions if m.out_channels == maps]:
            rows = heads[-1].weight.detach().flatten(1)
            return rows if maps == classes else torch.cat([-rows, rows])
    raise TeacherError(
        f"teacher: no convolution that ends in its {classes} classes is seen, and their likeness is read off its weights;"
        " take method=deepinversion, or another teacher"
    )
