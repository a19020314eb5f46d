"""ZSKT, zero-shot knowledge transfer via adversarial belief matching (arXiv:1905.09768)."""

from __future__ import annotations

from torch import Tensor, nn

from segkd.losses.discrepancy import discrepancy
from segkd.methods.base import View
from segkd.methods.kd import KD
from segkd.synthesis.repeated import Repeated


class ZSKT(KD):
    """The generator seeks what student and teacher disagree on by KL, the student learns it, and the teacher's attention.

    L_G = -KL(T || S), L_S = KL(T || S) + beta attention; the images of one z serve the generator's move and all of the student's.
    Differs: the attention is the further term `attention` of the recipe's preset, whose maps are compared by length, so that
    its weight is 1 in place of beta = 250 times a mean over places; logits are compared at every pixel.
    """

    student, source = ("kd",), ("adv",)
    weights = {"kd": 1.0, "adv": 1.0}
    options = {"discrepancy": "kl", "temperature": 1.0}
    allowed = {"discrepancy": ("l1", "kl", "l1+kl"), "temperature": "> 0"}

    def source_around(self, source: nn.Module) -> nn.Module:
        return Repeated(source)

    def adv(self, v: View) -> Tensor:
        """Generator: minus the distance that the student minimises."""
        return -discrepancy(v.s, v.t, self.options["discrepancy"], self.options["temperature"])
