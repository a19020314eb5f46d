"""A generator that learns each batch by itself: it begins anew, or at a state from which it learns fast."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from segkd.foundation.errors import UsageError
from segkd.machine import ranks
from segkd.machine.precision import upcast
from segkd.players.player import Player
from segkd.synthesis.generator import Generator
from segkd.synthesis.source import Around, Batch, Judge, Move, Size, Source

META = ("fomaml", "reptile")
"""How the state at which it begins learns: along the last update's gradient (arXiv:1703.03400, first order), or towards where
the updates have led (arXiv:1803.02999)."""


class Restarts(Around):
    """Images of a copy of a generator that a few updates make, with their latents, for each move; it is then forgotten.

    The copy begins with fresh weights (arXiv:2105.08584), or with those of the generator, which learn to be a good beginning
    (arXiv:2112.06253). `draw` takes the generator's weights: without `meta` those of the last copy.
    Differs: fresh weights are normal numbers of the mean and spread that each tensor had at first, so that nothing has to
    know how a network is initialised; latents are those of the whole batch in each process.

    Args:
        start: the recipe's generator, which learns; its optimiser is that of the copy, or where that is a beginning, its own.
        updates: of the copy and its latents in a move.
        meta: one of META; None: it begins with fresh weights.
        learning: the copy's learning rate; None: that of `start`.
        pace: how many times faster latents learn.
        after: called at the end of a move, with whether it was refused.

    Raises:
        UsageError: the recipe's source is no generator that paints latents, or averages weights that begin anew.
    """

    def __init__(
        self, start: Source, updates: int, *, meta: str | None = None, learning: float | None = None, pace: float = 1.0,
        after: Callable[[Tensor], None] = lambda refused: None,
    ) -> None:  # fmt: skip
        super().__init__(start)
        if type(start) is not Generator:  # others paint what nothing here would learn
            raise UsageError(
                "synth: this method's generator is one of latents: set synth.kind=resize or dcgan, synth.refine=0, synth.mix={}"
            )
        if meta is None and start.player is not None and start.player.average is not None:
            raise UsageError("synth.ema: a generator that begins anew for each batch has no average; set synth.ema=0")
        self.inner, self.meta, self.pace, self.after = updates, meta, pace, after
        self.learning = learning
        self.updates = updates + (meta is not None)
        self.first = [
            (float(p.mean()), float(p.std(correction=0))) for p in map(torch.detach, start.network.parameters())
        ]

    def improve(self, batch: int, size: Size, judge: Judge) -> Batch:
        """One move: the updates of a copy, and then one of its beginning. Returns the images that were judged last."""
        copied = _WithLatents(self.start, batch, judge.move, self.pace)
        if self.meta is None:
            copied.begin_anew(self.first, judge.move)
        make = self.player.make_optimizer
        make = make if self.learning is None else partial(make, lr=self.learning)
        player = Player("source", copied, make, clip=self.player.clip)
        for _ in range(self.inner):
            judge.update(player, lambda: judge(copied.generate(size, judge.move)))
        made = judge.batch
        if self.meta is None:
            self._take_over(copied.network, judge.refused)
        elif self.meta == "fomaml":
            judge.update(self.player, lambda: self._first_order(copied, size, judge))
            made = judge.batch
        else:
            judge.update(self.player, lambda: self._towards(copied.network))
        self.after(judge.refused)
        return made

    @torch.no_grad()
    def _take_over(self, network: nn.Module, refused: Tensor) -> None:
        for own, theirs in zip(_numbers(self.start.network), _numbers(network), strict=True):
            own.copy_(torch.where(refused, own, theirs))
        self.player.version += 1

    def _first_order(self, copied: _WithLatents, size: Size, judge: Judge) -> Tensor:
        """The judge's loss () of the copy, whose gradient by the copy's weights is taken for that by the beginning's."""
        loss, weights = judge(copied.generate(size, judge.move)), list(copied.network.parameters())
        gradients = torch.autograd.grad(loss, weights)
        pull = sum((own * slope).sum() for own, slope in zip(self.start.network.parameters(), gradients, strict=True))
        return loss.detach() + pull - pull.detach()

    def _towards(self, network: nn.Module) -> Tensor:
        """Half the squared distance () to the copy, whose gradient is the way to it and back."""
        pairs = zip(self.start.network.parameters(), network.parameters(), strict=True)
        return sum((own - there.detach()).square().sum() for own, there in pairs) / 2


class _WithLatents(nn.Module):
    """A copy of a generator and the latents of one batch, over all processes, as parameters."""

    def __init__(self, start: Generator, batch: int, move: Move, pace: float) -> None:
        super().__init__()
        self.network = copy.deepcopy(start.network).train()
        self.augmented, self.passes, self.pace = start.augmented, start.passes, pace
        device = next(self.network.parameters()).device
        # an optimiser such as Adam moves all by its learning rate: what is multiplied moves faster
        self.latents = nn.Parameter((replace(move, progress=None).latents(batch, start.latent) / pace).to(device))

    @torch.no_grad()
    def begin_anew(self, first: Sequence[tuple[float, float]], move: Move) -> None:
        """Fresh weights; a tensor that was the same number all over is so again."""
        move.begin("restart")
        for parameter, (mean, spread) in zip(self.network.parameters(), first, strict=True):
            parameter.copy_(torch.randn(parameter.shape) * spread + mean)

    def generate(self, size: Size, move: Move) -> Batch:
        z = move.shared(self.latents) * self.pace
        move.begin(ranks.stream("synthesis"))
        with self.passes.through(self.network):
            images = self.network(z, size)
        return Batch(self.augmented(upcast(images), move), latents=z)


def _numbers(network: nn.Module) -> list[Tensor]:
    return [*network.parameters(), *network.buffers()]
