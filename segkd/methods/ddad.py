"""DDAD, dual discriminator adversarial distillation (arXiv:2104.05382)."""

from __future__ import annotations

import torch
from torch import Tensor

from segkd.losses.discrepancy import discrepancy, l1
from segkd.losses.priors import balance, one_hot, smoothness
from segkd.losses.reduce import mean_over_ranks
from segkd.losses.statistics import batchnorm_distance
from segkd.methods.base import Method, View


class DDAD(Method):
    """The generator has two judges: the teacher's BatchNorm statistics, and the student's disagreement.

    From the abstract: the generator matches the statistics kept in the teacher's BatchNorm layers and maximises the
    discrepancy to the student; the student learns from the teacher's pixel-wise outputs on its images.
    Differs: the full text was not at hand, so the exact sums are inferred from it and from DFAD (arXiv:1912.11006);
    `balance` and `one_hot` (arXiv:1904.01186) are ours and 0 by default. So is `synth.refine`: before images are stored, their
    pixels are optimised for a few steps on the terms of `pixels` (arXiv:1912.08795 makes whole images so; `tv` is its prior).
    `variant: paper` is the plain form, `segkd` the tuned one, `pictures` the one whose generator changes procedural pictures:
    all are presets in recipes/base/ddad.yaml.

    Options:
        discrepancy: how student and teacher are compared.
        temperature: temperature of kl.
        log: the generator's reward is ln(1 + MAE), not the MAE itself.
        bn: how BatchNorm distances add up over layers.
        ramp: fraction of the run over which the adversary's weight rises from 0.
    """

    student, source = ("kd",), ("adv", "bn", "balance", "one_hot")
    pixels = ("bn", "balance", "one_hot", "tv")
    weights = {"kd": 1.0, "adv": 1.0, "bn": 1.0, "balance": 0.0, "one_hot": 0.0, "tv": 0.0}
    options = {"discrepancy": "l1", "temperature": 1.0, "log": True, "bn": "mean", "ramp": 0.0}
    allowed = {
        "discrepancy": ("l1", "kl", "l1+kl"), "temperature": "> 0", "bn": ("mean", "sum", "scaled"), "ramp": ">= 0, <= 1",
    }  # fmt: skip
    variants = ("segkd", "pictures", "paper")

    def weight(self, name: str, step: int) -> float:
        """The adversary's rises linearly over the first `options.ramp` of the run."""
        ramp = self.options["ramp"] * self.rules.steps if name == "adv" else 0.0
        return super().weight(name, step) * (min(1.0, (step + 1) / ramp) if ramp > 0 else 1.0)

    def kd(self, v: View) -> Tensor:
        """Student: distance to the teacher's logits (`options.discrepancy`)."""
        return discrepancy(v.s, v.t, self.options["discrepancy"], self.options["temperature"])

    def adv(self, v: View) -> Tensor:
        """Generator: -ln(1 + MAE) to the student, or -MAE without `options.log`."""
        # The mean over all processes comes before the logarithm, which is no plain mean over images.
        gap = mean_over_ranks(l1(v.s, v.t))
        return -torch.log1p(gap) if self.options["log"] else -gap

    def bn(self, v: View) -> Tensor:
        """Generator: distance to the teacher's running statistics, as `options.bn` says."""
        return batchnorm_distance(v.statistics, self.options["bn"])

    def balance(self, v: View) -> Tensor:
        """Generator: all classes should appear."""
        return balance(v.t)

    def one_hot(self, v: View) -> Tensor:
        """Generator: the teacher is sure."""
        return one_hot(v.t)

    def tv(self, v: View) -> Tensor:
        """Refined images: areas should stay as smooth as in photographs."""
        return smoothness(v.x)
