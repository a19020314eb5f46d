"""Replay: synthetic images kept with the teacher's logits, so that a student move costs no synthesis and no teacher."""

from __future__ import annotations

import mmap
from itertools import chain

import torch
from torch import Tensor

from segkd.machine import waiting
from segkd.machine.precision import upcast
from segkd.synthesis.source import Batch

LEAST = 0.005
"""Added to the share of each class: one of a few stray pixels is no reason to show their image again and again."""


class Replay:
    """The last `capacity` batches of images (N,3,H,W) with head logits (N,C,h,w), oldest overwritten first.

    Where images were made for labels (N,H,W), these are kept with them.

    Args:
        capacity: batches kept.
        dtype: how they are stored; bf16 loses nothing for networks that run in it.
        flip: also draw mirrored images, with mirrored logits.
        uint8: both are stored in 8 bits instead, from the least to the greatest value of each channel of an image; what is
            drawn is at most a 510th of that range away from what was kept.
        balance: images are drawn the more often, the rarer the classes that the teacher sees in them are in the bank: each pixel
            counts by the share of its class to the power of minus this. 0: all are as likely. (arXiv:1908.03195 repeats images of
            a data set so, by their rarest class and at most by the root of its rarity.)
    """

    def __init__(
        self, capacity: int, dtype: torch.dtype, flip: bool, uint8: bool = False, balance: float = 0.0
    ) -> None:
        self.capacity, self.dtype, self.flip, self.uint8 = capacity, torch.uint8 if uint8 else dtype, flip, uint8
        self.balance = balance
        self.images: list[Tensor] = []
        self.logits: list[Tensor] = []
        self.spans: list[Tensor] = []  # with uint8: (N,2,3+C,1,1), least values and steps of the channels
        self.labels: list[Tensor] = []  # where there are any
        self.shares: list[Tensor] = []  # with balance: (N,C), of each class in each image
        self._on_host: dict[int, waiting.Sent] = {}  # the shares of each place, where draws look at them
        self.next = 0
        self.version = 0  # grows whenever what it holds may have changed

    def __len__(self) -> int:
        return len(self.images)

    @property
    def held(self) -> tuple[list[Tensor], ...]:
        """What is stored, by kind; each list has one tensor a batch."""
        return tuple(kind for kind in (self.images, self.logits, self.spans, self.labels) if kind)

    def keep(self, batch: Batch, logits: Tensor, unless: Tensor | None = None) -> None:
        """Store one batch with its logits; not so where `unless`, () bool on its device, is true.

        On an accelerator only a bank that is not full yet, or whose oldest batch has other sizes, waits for a look at it;
        elsewhere the place is left behind as it is.
        """
        self.version += 1
        images, logits, spans = batch.images.detach(), logits.detach(), ()
        oldest = self.images[self.next].shape if len(self) == self.capacity else None
        if unless is not None and (waiting.on_cpu(unless) or oldest != images.shape):
            if unless:
                return
            unless = None
        shares = (class_shares_of(logits),) if self.balance else ()
        if self.uint8:
            images, logits, *spans = _in_8_bits(images, logits)
        images = images.to(self.dtype).contiguous(memory_format=torch.channels_last)
        logits = logits.to(self.dtype).contiguous()
        more = {"spans": spans, "labels": () if batch.labels is None else (batch.labels,), "shares": shares}
        kinds = [self.images, self.logits, *(getattr(self, name) for name, parts in more.items() if parts)]
        for kind, part in zip(kinds, (images, logits, *chain(*more.values())), strict=True):
            if unless is not None:
                kind[self.next] = torch.where(unless, kind[self.next], part)
            else:
                kind[self.next : self.next + 1] = [_apart(part)]
        if shares:
            self._on_host[self.next] = waiting.Sent(self.shares[self.next])
        self.next = (self.next + 1) % self.capacity

    def draw(self, batch: int) -> tuple[Batch, Tensor]:
        """`batch` images of one size from the whole bank, each with its logits, by torch's global generator."""
        size = self.images[int(torch.randint(len(self.images), ()))].shape[2:]
        alike = [i for i, images in enumerate(self.images) if images.shape[2:] == size]
        chosen = self._balanced(alike, batch) if self.balance else self._any(alike, batch)
        images, logits, *rest = [torch.stack([kind[i][q] for i, q in chosen]) for kind in self.held]
        labels = rest.pop() if self.labels else None
        images, logits = _whole(images, logits, *rest)
        if self.flip:
            mirrored = (torch.rand(batch, device="cpu") < 0.5).to(images.device, non_blocking=True).view(-1, 1, 1, 1)
            images, logits = (torch.where(mirrored, maps.flip(-1), maps) for maps in (images, logits))
            labels = None if labels is None else torch.where(mirrored[..., 0], labels.flip(-1), labels)
        return Batch(images.contiguous(memory_format=torch.channels_last), labels), logits

    def _any(self, alike: list[int], batch: int) -> list[tuple[int, int]]:
        """Places of `batch` images in some of the batches, and in these."""
        picks = torch.randint(len(alike), (batch,)).tolist()
        places = torch.randint(len(self.images[alike[0]]), (batch,)).tolist()
        return [(alike[p], q % len(self.images[alike[p]])) for p, q in zip(picks, places, strict=True)]

    def _balanced(self, alike: list[int], batch: int) -> list[tuple[int, int]]:
        """The same, where images of rare classes are more likely. On an accelerator it waits until the batch kept last is there."""
        shares = torch.cat([self._on_host[i].read() for i in alike])
        chances = (shares * (shares.mean(0) + LEAST).pow(-self.balance)).sum(1)
        places = [(i, q) for i in alike for q in range(len(self.images[i]))]
        return [places[at] for at in torch.multinomial(chances, batch, replacement=True).tolist()]

    def state(self) -> dict:
        kept = {"spans": self.spans, "labels": self.labels, "shares": self.shares}
        return {"images": self.images, "logits": self.logits, "next": self.next} | {k: v for k, v in kept.items() if v}

    def restore(self, state: dict, device: torch.device) -> None:
        """Hold what `state()` described; a bank of another capacity goes on with the newest that fit into it."""
        self.version += 1
        at, alike = state["next"], ("spans" in state) == self.uint8
        names = ("images", "logits", "spans", "labels", "shares")
        kinds = [state.get(kind) or [None] * len(state["images"]) for kind in names]
        batches = list(zip(*kinds, strict=True))
        if len(batches) != self.capacity:
            batches = [*batches[at:], *batches[:at]][-self.capacity :]  # from the oldest on
            at = len(batches) % self.capacity
        self.images, self.logits, self.spans, self.labels, self.shares, self.next = [], [], [], [], [], 0
        for batch in batches:
            images, logits, spans, labels, shares = (None if part is None else part.to(device) for part in batch)
            if not alike:
                images, logits = _whole(images, logits, spans)
                self.keep(Batch(images, labels), logits)
                continue
            if self.balance:
                shares = class_shares_of(_whole(images, logits, spans)[1]) if shares is None else shares
                self._on_host[len(self.shares)] = waiting.Sent(shares)
                self.shares.append(shares)
            images, logits = images.to(self.dtype), logits.to(self.dtype)
            for kind, part in (
                (self.images, images),
                (self.logits, logits),
                (self.spans, spans),
                (self.labels, labels),
            ):
                kind += [] if part is None else [_apart(part)]
        self.next = at


