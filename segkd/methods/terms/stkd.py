"""Distillation on virtual samples mixed from the images of a move (STKD, arXiv:2103.10047)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Beta
from torch.nn.functional import interpolate

from segkd.losses.discrepancy import kl
from segkd.methods.base import Term, View


class STKD(Term):
    """Student: it should follow the teacher between the images, too: tau^2 KL on mixed ones.

    From the abstract: mixup makes virtual samples, on which student and teacher agree. Differs: the sum is inferred; the
    teacher answers to the mixed image itself, in place of a mixture of its answers; each image has a share of its own; CutMix
    (arXiv:1905.04899) and ClassMix (arXiv:2007.07936), which leave pixels as they are, may take mixup's place.

    Options:
        mix: with another image: a mean, a box of it, or half of the classes that the teacher sees.
        alpha: of the Beta distribution that each image's own share is drawn from; classmix draws none.
        temperature: by which logits are divided.
    """

    options = {"mix": "mixup", "alpha": 1.0, "temperature": 1.0}
    allowed = {"mix": ("mixup", "cutmix", "classmix"), "alpha": "> 0", "temperature": "> 0"}

    def forward(self, v: View) -> Tensor:
        mixed = self.mixed(v)
        return kl(v.student(mixed), v.teacher(mixed), self.options["temperature"])

    def mixed(self, v: View) -> Tensor:
        """The images (N,K,H,W), each mixed with another one of them; random numbers are those of torch's global generator."""
        x, kind = v.x, self.options["mix"]
        order = torch.randperm(len(x))
        other = torch.empty_like(order)
        other[order] = order.roll(1)  # one round through all: none is its own partner
        other = other.to(x.device, non_blocking=True)
        if kind == "classmix":
            return torch.where(_half_of_classes(v.t, x)[other], x[other], x)
        own = Beta(self.options["alpha"], self.options["alpha"], validate_args=False).sample((len(x), 1, 1, 1))
        own = own.to(x, non_blocking=True)
        return x.lerp(x[other], 1 - own) if kind == "mixup" else torch.where(_boxes(x, 1 - own), x[other], x)


def _boxes(x: Tensor, share: Tensor) -> Tensor:
    """(N,1,H,W) bool: in each image a box of its shape somewhere, of a `share` (N,1,1,1) of its area, but for what is outside."""
    half = share.sqrt() / 2
    centres = torch.rand(2, len(x), 1, 1, 1).to(share, non_blocking=True)
    inside = [
        (((torch.arange(side, device=x.device) + 0.5) / side).view(shape) - centre).abs() < half
        for side, shape, centre in zip(x.shape[2:], ((1, 1, -1, 1), (1, 1, 1, -1)), centres, strict=True)
    ]
    return inside[0] & inside[1]


def _half_of_classes(logits: Tensor, x: Tensor) -> Tensor:
    """(N,1,H,W) bool, at the size of the images: where each shows a random half, rounded down, of its classes."""
    classes = logits.argmax(1)
    present = torch.zeros(logits.shape[:2], device=x.device).scatter_(1, classes.flatten(1), 1.0)
    chances = torch.rand(present.shape).to(x.device, non_blocking=True) - 2 * (1 - present)  # the absent ones come last
    taken = chances.argsort(1, descending=True).argsort(1) < torch.floor(present.sum(1, keepdim=True) / 2)
    masks = taken.gather(1, classes.flatten(1)).view_as(classes).unsqueeze(1)
    return interpolate(masks.float(), x.shape[2:], mode="nearest-exact") > 0
