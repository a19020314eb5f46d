"""Channel-wise distillation of the logits (arXiv:2011.13256)."""

from __future__ import annotations

from torch import Tensor

from segkd.losses.discrepancy import channel_wise
from segkd.methods.base import Term, View


class CWD(Term):
    """Student: each class should stand out at the same places as for the teacher.

    Options:
        temperature: by which logits are divided before they become shares of the places.
    """

    options = {"temperature": 4.0}
    allowed = {"temperature": "> 0"}

    def forward(self, v: View) -> Tensor:
        return channel_wise(v.s, v.t, self.options["temperature"])
