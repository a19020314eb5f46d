"""Replay: synthetic images kept with the teacher's logits, so that a student move costs no synthesis and no teacher."""

from __future__ import annotations

import mmap

import torch
from torch import Tensor

from segkd.foundation.precision import wide


class Replay:
    """The last `capacity` batches of images (N,3,H,W) with head logits (N,C,h,w), oldest overwritten first.

    Args:
        capacity: batches kept.
        dtype: how they are stored; bf16 loses nothing for networks that run in it.
        flip: also draw mirrored images, with mirrored logits.
    """

    def __init__(self, capacity: int, dtype: torch.dtype, flip: bool) -> None:
        self.capacity, self.dtype, self.flip = capacity, dtype, flip
        self.images: list[Tensor] = []
        self.logits: list[Tensor] = []
        self.next = 0

    def __len__(self) -> int:
        return len(self.images)

    def keep(self, images: Tensor, logits: Tensor) -> None:
        """Store one labelled batch."""
        images = _apart(images.detach().to(self.dtype).contiguous(memory_format=torch.channels_last))
        logits = _apart(logits.detach().to(self.dtype).contiguous())
        if len(self.images) < self.capacity:
            self.images.append(images)
            self.logits.append(logits)
        else:
            self.images[self.next], self.logits[self.next] = images, logits
        self.next = (self.next + 1) % self.capacity

    def draw(self, batch: int) -> tuple[Tensor, Tensor]:
        """`batch` images of one size from the whole bank, each with its logits, by torch's global generator."""
        size = self.images[int(torch.randint(len(self.images), ()))].shape[-2:]
        alike = [i for i, images in enumerate(self.images) if images.shape[-2:] == size]
        picks = torch.randint(len(alike), (batch,)).tolist()
        places = torch.randint(len(self.images[alike[0]]), (batch,)).tolist()
        chosen = [(alike[p], q % len(self.images[alike[p]])) for p, q in zip(picks, places, strict=True)]
        images = wide(torch.stack([self.images[i][q] for i, q in chosen]))
        logits = wide(torch.stack([self.logits[i][q] for i, q in chosen]))
        if self.flip:
            mirrored = torch.rand(batch, device="cpu").to(images.device) < 0.5
            images = torch.where(mirrored.view(-1, 1, 1, 1), images.flip(-1), images)
            logits = torch.where(mirrored.view(-1, 1, 1, 1), logits.flip(-1), logits)
        return images.contiguous(memory_format=torch.channels_last), logits

    def state(self) -> dict:
        return {"images": self.images, "logits": self.logits, "next": self.next}

    def restore(self, state: dict, device: torch.device) -> None:
        """Hold what `state()` described; a bank of another capacity goes on with the newest that fit into it."""
        images, logits, at = state["images"], state["logits"], state["next"]
        if len(images) != self.capacity:
            order = [*range(at, len(images)), *range(min(at, len(images)))][-self.capacity :]  # from the oldest on
            images, logits = [images[i] for i in order], [logits[i] for i in order]
            at = len(images) % self.capacity
        self.images = [_apart(x.to(device, self.dtype)) for x in images]
        self.logits = [_apart(x.to(device, self.dtype)) for x in logits]
        self.next = at


def _apart(kept: Tensor) -> Tensor:
    """A copy of a dense tensor on pages of its own: what stays would break up the memory that freed tensors leave."""
    if kept.device.type != "cpu":
        return kept.clone()
    pages = mmap.mmap(-1, kept.numel() * kept.element_size(), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return torch.frombuffer(pages, dtype=kept.dtype).as_strided(kept.shape, kept.stride()).copy_(kept)
