"""DFAD, data-free adversarial distillation (arXiv:1912.11006)."""

from __future__ import annotations

from segkd.methods.ddad import DDAD


class DFAD(DDAD):
    """min over S, max over G of MAE(T(G(z)), S(G(z))); in segmentation the generator minimises -log(1 + MAE).

    It is DDAD without the BatchNorm judge.
    """

    student, source, pixels = ("kd",), ("adv",), ()
    weights = {"kd": 1.0, "adv": 1.0}
    options = {"discrepancy": "l1", "temperature": 1.0, "log": True, "ramp": 0.0}
    variants = ()
