"""Knowledge distillation on given images (arXiv:1503.02531, at every pixel): no generator learns anything."""

from __future__ import annotations

from torch import Tensor

from segkd.losses.discrepancy import discrepancy
from segkd.methods.base import Method, View


class KD(Method):
    """The student follows the teacher on whatever the source draws: with `synth.kind: images`, real images.

    Options:
        discrepancy: how student and teacher are compared.
        temperature: temperature of kl.
    """

    student, source = ("kd",), ()
    weights = {"kd": 1.0}
    options = {"discrepancy": "l1", "temperature": 1.0}
    allowed = {"discrepancy": ("l1", "kl", "l1+kl"), "temperature": "> 0"}

    def kd(self, v: View) -> Tensor:
        """Student: distance to the teacher's logits, as `options.discrepancy` says."""
        return discrepancy(v.s, v.t, self.options["discrepancy"], self.options["temperature"])
