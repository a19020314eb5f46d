"""CMI, contrastive model inversion (arXiv:2105.08584)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from segkd.losses.contrast import contrast, pooled
from segkd.losses.discrepancy import agreed_kl
from segkd.machine import ranks
from segkd.methods.base import View
from segkd.methods.ddad import DDAD
from segkd.synthesis.restarts import Restarts


class CMI(DDAD):
    """Each batch is made by a generator that begins anew, with its latents; its images should be unlike all before them.

    bn + one_hot + adv + contrast, minimised by a fresh generator and its latents in `updates` steps; the student follows the
    teacher on the bank of all past images (`synth.replay`). adv is L_dec = -mean(KL(p||q)) over pixels where both agree.
    Differs: a view of an image is a window of the teacher's last map, which costs no pass through the teacher and fits images
    with a map of many objects; what is contrasted are the map's means themselves, without a learnt head; bn is a mean over
    layers; sizes, updates and student moves of the preset are for hours, not days (published: 200 updates, a student that
    learns on all images after each).

    Options:
        updates: of the generator and its latents for a batch.
        memory: images that new ones are contrasted with.
        contrast_temperature: by which cosines are divided.
    """

    student, source, pixels = ("kd",), ("bn", "one_hot", "adv", "contrast"), ()
    weights = {"kd": 1.0, "bn": 1.0, "one_hot": 0.5, "adv": 0.5, "contrast": 0.8}
    options = {"updates": 200, "memory": 1024, "contrast_temperature": 0.1,
               "discrepancy": "kl", "temperature": 20.0, "bn": "mean", "ramp": 0.0}  # fmt: skip
    allowed = {
        "discrepancy": ("l1", "kl", "l1+kl"), "temperature": "> 0", "bn": ("mean", "sum", "scaled"), "ramp": ">= 0, <= 1",
        "updates": ">= 1, <= 10000", "memory": ">= 1, <= 65536", "contrast_temperature": "> 0",
    }  # fmt: skip
    variants = ()

    def __init__(self, *settings: Any) -> None:
        super().__init__(*settings)
        self.register_buffer("memory", torch.zeros(self.options["memory"], 0))
        self.seen: Tensor | None = None  # (N,C), what the teacher said of the images that were looked at last

    def source_around(self, source: nn.Module) -> nn.Module:
        """Around the recipe's generator, which is what is made anew."""
        return Restarts(source, self.options["updates"], after=self.remember)

    def adv(self, v: View) -> Tensor:
        """Generator: -KL to the student where it agrees with the teacher, over all pixels, in nats."""
        return -agreed_kl(v.s, v.t)

    def contrast(self, v: View) -> Tensor:
        """Generator: an image should be like its own parts, and unlike those before it, as the teacher sees them."""
        maps = v.t_features[-1]
        if self.memory.shape[1] != maps.shape[1]:  # at the first look, which is that of building
            self.memory = torch.zeros(len(self.memory), maps.shape[1], device=maps.device)
        whole, window = pooled(maps), pooled(maps, torch.rand(2, len(maps)))
        self.seen = whole.detach()
        return contrast(whole, window, self.memory, self.options["contrast_temperature"])

    @torch.no_grad()
    def remember(self, refused: Tensor) -> None:
        """Put the images of a move, of all processes, into the memory, oldest out first; not so if it was refused."""
        if self.seen is None:  # the term has no weight
            return
        new = ranks.all_gather(self.seen).flatten(0, 1).flip(0)[: len(self.memory)]
        moved = torch.cat([new, self.memory])[: len(self.memory)]
        self.memory.copy_(torch.where(refused, self.memory, moved))
