"""The method's terms for images, as a source asks for them while it improves."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from segkd.machine import ranks
from segkd.machine.snapshot import Snapshot
from segkd.methods.base import Method
from segkd.players.player import Player
from segkd.players.refusals import Verdict
from segkd.synthesis.source import Batch, Move
from segkd.training.networks import Networks
from segkd.training.signals import Interrupted


def finite(**kept: Tensor) -> dict[str, Tensor]:
    """Whether what is about to be kept is finite, each by name: () bool on its device."""
    return {name: torch.isfinite(value).all() for name, value in kept.items()}


class TermsJudge:
    """See `source.Judge`; the student that it shows is frozen, and moves no buffer.

    Args:
        terms: whose of the method's terms images answer to: `source` or `pixels`.
        needs: what these look at.
        student: the student as it is shown.
        hear: takes note of the verdict of an update; what was judged last may then go into a bank, and must be sound also
            where no term looks at it. None for images that follow the terms by themselves: the verdict on them is the caller's.
        stopping: whether a signal has come. A move of several updates ends before the next of them.

    Attributes:
        values: the last values of the terms.
        logits: the teacher's, to the images judged last, as a bank keeps them.
        refused: () bool on the device, whether any update was; None before the first.
    """

    def __init__(
        self, networks: Networks, method: Method, terms: str, needs: set[str], move: Move,
        student: nn.Module, hear: Callable[[str, Verdict], None] | None = None, stopping: Callable[[], bool] = bool,
    ) -> None:  # fmt: skip
        self.networks, self.method, self.terms, self.needs, self.move = networks, method, terms, needs, move
        self.student, self.hear, self.stopping = student, hear, stopping
        self.values: dict[str, Tensor] = {}
        self.logits: Tensor | None = None
        self.refused: Tensor | None = None
        self._images: Tensor | None = None

    def __call__(self, batch: Batch) -> Tensor:
        """The weighted loss () of a batch; its gradient goes to the images alone."""
        first = self._images is None
        seen = self.networks.teach(batch.images, self.needs, first)
        self.move.begin(ranks.stream("student"))
        seen |= self.networks.study(batch.images, self.needs, self.student, first)
        view = self.networks.view({**batch.named(), **seen}, self.student)
        total, values = self.method.loss(self.terms, view, self.move.step)
        self.values = {name: value.detach() for name, value in values.items()}
        self._images, self.logits = batch.images, seen["kept"]
        return total

    def update(self, player: Player, loss: Callable[[], Tensor]) -> None:
        """One update of `player` on what `loss` computes, refused where that or what may be kept is not finite.

        Raises:
            Interrupted: it is not the first of its move, and a signal has come.
        """
        if self.move.part and self.stopping():
            raise Interrupted
        before = Snapshot([player.network, self.method])
        total = loss()
        sound = finite(images=self._images, logits=self.logits) if self.hear else {}
        verdict = player.update(total, self.move.step, before, torch.stack([*sound.values()]).all() if sound else None)
        self.refused = verdict.refused if self.refused is None else self.refused | verdict.refused
        if self.hear:
            self.hear(player.name, verdict.explained(self.values, sound))
        self.move = self.move.next()
