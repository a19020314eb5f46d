"""A generator that changes procedural pictures, in place of painting latents."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segkd.machine import ranks
from segkd.machine.passes import Passes
from segkd.machine.precision import upcast
from segkd.players.player import Player
from segkd.synthesis.augment import Augment
from segkd.synthesis.generator import Generator
from segkd.synthesis.pictures import Pictures
from segkd.synthesis.source import Batch, Judge, Move, Size

SHARPNESS = 0.05
"""Of the choice between kinds: where one's loss is greater by so much, it is shown a third as often."""
PACE = 0.2
"""How soon a kind's loss follows the last one."""


class Unet(nn.Module):
    """Pictures (N,K,H,W) in the teacher's input range to images of the same shape and range.

    A 1x1 convolution that mixes the colours, which begins as the identity, and what a U-Net of two scales
    (arXiv:1505.04597) adds to it, which begins as nothing; both on logits of the unit range. So the first images are the
    pictures, and the loudest of what a teacher finds wrong with them, colours and contrast, is soon mended.

    Args:
        width: channels at the images' own resolution; twice and four times as many below.
        low, high: the teacher's input range (K,).
    """

    def __init__(self, width: int, low: Tensor, high: Tensor) -> None:
        super().__init__()
        channels = len(low)
        self.register_buffer("low", low.view(1, -1, 1, 1), persistent=False)
        self.register_buffer("span", (high - low).view(1, -1, 1, 1), persistent=False)
        self.at_full, self.at_half = _block(channels, width), _block(width, 2 * width, 2)
        self.at_quarter = nn.Sequential(_block(2 * width, 4 * width, 2), _block(4 * width, 4 * width))
        self.to_half, self.to_full = _block(4 * width, 2 * width), _block(2 * width, width)
        self.last, self.colours = nn.Conv2d(width, channels, 3, padding=1), nn.Conv2d(channels, channels, 1)
        for parameter in (*self.last.parameters(), self.colours.bias):
            nn.init.zeros_(parameter)
        nn.init.eye_(self.colours.weight.view(channels, channels))

    def forward(self, pictures: Tensor) -> Tensor:
        """Images of the pictures' shape."""
        x = torch.logit(((pictures - self.low) / self.span).clamp(0.01, 0.99))  # the ends themselves have none
        x = x.contiguous(memory_format=torch.channels_last)
        full = self.at_full(x)
        half = self.at_half(full)
        half = half + self.to_half(_twice(self.at_quarter(half), half))
        full = full + self.to_full(_twice(half, full))
        return upcast(self.colours(x) + self.last(full)).sigmoid() * self.span + self.low


def _block(before: int, after: int, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(after), nn.LeakyReLU(0.2))


def _twice(maps: Tensor, like: Tensor) -> Tensor:
    """Maps enlarged to the size of `like` (nearest)."""
    return F.interpolate(maps, like.shape[2:], mode="nearest")


class Translator(Generator):
    """Images of a network that changes procedural pictures, until the teacher's statistics take them for its own.

    What a picture shows, and where, is the picture's; how it looks is learnt. A network on simulated pictures, moved by
    BatchNorm statistics: arXiv:2208.12464 (depth), and by an adversary: arXiv:1612.07828. Differs: the judge is any that a
    generator has; and of several kinds of pictures, each update is of one, the others in turn, and the student is shown those
    most that come nearest to the judge: no recipe has to know what its teacher was trained on.

    Args:
        network: pictures (N,K,H,W) to images (N,K,H,W), both in the teacher's input range.
        pictures: where it begins.
        player: moves the network; without one it stays as it is.
    """

    def __init__(
        self, network: nn.Module, pictures: Pictures, player: Player | None = None, augment: Augment | None = None,
        passes: Passes | None = None,
    ) -> None:  # fmt: skip
        super().__init__(network, 0, player, augment, passes)
        self.pictures = pictures
        self.register_buffer("losses", torch.zeros(len(pictures.kinds)))  # of each kind, lately
        self.register_buffer("judged", torch.zeros(len(pictures.kinds)))  # how often each was

    @property
    def shares(self) -> Tensor:
        """Of the kinds (K,) in what is drawn: the nearer to the judge, the larger."""
        return (-self.losses / SHARPNESS).softmax(0)

    def improve(self, batch: int, size: Size, judge: Judge) -> Batch:
        """One update down the judge's loss, on pictures of the kind that was judged least often so far."""
        kind = int(self.judged.argmin())
        only = F.one_hot(torch.tensor(kind), len(self.judged)).float()
        said: list[Tensor] = []

        def loss() -> Tensor:
            total = judge(self._changed(self.network, batch, size, judge.move, only))
            said.append(total.detach())
            return total

        judge.update(self.player, loss)
        [loss_now] = ranks.all_mean([said[0].float()])
        before, first = self.losses[kind], self.judged[kind] == 0
        followed = torch.where(first, loss_now, torch.lerp(before, loss_now, PACE))
        self.losses[kind] = torch.where(judge.refused, before, followed)
        self.judged[kind] += ~judge.refused
        return judge.batch

    def generate(self, network: nn.Module, batch: int, size: Size, move: Move) -> Batch:
        """Pictures of a draw, as `network` changes them."""
        return self._changed(network, batch, size, move, self.shares)

    def _changed(self, network: nn.Module, batch: int, size: Size, move: Move, shares: Tensor) -> Batch:
        pictures = self.pictures.shown(batch, size, move, shares.tolist())
        move.begin(ranks.stream("synthesis"))
        with self.passes.through(network):
            images = network.train()(pictures)
        return Batch(self.augmented(upcast(images), move))
