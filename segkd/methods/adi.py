"""Adaptive DeepInversion (arXiv:1912.08795): images on which teacher and student disagree."""

from __future__ import annotations

from torch import Tensor

from segkd.losses.discrepancy import jensen_shannon
from segkd.methods.base import View
from segkd.methods.deepinversion import DeepInversion


class ADI(DeepInversion):
    """DeepInversion whose images also minimise a_c (1 - JS(T, S)) against the student as it stands.

    Differs: as DeepInversion; JS is that of each pixel, at temperature 3.
    """

    pixels = ("ce", "bn", "tv", "l2", "one_hot", "balance", "compete")
    weights = {"kd": 1.0, "ce": 1.0, "bn": 3.0, "tv": 0.1, "l2": 0.01, "one_hot": 0.0, "balance": 0.0, "compete": 1.0}

    def compete(self, v: View) -> Tensor:
        """Images: student and teacher should disagree; 1 - JS."""
        return 1 - jensen_shannon(v.s, v.t)
