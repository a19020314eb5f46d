"""The noise baseline: the student follows the teacher on Gaussian noise (the floor in arXiv:1912.11006's tables)."""

from __future__ import annotations

from segkd.methods.kd import KD


class Noise(KD):
    """KD with `synth.kind: noise`: what a data-free method must beat to have learnt anything about images."""

    student, source = ("kd",), ()
    weights = {"kd": 1.0}
