"""RDSKD, robustness and diversity seeking data-free distillation (arXiv:2011.03749)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from segkd.losses.features import sameness
from segkd.losses.priors import balance, one_hot
from segkd.losses.reduce import mean_over_ranks
from segkd.methods.base import View
from segkd.methods.kd import KD


class RDSKD(KD):
    """A generator whose images are sure, balanced and unlike each other; then a student, on images of what it has become.

    L_G = exp(L_OH - reference) + exp(L_IE - reference) + L_DS, L_S = tau^2 KL. A rise over the reference, the loss some steps
    ago, is punished exponentially, and a fall counts for less and less: no weights have to be tuned. Differs: entropy and balance
    are those of pixels; exponents are clamped; what images look like is what the teacher's last maps say, not their pixels, which
    noise would set apart; learning rates follow the whole run, so that the student's begins where its stage does.

    Options:
        every: steps after which references are taken anew.
        ahead: fraction of the run in which the generator learns alone, to stand still from then on; 0: one stage.
    """

    student, source = ("kd",), ("one_hot", "balance", "diversity")
    weights = {"kd": 1.0, "one_hot": 1.0, "balance": 1.0, "diversity": 1.0}
    options = {"discrepancy": "kl", "temperature": 10.0, "every": 120, "ahead": 0.5}
    allowed = {"discrepancy": ("l1", "kl", "l1+kl"), "temperature": "> 0", "every": ">= 1", "ahead": ">= 0, < 1"}

    def __init__(self, *settings: Any) -> None:
        super().__init__(*settings)
        self.register_buffer("before", torch.zeros(2))
        self.renews = False

    def moves(self, step: int) -> list[str]:
        """Those of the source in the generator's stage, the others in the student's; all where there is one stage."""
        moves, ahead = super().moves(step), self.options["ahead"] * self.rules.steps
        if not ahead or "source" not in moves:
            return moves
        return [move for move in moves if (move == "source") == (step < ahead)]

    def loss(self, group: str, view: View, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """References are taken anew in the moves of every so many steps."""
        self.renews = group == "source" and step % self.options["every"] == 0
        return super().loss(group, view, step)

    def one_hot(self, v: View) -> Tensor:
        """Generator: the teacher should not become less sure of pixels: exp of the rise."""
        return self._rise(0, mean_over_ranks(one_hot(v.t)))

    def balance(self, v: View) -> Tensor:
        """Generator: classes should not become less balanced: exp of the rise."""
        return self._rise(1, balance(v.t))

    def diversity(self, v: View) -> Tensor:
        """Generator: images of different classes should look different to the teacher."""
        return sameness(v.t_features[-1], v.t)

    def _rise(self, index: int, value: Tensor) -> Tensor:
        if self.renews:
            self.before[index] = value.detach()
        return (value - self.before[index]).exp()  # of at most log C, the range of both losses
