"""DFSS, data-free distillation of segmentation from a pool of images that are nearer to the training set or farther (arXiv:2512.13175)."""

from __future__ import annotations

import torch
from torch import Tensor

from segkd.losses.discrepancy import discrepancy
from segkd.losses.reduce import mean_over_ranks
from segkd.losses.statistics import image_distances, nearness
from segkd.methods.base import View
from segkd.methods.ddad import DDAD


class DFSS(DDAD):
    """Images of a pool teach the more, the nearer their own statistics are to the teacher's; towards the end all count alike.

    Student: sum_i w_i(t) KD_i / sum_i w_i(t), w_i(t) = w_i + (1 - w_i) min(1, t / T), w_i = 1 - (d_i - d_min) / (d_max - d_min)
    of the distances d_i in a batch. The generator is DDAD's.
    Differs: from the abstract (Approximate Distribution Sampling by statistics, Weighted Distribution Progressive
    Distillation); the formulas are inferred. The pool is what `synth` draws: generated images beside procedural ones
    (`synth.mix: {pictures: 0.25}`), data-free, or a folder of one's own (`{folder: 0.5}`), as published, and the run says so.

    Options:
        until: fraction of the run after which all images count alike (T).
    """

    student, source, pixels = ("kd",), ("adv", "bn"), ("bn",)
    weights = {"kd": 1.0, "adv": 1.0, "bn": 1.0}
    options = {"until": 0.8, "discrepancy": "l1", "temperature": 1.0, "log": True, "bn": "mean", "ramp": 0.0}
    allowed = {
        "discrepancy": ("l1", "kl", "l1+kl"), "temperature": "> 0", "bn": ("mean", "sum", "scaled"), "ramp": ">= 0, <= 1",
        "until": "> 0, <= 1",
    }  # fmt: skip
    variants = ()
    done = 0.0
    """The fraction of the run before the step that is played."""

    def loss(self, group: str, view: View, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """As of every method; the terms know the step."""
        self.done = step / self.rules.steps
        return super().loss(group, view, step)

    def kd(self, v: View) -> Tensor:
        """Student: distance to the teacher's logits, as `options.discrepancy` says, in which near images weigh more."""
        near, kind, temperature = self.near(v), self.options["discrepancy"], self.options["temperature"]
        pairs = zip(v.s.split(1), v.t.split(1), strict=True)
        each = torch.stack([discrepancy(s, t, kind, temperature) for s, t in pairs])
        weights = near + (1 - near) * min(1.0, self.done / self.options["until"])
        return mean_over_ranks((weights * each).mean()) / mean_over_ranks(weights.mean())

    def near(self, v: View) -> Tensor:
        """w_i (N,)."""
        return nearness(image_distances(v.statistics, self.options["bn"]))
