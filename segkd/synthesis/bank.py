"""Replay: synthetic images kept with the teacher's logits, so that a student move costs no synthesis and no teacher."""

from __future__ import annotations

import mmap

import torch
from torch import Tensor

from segkd.machine import waiting
from segkd.machine.precision import wide


class Replay:
    """The last `capacity` batches of images (N,3,H,W) with head logits (N,C,h,w), oldest overwritten first.

    Args:
        capacity: batches kept.
        dtype: how they are stored; bf16 loses nothing for networks that run in it.
        flip: also draw mirrored images, with mirrored logits.
        uint8: both are stored in 8 bits instead, from the least to the greatest value of each channel of an image; what is
            drawn is at most a 510th of that range away from what was kept.
    """

    def __init__(self, capacity: int, dtype: torch.dtype, flip: bool, uint8: bool = False) -> None:
        self.capacity, self.dtype, self.flip, self.uint8 = capacity, torch.uint8 if uint8 else dtype, flip, uint8
        self.images: list[Tensor] = []
        self.logits: list[Tensor] = []
        self.spans: list[Tensor] = []  # with uint8: (N,2,3+C,1,1), least values and steps of the channels
        self.next = 0

    def __len__(self) -> int:
        return len(self.images)

    @property
    def held(self) -> tuple[list[Tensor], ...]:
        """What is stored, by kind; each list has one tensor a batch."""
        return (self.images, self.logits, *((self.spans,) if self.uint8 else ()))

    def keep(self, images: Tensor, logits: Tensor, unless: Tensor | None = None) -> None:
        """Store one labelled batch; not so where `unless`, () bool on its device, is true.

        On an accelerator only a bank that is not full yet, or whose oldest batch has other sizes, waits for a look at it;
        elsewhere the place is left behind as it is.
        """
        images, logits, spans = images.detach(), logits.detach(), ()
        oldest = self.images[self.next].shape if len(self) == self.capacity else None
        if unless is not None and (waiting.at_hand(unless) or oldest != images.shape):
            if unless:
                return
            unless = None
        if self.uint8:
            images, logits, *spans = _in_8_bits(images, logits)
        images = images.to(self.dtype).contiguous(memory_format=torch.channels_last)
        logits = logits.to(self.dtype).contiguous()
        for kind, part in zip(self.held, (images, logits, *spans), strict=True):
            if unless is not None:
                kind[self.next] = torch.where(unless, kind[self.next], part)
            else:
                kind[self.next : self.next + 1] = [_apart(part)]
        self.next = (self.next + 1) % self.capacity

    def draw(self, batch: int) -> tuple[Tensor, Tensor]:
        """`batch` images of one size from the whole bank, each with its logits, by torch's global generator."""
        size = self.images[int(torch.randint(len(self.images), ()))].shape[2:]
        alike = [i for i, images in enumerate(self.images) if images.shape[2:] == size]
        picks = torch.randint(len(alike), (batch,)).tolist()
        places = torch.randint(len(self.images[alike[0]]), (batch,)).tolist()
        chosen = [(alike[p], q % len(self.images[alike[p]])) for p, q in zip(picks, places, strict=True)]
        images, logits, *spans = [torch.stack([kind[i][q] for i, q in chosen]) for kind in self.held]
        images, logits = _whole(images, logits, *spans)
        if self.flip:
            mirrored = (torch.rand(batch, device="cpu") < 0.5).to(images.device, non_blocking=True)
            images = torch.where(mirrored.view(-1, 1, 1, 1), images.flip(-1), images)
            logits = torch.where(mirrored.view(-1, 1, 1, 1), logits.flip(-1), logits)
        return images.contiguous(memory_format=torch.channels_last), logits

    def state(self) -> dict:
        whole = {"images": self.images, "logits": self.logits, "next": self.next}
        return {**whole, "spans": self.spans} if self.uint8 else whole

    def restore(self, state: dict, device: torch.device) -> None:
        """Hold what `state()` described; a bank of another capacity goes on with the newest that fit into it."""
        kinds, at = [state[kind] for kind in ("images", "logits", "spans") if kind in state], state["next"]
        batches, alike = list(zip(*kinds, strict=True)), ("spans" in state) == self.uint8
        if len(batches) != self.capacity:
            batches = [*batches[at:], *batches[:at]][-self.capacity :]  # from the oldest on
            at = len(batches) % self.capacity
        self.images, self.logits, self.spans, self.next = [], [], [], 0
        for batch in batches:
            images, logits, *spans = (part.to(device) for part in batch)
            if not alike:
                self.keep(*_whole(images, logits, *spans))
                continue
            for kind, part in zip(self.held, (images.to(self.dtype), logits.to(self.dtype), *spans), strict=True):
                kind.append(_apart(part))
        self.next = at


def _in_8_bits(*kinds: Tensor) -> tuple[Tensor, ...]:
    """Maps (N,C,H,W) in 256 levels each, and for all their channels the least value and the step between levels."""
    levels, spans = [], []
    for maps in map(wide, kinds):
        low, high = maps.amin((2, 3), keepdim=True), maps.amax((2, 3), keepdim=True)
        step = ((high - low) / 255).clamp_min(torch.finfo(maps.dtype).tiny)  # of a flat channel all are the least
        levels.append(((maps - low) / step).round().to(torch.uint8))
        spans.append(torch.stack([low, step], 1))
    return *levels, torch.cat(spans, 2)


def _whole(images: Tensor, logits: Tensor, spans: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """What is stored as networks and losses take it."""
    if spans is None:
        return wide(images), wide(logits)
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
