"""What a batch of dense scenes should look like before any image is known: balanced classes, sure pixels, smooth areas."""

from __future__ import annotations

import torch
from kornia.losses import total_variation
from torch import Tensor

from segkd.losses.reduce import mean_over_ranks
from segkd.machine.precision import upcast

LEAST_SHARE = 1e-3
"""Of the pixels: classes below it are about equally rare to `rarity`."""


def _mean_prediction(logits: Tensor) -> Tensor:
    """The share (C,) of each class, over N, H and W of all processes."""
    return mean_over_ranks(torch.softmax(upcast(logits), dim=1).mean(dim=(0, 2, 3)))


def balance(logits: Tensor) -> Tensor:
    """Negative entropy of the mean prediction of logits (N,C,H,W): sum_c p_c log p_c, p averaged over N, H and W.

    In nats, between -log C (all classes equally present) and 0 (one class everywhere). Averaging over the pixels too is
    essential: over N alone every pixel position would have to show every class. Source: arXiv:1904.01186 (L_IE).
    """
    mean = _mean_prediction(logits)
    return (mean * torch.log(mean.clamp_min(torch.finfo(torch.float32).tiny))).sum()


def rarity(logits: Tensor) -> Tensor:
    """mean_c (1/C - p_c)^2 / (p_c + 0.001) of the mean prediction p of logits (N,C,H,W), averaged over N, H and W.

    0 where all classes are equally present; a class that is rare counts far more than one that is frequent. Source:
    arXiv:2011.00809. Differs: what is added to p_c, without which a class that is absent has no finite gradient.
    """
    mean = _mean_prediction(logits)
    return ((1 / len(mean) - mean).square() / (mean + LEAST_SHARE)).mean()


def one_hot(logits: Tensor) -> Tensor:
    """Cross-entropy of logits (N,C,H,W) to their own argmax, in nats, averaged over N, H and W (arXiv:1904.01186, L_OH)."""
    return -torch.log_softmax(upcast(logits), dim=1).amax(dim=1).mean()


def smoothness(images: Tensor) -> Tensor:
    """Total variation of images (N,C,H,W): the mean step between neighbours along H plus that along W, not squared.

    In the unit of the images' range; 0 for flat images. Source: arXiv:1912.08795 (a_tv). Differs: means in place of sums,
    so that a weight carries over between sizes, and no diagonal neighbours.
    """
    return total_variation(upcast(images), reduction="mean").mean()


def magnitude(images: Tensor) -> Tensor:
    """The root of the mean square of each image (N,C,H,W), averaged over N: how far pixels are from 0, the mean of training.

    Source: arXiv:1912.08795 (a_l2), without the square, as in the authors' code. Differs: a mean in place of a sum over pixels.
    """
    images = upcast(images).flatten(1)
    # Exact, since the root takes the scale out again, and the squares of large numbers stay finite.
    scale = images.detach().abs().amax(dim=1, keepdim=True).clamp_min(torch.finfo(images.dtype).tiny)
    length = torch.linalg.vector_norm(images / scale, dim=1) / images.shape[1] ** 0.5
    return (scale.squeeze(1) * length).mean()
