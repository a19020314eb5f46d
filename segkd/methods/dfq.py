"""DFQ, data-free distillation with statistics and an adversary (arXiv:2005.04136)."""

from __future__ import annotations

from torch import Tensor

from segkd.losses.discrepancy import discrepancy
from segkd.methods.base import View
from segkd.methods.ddad import DDAD


class DFQ(DDAD):
    """DDAD's two judges, the teacher's sureness and balance beside them; student and adversary compare by KL at 20.

    L_G = -KL + L_BN + L_OH + 20 L_IE, L_S = KL. Differs: the sums are those of public
    reimplementations, where the distance of statistics is one of norms; entropy and balance are those of pixels. The paper
    quantises its student, which is not done here.
    """

    weights = {"kd": 1.0, "adv": 1.0, "bn": 1.0, "balance": 20.0, "one_hot": 1.0, "tv": 0.0}
    options = {"discrepancy": "kl", "temperature": 20.0, "bn": "sum", "ramp": 0.0}
    allowed = {
        "discrepancy": ("l1", "kl", "l1+kl"), "temperature": "> 0", "bn": ("mean", "sum", "scaled"), "ramp": ">= 0, <= 1",
    }  # fmt: skip
    variants = ()

    def adv(self, v: View) -> Tensor:
        """Generator: minus the distance that the student minimises."""
        return -discrepancy(v.s, v.t, self.options["discrepancy"], self.options["temperature"])
