"""A trajectory to follow and an expert's attention (CTKD, arXiv:1907.09643)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from segkd.foundation.errors import UsageError
from segkd.losses.discrepancy import l2
from segkd.losses.features import attention_distance
from segkd.methods.base import Term, View


class CTKD(Term):
    """Student: its logits near those of its own average, and its attention where the teacher's is.

    It minimises the mean of (S - S_average)^2, and the distance of attention maps. From the abstract: a teacher that learns
    from scratch shows the way, an expert where to look. Differs: the sum is inferred; the student's average has the place of
    the teacher from scratch, which would need the data.

    Options:
        average: share of the distance to the averaged student (student.ema); 0: it is not asked.
        attention: share of the distance of attention maps; 0: no features are asked for.
    """

    options = {"average": 1.0, "attention": 1.0}
    allowed = {"average": ">= 0", "attention": ">= 0"}

    def __init__(self, options: Mapping[str, Any] | None = None) -> None:
        super().__init__(options)
        if not any(self.options.values()):
            raise UsageError("terms.ctkd: average and attention are both 0; raise one, or leave the term out")

    def forward(self, v: View) -> Tensor:
        parts = []
        if (share := self.options["average"]) > 0:
            parts.append(share * l2(v.s, v.average(v.x)))
        if (share := self.options["attention"]) > 0:
            parts.append(share * attention_distance(v.s_features, v.t_features))
        return torch.stack(parts).sum()
