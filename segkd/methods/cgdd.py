"""CGDD, conditional generative data-free distillation (arXiv:2112.15358)."""

from __future__ import annotations

from torch import Tensor

from segkd.losses.labels import cross_entropy, softened
from segkd.methods.base import View
from segkd.methods.ddad import DDAD


class CGDD(DDAD):
    """The generator is told what to show, and judged by whether the teacher sees it; the student disagrees where it can.

    L_G = ce + bn BN distance + balance L_IE - adv D(T,S), and L_S = tau^2 KL(T||S) + attention. From the abstract: preset
    labels are the truth of a conditional generator, the student extracts the teacher's feature maps, adversaries widen the
    space. Differs: the full text was not at hand, so the sums are inferred; a label is a map of classes (`synth.labels` says
    from where, `synth.kind: conditional` paints it), softened, since no photograph has such maps; the adversary is DDAD's,
    -log(1 + MAE); `attention` is the further term of that name (`terms: {attention: 1.0}`, arXiv:1612.03928), to which the
    preset gives weight. Its weights are ours.

    Options:
        sure: probability of a map's class in what the teacher is to answer.
    """

    student, source, pixels = ("kd",), ("ce", "bn", "balance", "adv"), ("ce", "bn")
    weights = {"kd": 1.0, "ce": 1.0, "bn": 1.0, "balance": 0.1, "adv": 0.05}
    options = {"discrepancy": "kl", "temperature": 2.0, "log": True, "bn": "scaled", "ramp": 0.3, "sure": 0.8}
    allowed = {
        "discrepancy": ("l1", "kl", "l1+kl"), "temperature": "> 0", "bn": ("mean", "sum", "scaled"), "ramp": ">= 0, <= 1",
        "sure": "> 0, <= 1",
    }  # fmt: skip
    variants = ()

    def ce(self, v: View) -> Tensor:
        """Generator: the teacher should see the map that was painted."""
        targets = softened(v.t.shape[1], self.options["sure"]).to(v.t.device)
        return cross_entropy(v.t, v.labels, targets)
