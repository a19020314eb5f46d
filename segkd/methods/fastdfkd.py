"""FastDFKD, data-free distillation with a generator that learns to learn (arXiv:2112.06253)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from segkd.losses.discrepancy import agreed_kl
from segkd.losses.statistics import batchnorm_distance, blended
from segkd.methods.base import View
from segkd.methods.ddad import DDAD
from segkd.synthesis.restarts import Restarts


class FastDFKD(DDAD):
    """Each batch is made in a few updates of a copy of a generator, whose weights learn to be a good beginning for them.

    10 bn + 0.4 one_hot + 1.1 adv, minimised by the copy and its latents, then by the beginning (first-order MAML, or Reptile);
    adv is L_dec = -mean(KL(p||q)) over pixels where both agree, and waits for the first `warmup` of the run. The statistics
    that are compared are 0.9 of those of past batches and 0.1 of this one's, so bn's gradient is a tenth of its own. The
    student follows the teacher on the bank of past images (`synth.replay`).
    Differs: the class of a pixel is the teacher's own, not drawn; bn is a mean over layers; the warm-up is a share of the run
    (published: 20 rounds), and a round has as many student moves as `game` says (published: 400).

    Options:
        updates: of the copy and its latents for a batch (published: 2, 5 or 10).
        meta: how the beginning learns.
        learning: learning rate of the copy; `synth.optimizer.lr` is that of the beginning.
        pace: how many times faster latents learn.
        warmup: fraction of the run in which there is no adversary.
        decay: share of past batches in the statistics that are compared.
    """

    student, source, pixels = ("kd",), ("bn", "one_hot", "adv"), ()
    weights = {"kd": 1.0, "bn": 10.0, "one_hot": 0.4, "adv": 1.1}
    options = {"updates": 5, "meta": "fomaml", "learning": 5.0e-3, "pace": 3.0, "warmup": 0.1, "decay": 0.9,
               "discrepancy": "kl", "temperature": 20.0, "bn": "mean"}  # fmt: skip
    allowed = {
        "discrepancy": ("l1", "kl", "l1+kl"), "temperature": "> 0", "bn": ("mean", "sum", "scaled"), "learning": "> 0",
        "updates": ">= 1, <= 1000", "meta": ("fomaml", "reptile"), "pace": "> 0", "warmup": ">= 0, <= 1", "decay": ">= 0, < 1",
    }  # fmt: skip
    variants = ()

    def __init__(self, *settings: Any) -> None:
        super().__init__(*settings)
        self.register_buffer("past", torch.zeros(0))
        self.register_buffer("batches", torch.zeros(()))
        self.seen: Tensor | None = None  # (P,), the statistics that were looked at last, after those of the past

    def source_around(self, source: nn.Module) -> nn.Module:
        """Around the recipe's generator, which is the beginning."""
        o = self.options
        return Restarts(source, o["updates"], meta=o["meta"], learning=o["learning"], pace=o["pace"], after=self.follow)

    def weight(self, name: str, step: int) -> float:
        """That of the adversary is 0 for the first `options.warmup` of the run."""
        waits = name == "adv" and step < self.options["warmup"] * self.rules.steps
        return 0.0 if waits else self.chosen[name]

    def adv(self, v: View) -> Tensor:
        """Generator: -KL to the student where it agrees with the teacher, over all pixels, in nats."""
        return -agreed_kl(v.s, v.t)

    def bn(self, v: View) -> Tensor:
        """Generator: BatchNorm distance of an average over this batch and past ones."""
        layers = list(v.statistics)
        numbers = sum(2 * len(layer.mean) for layer in layers)
        if len(self.past) != numbers:  # at the first look, which is that of building
            self.past = torch.zeros(numbers, device=v.x.device)
        layers, self.seen = blended(layers, self.past, torch.where(self.batches > 0, self.options["decay"], 0.0))
        return batchnorm_distance(layers, self.options["bn"])

    @torch.no_grad()
    def follow(self, refused: Tensor) -> None:
        """Take the statistics of a move into those of the past, unless it was refused."""
        if self.seen is not None:  # else the term has no weight
            self.past.copy_(torch.where(refused, self.past, self.seen))
            self.batches += ~refused