def class_shares_of(logits: Tensor) -> Tensor:
    """(N,C) fractions of the pixels of each image that its logits (N,C,h,w) give to each class."""
    ids = logits.argmax(1).flatten(1)
    counts = torch.zeros(logits.shape[:2], dtype=torch.long, device=ids.device)
    return counts.scatter_add_(1, ids, torch.ones_like(ids)) / ids.shape[1]


def _in_8_bits(*kinds: Tensor) -> tuple[Tensor, ...]:
    """Maps (N,C,H,W) in 256 levels each, and for all their channels the least value and the step between levels."""
    levels, spans = [], []
    for maps in map(upcast, kinds):
        low, high = maps.amin((2, 3), keepdim=True), maps.amax((2, 3), keepdim=True)
        step = ((high - low) / 255).clamp_min(torch.finfo(maps.dtype).tiny)  # of a flat channel all are the least
        levels.append(((maps - low) / step).round().to(torch.uint8))
        spans.append(torch.stack([low, step], 1))
    return *levels, torch.cat(spans, 2)


def _whole(images: Tensor, logits: Tensor, spans: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """What is stored as networks and losses take it."""
    if spans is None:
        return upcast(images), upcast(logits)
    kinds = images, logits
    channels = [maps.shape[1] for maps in kinds]
    lows, steps = (part.split(channels, 1) for part in spans.unbind(1))
    images, logits = (
        torch.addcmul(low, maps.to(low.dtype), step) for maps, low, step in zip(kinds, lows, steps, strict=True)
    )
    return images, logits


def _apart(kept: Tensor) -> Tensor:
    """A copy of a dense tensor on pages of its own: what stays would break up the memory that freed tensors leave."""
    if kept.device.type != "cpu":
        return kept.clone()
    pages = mmap.mmap(-1, kept.numel() * kept.element_size(), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return torch.frombuffer(pages, dtype=kept.dtype).as_strided(kept.shape, kept.stride()).copy_(kept)
