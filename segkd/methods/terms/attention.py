"""Attention transfer (arXiv:1612.03928)."""

from __future__ import annotations

from torch import Tensor

from segkd.losses.features import attention_distance
from segkd.methods.base import Term, View


class Attention(Term):
    """Student: its maps should have their energy where the teacher's have theirs."""

    def forward(self, v: View) -> Tensor:
        return attention_distance(v.s_features, v.t_features)
