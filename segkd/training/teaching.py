"""Supervised training of one network on labelled images: demo teachers, and the labelled students of the ceiling rows."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segkd.data.classes import IGNORE
from segkd.data.samples import Sample
from segkd.data.transforms import TrainTransform, draw_batch
from segkd.evaluation.collapse import ASTRAY
from segkd.foundation.rng import seed_for, seed_of_attempt
from segkd.machine.passes import Passes
from segkd.machine.snapshot import Snapshot
from segkd.players.player import Player
from segkd.players.refusals import Refusals


@dataclass(frozen=True)
class Objective:
    """`loss`: cross_entropy or focal (arXiv:1708.02002); `class_weights` (C,) or None."""

    loss: str
    gamma: float
    class_weights: Tensor | None

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """The loss of logits (N,C,H,W) against ids (N,H,W), over the pixels that are not ignored, in fp32."""
        logits = logits.float()
        weights = None if self.class_weights is None else self.class_weights.to(logits.device)
        if self.loss == "cross_entropy":
            total = F.cross_entropy(logits, target, weight=weights, ignore_index=IGNORE, reduction="sum")
            labelled = target != IGNORE
            shares = labelled if weights is None else weights[target.where(labelled, 0)] * labelled
            return total / shares.sum().clamp_min(torch.finfo(torch.float32).tiny)  # a crop may show nothing but void
        plain = F.cross_entropy(logits, target, ignore_index=IGNORE, reduction="none")
        weighted = plain if weights is None else F.cross_entropy(
            logits, target, weight=weights, ignore_index=IGNORE, reduction="none"
        )  # fmt: skip
        # The power's slope at 0 is infinite for gamma < 1, and every ignored pixel stands there.
        doubt = (-torch.expm1(-plain)).clamp_min(torch.finfo(torch.float32).tiny)
        # The ignored pixels have loss 0 and must not count in the mean either.
        return (doubt**self.gamma * weighted).sum() / (target != IGNORE).sum().clamp_min(1)


def class_weights(samples: Sequence[Sample], classes: int, rule: str, most: int = 1000) -> Tensor | None:
    """Weights (C,) against rare classes, from the label frequencies f of up to `most` samples.

    `median`: median(f) / f (arXiv:1411.4734, over all pixels); `sqrt`: its square root; `none`: None. A class that
    never occurs gets 1, and no weight exceeds 10.
    """
    if rule == "none":
        return None
    counts: Counter[int] = Counter()
    for index in range(min(len(samples), most)):
        counts.update(dict(enumerate(np.bincount(samples[index].mask.ravel(), minlength=256)[:classes].tolist())))
    frequency = torch.tensor([counts[c] for c in range(classes)], dtype=torch.float64)
    seen = frequency > 0
    weights = torch.ones(classes, dtype=torch.float64)
    if seen.any():
        weights[seen] = frequency[seen].quantile(0.5) / frequency[seen]  # `median` takes the lower of two
    return (weights.sqrt() if rule == "sqrt" else weights).clamp_max(10.0).float()


class Teaching:
    """The game of one player against labelled images; see `training.game.Game`."""

    def __init__(
        self, player: Player, samples: Sequence[Sample], transform: TrainTransform, objective: Objective, *,
        batch: int, seed: int, passes: Passes, refusals: Refusals,
    ) -> None:  # fmt: skip
        self.player, self.samples, self.transform, self.objective = player, samples, transform, objective
        self.batch, self.first_seed, self.passes, self.refusals = batch, seed, passes, refusals
        self.device = next(player.network.parameters()).device
        self.attempt = 0
        self.on_progress: Callable[[float], None] = lambda share: None
        self.stopping: Callable[[], bool] = bool  # a step is one update: nothing lies between
        self.best: dict = {"miou": -1.0, "step": 0, "network": {}}

    @property
    def precision(self) -> str:
        return "bf16" if self.passes.bf16 else "fp32"

    @property
    def seed(self) -> int:
        """That of the present attempt."""
        return seed_of_attempt(self.first_seed, self.attempt)

    @property
    def notes(self) -> list[str]:
        return self.refusals.notes

    def play(self, step: int) -> dict[str, float | Tensor]:
        """One step on one batch; returns the loss, for which a look may have to wait, and the learning rate."""
        before = Snapshot([self.player.network.train()])
        loss, _ = self._loss(step)
        self.refusals.record(self.player.name, step, self.player.update(loss, step, before))
        self.refusals.end_step()
        return {"loss": loss.detach(), "lr": self.player.optimizer.param_groups[0]["lr"]}

    def _loss(self, step: int) -> tuple[Tensor, Tensor]:
        """The loss of the network as it is on a step's batch, and the logits (N,C,H,W)."""
        images, masks = draw_batch(self.samples, self.transform, self.batch, self.seed, step)
        x = torch.from_numpy(images).to(self.device, memory_format=torch.channels_last)
        target = torch.from_numpy(masks).to(self.device)
        torch.manual_seed(seed_for(self.seed, step, 0, "teach"))
        with self.passes.autocast(self.device):
            logits = self.player.network(x)
        return self.objective(logits, target), logits

    @torch.no_grad()
    def vitals(self) -> tuple[dict[str, float], str | None]:
        """The loss on training images in eval mode, in units of what guessing would cost, and what is wrong, if anything."""
        training = self.player.network.training
        self.player.network.eval()
        loss, logits = self._loss(0)
        self.player.network.train(training)
        far = float(loss) / math.log(logits.shape[1])
        wrong = None if far <= ASTRAY else f"diverged: the loss is {far:.3g} times that of guessing"
        return {"distance": far}, wrong

    def offer(self, miou: float, step: int, network: nn.Module) -> bool:
        """Keep a copy of `network` if it is the best on val so far; returns whether it was."""
        if miou <= self.best["miou"]:
            return False
        state = {key: value.detach().cpu().clone() for key, value in network.state_dict().items()}
        self.best = {"miou": miou, "step": step, "network": state}
        return True

    def state(self) -> dict:
        state = {"player": self.player.state(), "best": self.best, "refusals": self.refusals.state()}
        return state | {"attempt": self.attempt}

    def restore(self, state: dict) -> None:
        self.player.restore(state["player"])
        self.best = state["best"]
        self.refusals.restore(state["refusals"])
        self.attempt = state["attempt"]
