"""Where images come from: what is drawn, for which move, and how a source learns to draw better."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor, nn

from segkd.foundation.rng import seed_for
from segkd.machine import ranks
from segkd.players.player import Player
from segkd.synthesis.augment import Augment

Size = tuple[int, int]
HELD_OUT, TRIAL, SHOWN = -1, -2, -3
"""Steps of images outside of the game: those on which agreement is measured, those on which networks and terms are tried
before the first step, and those that are looked at as the student would be shown them."""


@dataclass(frozen=True)
class Batch:
    """Images (N,3,H,W) in the teacher's input space, and what they were made from: class ids (N,H,W), latents (N,...)."""

    images: Tensor
    labels: Tensor | None = None
    latents: Tensor | None = None

    def named(self) -> dict[str, Tensor]:
        """What there is of it, by the names under which terms look at it."""
        found = {"x": self.images, "labels": self.labels, "z": self.latents}
        return {name: value for name, value in found.items() if value is not None}


@dataclass(frozen=True)
class Sampling:
    """What is drawn for a move: `batch` images over all processes, of `sizes` (H,W) in turn, one a step, by a seed."""

    batch: int
    sizes: tuple[Size, ...]
    seed: int

    def size(self, step: int) -> Size:
        """That of a step's images."""
        return self.sizes[step % len(self.sizes)]


@dataclass(frozen=True)
class Move:
    """Which move of a run is played. All of its random numbers are a function of this, so that any can be played again.

    Args:
        step: one of the run's, or a negative number for images outside of it.
        progress: the fraction of the run before it, by which images are augmented. None: of images outside of the game, which
            are not augmented, and of which each process makes all.
        part: of a move of several updates, the one that comes.
        source: which of several sources draws.
    """

    seed: int
    step: int
    index: int
    progress: float | None = None
    part: int = 0
    source: str = ""

    def begin(self, stream: str) -> None:
        """Seed torch's global generator for a stream of this move's random numbers."""
        place = (f".{self.part}" if self.part else "") + (f"@{self.source}" if self.source else "")
        torch.manual_seed(seed_for(self.seed, self.step, self.index, stream + place))

    def latents(self, batch: int, numbers: int) -> Tensor:
        """(N,numbers) normal numbers of a stream of their own: this process's share of those of `batch` images."""
        self.begin("latent")
        return self.shared(torch.randn(batch, numbers))

    def shared(self, drawn: Tensor) -> Tensor:
        """This process's share of what is drawn (N,...) for the images of all."""
        return drawn if self.progress is None else ranks.shard(drawn)

    def share(self, batch: int) -> int:
        """How many of a batch's images this process makes."""
        return batch if self.progress is None else ranks.local_batch(batch)

    def of(self, source: str) -> Move:
        """The same move, for one of several sources."""
        return replace(self, source=source)

    def next(self) -> Move:
        """The same move at its next update."""
        return replace(self, part=self.part + 1)


class Judge(Protocol):
    """The method's terms for images, as a loss: teacher and student are in it, and stay as they are.

    Called with a batch it gives the weighted sum (). `update` is one update of `player` on what `loss` computes. The judge
    makes it, since it knows what an update must not leave behind: it is refused where the loss, its gradients or the images
    last judged are not finite, and then changes nothing.
    """

    move: Move
    batch: Batch | None
    """The one judged last."""
    logits: Tensor | None
    """The teacher's answer to it, (N,C,h,w), maybe at the resolution of its head."""
    refused: Tensor | None
    """() bool: whether an update was; None before the first."""

    def __call__(self, batch: Batch) -> Tensor: ...
    def update(self, player: Player, loss: Callable[[], Tensor]) -> None: ...


class Source(nn.Module):
    """Base of all sources of images. A subclass draws them; one that learns has a `player`, and improves.

    Args:
        augment: changes the images of a move, before the teacher sees them.
    """

    player: Player | None = None
    """What is trained from move to move."""
    real = 0
    """Images of a data set among which it draws."""
    updates = 1
    """The most updates that one move of it takes; if more than one, a signal in between undoes the move."""
    inverts = False
    """Whether images are optimised from a source that does not learn itself; without a judge only that beginning is drawn."""

    def __init__(self, augment: Augment | None = None) -> None:
        super().__init__()
        self.augment = augment

    @property
    def learns(self) -> bool:
        """Whether it can improve."""
        return self.player is not None

    def draw(self, batch: int, size: Size, move: Move, judge: Judge | None = None) -> Batch:
        """`batch` images of `size`, without a graph. A source that refines its images does so down the loss of `judge`, if given."""
        raise NotImplementedError

    def improve(self, batch: int, size: Size, judge: Judge) -> Batch | None:
        """One move of the source, however many updates it takes. Returns the batch that a bank is to store, if any."""
        raise NotImplementedError

    def augmented(self, images: Tensor, move: Move) -> Tensor:
        """Images as a draw gives them: augmented, unless they are outside of the game."""
        if self.augment is not None and move.progress is not None:
            images = self.augment(images, move.progress)
        return images.contiguous(memory_format=torch.channels_last)

    def state(self) -> dict:
        """All that goes on with a run: the player's state, and buffers or parameters that are not the player's."""
        player, own = {} if self.player is None else self.player.state(), self._own()
        return {**player, **({"own": own} if own else {})}

    def restore(self, state: dict) -> None:
        """Become what `state()` described. Raises KeyError, RuntimeError or ValueError if that was another source."""
        if self.player is not None:
            self.player.restore(state)
        for name, value in self._own().items():
            value.data.copy_(state["own"][name])

    def _own(self) -> dict[str, Tensor]:
        played = [] if self.player is None else self.player.network.state_dict(keep_vars=True).values()
        taken = {id(value) for value in played}
        return {name: value for name, value in self.state_dict(keep_vars=True).items() if id(value) not in taken}


class Around(Source):
    """A source around another one. A subclass changes what it draws, or how it learns.

    Args:
        start: the other source; it also learns, if it can.
    """

    def __init__(self, start: Source) -> None:
        super().__init__()
        self.start, self.updates = start, start.updates

    @property
    def player(self) -> Player | None:
        return self.start.player

    @property
    def real(self) -> int:
        return self.start.real

    @property
    def inverts(self) -> bool:
        return self.start.inverts

    def draw(self, batch: int, size: Size, move: Move, judge: Judge | None = None) -> Batch:
        """Those of the other source."""
        return self.start.draw(batch, size, move, judge)

    def improve(self, batch: int, size: Size, judge: Judge) -> Batch | None:
        """One move of the other source."""
        return self.start.improve(batch, size, judge)
