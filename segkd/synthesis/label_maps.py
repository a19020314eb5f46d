"""Maps of class ids that need no data: what images are to show, before there is any image."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segkd.machine import ranks
from segkd.procedural import rooms, scenes
from segkd.synthesis.pictures import FIRST_SEED, leaf_shapes
from segkd.synthesis.source import Around, Batch, Judge, Move, Size, Source

FIELDS = {4: 1.0, 8: 0.5, 16: 0.25}
"""Of `noise`: knots of a smooth field along the shorter side, and its amplitude."""
BIAS = 0.7
"""Of `noise`: how unlike the classes of a map are in size; the deviation of what each class has more, or less, everywhere."""
SEEN = 64
"""Of `teacher`: maps that are remembered."""
POOL = 256
"""Of `scenes`: pictures of a kind, whose segments are found once."""
SEGMENTS: Mapping[str, Callable[[int, Size], np.ndarray]] = {
    "leaves": leaf_shapes,
    "streets": lambda seed, size: scenes.render(seed, size)[1],
    "rooms": lambda seed, size: rooms.render(seed, size)[1],
}
"""Numbers below 64 of what a procedural picture (H,W) shows where, from a seed."""


class LabelMaps(nn.Module):
    """Maps of several kinds, each as likely as the others, by the random numbers of a move alone.

    `noise`: at each pixel the class of the largest of so many smooth random fields of three scales, each with a bias.
    `teacher`: what the teacher has seen in earlier synthetic images, one of them pasted into another by a box, as CutMix
    does (arXiv:1905.04899); until it has seen one, `noise`. `scenes`: the shapes of procedural pictures (dead leaves, streets
    and the surfaces of rooms), each given a random class: what stands where is a picture's, what it is called means nothing.

    Args:
        kinds: of KINDS.
        classes: how many there are.
        size: of the maps that are remembered.
    """

    def __init__(self, kinds: tuple[str, ...], classes: int, size: Size) -> None:
        super().__init__()
        self.kinds, self.classes = kinds, classes
        self.register_buffer("place", torch.zeros(()), persistent=False)  # where maps are made
        if "teacher" in kinds:
            self.register_buffer("seen", torch.zeros(SEEN, *size, dtype=torch.int16))
            self.register_buffer("count", torch.zeros((), dtype=torch.int64))  # of all that were ever seen

    def forward(self, batch: int, size: Size, move: Move) -> Tensor:
        """Class ids (N,H,W) int64: this process's share of those of `batch` images."""
        move.begin("labels")
        kinds, seeds = (move.shared(torch.randint(most, (batch,))).tolist() for most in (len(self.kinds), 2**31))
        return torch.stack([KINDS[self.kinds[kind]](self, seed, size) for kind, seed in zip(kinds, seeds, strict=True)])

    @torch.no_grad()
    def remember(self, logits: Tensor, refused: Tensor) -> None:
        """Take the teacher's answer (N,C,h,w) to synthetic images, of all processes, unless `refused` () is true."""
        if "teacher" not in self.kinds:
            return
        ids = F.interpolate(logits.float(), self.seen.shape[1:], mode="bilinear").argmax(1)
        ids = ranks.all_gather(ids.int()).flatten(0, 1)[-SEEN:].short()
        places = (self.count + torch.arange(len(ids), device=ids.device)) % SEEN
        self.seen[places] = torch.where(refused, self.seen[places], ids)
        self.count += ~refused * len(ids)

    def from_noise(self, seed: int, size: Size) -> Tensor:
        """At each pixel the class of the largest of smooth random fields, one a class."""
        chance, shorter = torch.Generator().manual_seed(seed), min(size)
        fields = (BIAS * torch.randn(1, self.classes, 1, 1, generator=chance)).to(self.place.device)
        for knots, amplitude in FIELDS.items():
            grid = [max(2, round(side * knots / shorter)) for side in size]
            drawn = amplitude * torch.randn(1, self.classes, *grid, generator=chance)
            fields = fields + F.interpolate(drawn.to(self.place.device), size, mode="bicubic", align_corners=True)
        return fields.argmax(1)[0]

    def from_teacher(self, seed: int, size: Size) -> Tensor:
        """A map that the teacher has seen in a synthetic image, with a rectangle of another one; noise before there is any."""
        chance = torch.Generator().manual_seed(seed)
        number, (height, width) = torch.rand(6, generator=chance).tolist(), self.seen.shape[1:]
        held = self.count.clamp(max=SEEN)  # is looked at on its device
        one, other = (self.seen[(share * held).long().clamp(max=SEEN - 1)] for share in number[:2])
        side = number[2] ** 0.5  # so that each share of the map is as likely
        top, left = (int(place * (1 - side) * whole) for place, whole in zip(number[3:5], (height, width), strict=True))
        box = slice(top, top + round(side * height)), slice(left, left + round(side * width))
        mixed = one.clone()
        mixed[box] = other[box]
        mixed = mixed.flip(-1) if number[5] < 0.5 else mixed
        return torch.where(held > 0, resampled(mixed, size).long(), self.from_noise(seed, size))

    def from_scenes(self, seed: int, size: Size) -> Tensor:
        """The segments of a procedural picture, each given a class at random."""
        chance = torch.Generator().manual_seed(seed)
        kind, picture = (int(torch.randint(most, (), generator=chance)) for most in (len(SEGMENTS), POOL))
        classes = torch.randint(self.classes, (64,), generator=chance)
        return classes[segments(list(SEGMENTS)[kind], picture, size)].to(self.place.device)


KINDS: Mapping[str, Callable[[LabelMaps, int, Size], Tensor]] = {
    "noise": LabelMaps.from_noise,
    "teacher": LabelMaps.from_teacher,
    "scenes": LabelMaps.from_scenes,
}
"""A map (H,W) from a seed."""


class Labelled(Around):
    """Images of another source, which has no maps of its own, each with a map of the classes that it is to show."""

    def __init__(self, start: Source, maps: LabelMaps) -> None:
        super().__init__(start)
        self.maps = maps

    def draw(self, batch: int, size: Size, move: Move, judge: Judge | None = None) -> Batch:
        """`batch` images of `size` with their maps."""
        drawn = super().draw(batch, size, move, judge)
        return drawn if drawn.labels is not None else replace(drawn, labels=self.maps(batch, size, move))


@lru_cache(maxsize=POOL)
def segments(kind: str, picture: int, size: Size) -> Tensor:
    """The segments of a picture of the pool, as numbers (H,W)."""
    return torch.from_numpy(SEGMENTS[kind](FIRST_SEED + picture, size)).long()


def resampled(ids: Tensor, size: Size) -> Tensor:
    """Class ids (...,h,w) at another size (H,W), each that of the nearest pixel."""
    rows, columns = (
        torch.arange(side, device=ids.device) * was // side for side, was in zip(size, ids.shape[-2:], strict=True)
    )
    return ids[..., rows, :][..., columns]
