"""DAFL, data-free learning of student networks (arXiv:1904.01186)."""

from __future__ import annotations

from torch import Tensor

from segkd.machine.precision import upcast
from segkd.methods.base import View
from segkd.methods.ddad import DDAD


class DAFL(DDAD):
    """The teacher alone judges the images: it should be sure, see all classes, and have large activations.

    L_G = L_OH + L_IE - mean|f_T|, each weighed; the student follows the teacher by KL. Differs: entropy and balance are those
    of pixels (over whole images the classes of a scene cannot be balanced), in nats: the published weight of the balance, 5,
    belongs to log10, and is 2.17 here; f_T are the teacher's last maps in place of the vector before its classifier.
    """

    student, source, pixels = ("kd",), ("one_hot", "balance", "activation"), ()
    weights = {"kd": 1.0, "one_hot": 0.05, "balance": 2.17, "activation": 0.01}
    options = {"discrepancy": "kl", "temperature": 1.0}
    allowed = {"discrepancy": ("l1", "kl", "l1+kl"), "temperature": "> 0"}
    variants = ()

    def activation(self, v: View) -> Tensor:
        """Generator: minus the mean size of the teacher's last maps."""
        return -upcast(v.t_features[-1]).abs().mean()
