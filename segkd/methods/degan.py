"""DeGAN for segmentation, a generator that is kept near proxy images (arXiv:2011.00809)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import softplus

from segkd.foundation.errors import UsageError
from segkd.losses.priors import rarity
from segkd.machine.precision import upcast
from segkd.methods.base import View
from segkd.methods.ddad import DDAD
from segkd.synthesis.mixed import Mixed
from segkd.synthesis.source import Around, Batch, Judge, Size


class DeGAN(DDAD):
    """The generator's images should pass for proxy images patch by patch, and show the teacher every class.

    gan + rare for the generator; its critic (arXiv:1611.07004) learns in the same updates. The student follows the teacher.
    Differs: proxies are what `synth.mix` names, by default procedural pictures, which the student sees too; the critic has no
    normalisation, and looks at grey where images are not RGB; weights are ours.

    Options:
        width: channels of the critic's first layer.
    """

    student, source, pixels = ("kd",), ("gan", "rare"), ()
    weights = {"kd": 1.0, "gan": 1.0, "rare": 1.0}
    options = {"width": 32, "discrepancy": "l1", "temperature": 1.0}
    allowed = {"discrepancy": ("l1", "kl", "l1+kl"), "temperature": "> 0", "width": ">= 1, <= 1024"}
    variants = ()
    proxies: Tensor | None = None  # (N,K,H,W), of the move that is played

    def __init__(self, *settings: Any) -> None:
        super().__init__(*settings)
        self.critic = _critic(self.options["width"]) if self.chosen["gan"] > 0 else nn.Identity()

    def source_around(self, source: nn.Module) -> nn.Module:
        """The recipe's, whose other source gives the proxies of each move."""
        if not self.terms("source") or self.chosen["gan"] <= 0:
            return source
        if not isinstance(source, Mixed) or len(source.others) != 1:
            raise UsageError(
                "synth.mix: degan needs one source of proxy images beside the generator: {pictures: 0.5}, or {folder: 0.5}"
            )
        return _Proxied(source, self)

    def gan(self, v: View) -> Tensor:
        """Generator: its patches should pass for those of proxies; critic: it should tell them apart."""
        x, held = coloured(v.x), {name: weight.detach() for name, weight in self.critic.named_parameters()}
        real = (
            x.detach() if self.proxies is None else coloured(self.proxies)
        )  # none yet: methods are tried as they are built
        told = softplus(-self.critic(real)).mean() + softplus(self.critic(x.detach())).mean()
        return told + softplus(-functional_call(self.critic, held, x)).mean()

    def rare(self, v: View) -> Tensor:
        """Generator: no class should be rarer than the others."""
        return rarity(v.t)


def _critic(width: int) -> nn.Sequential:
    """Images (N,3,H,W) to a number for each patch: how much it is like one of a proxy."""
    sides = [3, width, 2 * width, 4 * width]
    layers = [
        part for before, after in zip(sides, sides[1:], strict=False)
        for part in (nn.Conv2d(before, after, 3, stride=2, padding=1), nn.LeakyReLU(0.2))
    ]  # fmt: skip
    return nn.Sequential(*layers, nn.Conv2d(sides[-1], 1, 3, padding=1))


def coloured(images: Tensor) -> Tensor:
    """(N,3,H,W): as they are, or the mean of other channels, three times."""
    images = upcast(images)
    return images if images.shape[1] == 3 else images.mean(1, keepdim=True).expand(-1, 3, -1, -1)


class _Proxied(Around):
    """A source of several kinds, of which the method is shown proxies for each move."""

    def __init__(self, start: Mixed, method: DeGAN) -> None:
        super().__init__(start)
        self._shown = [method]  # in a list: it is no part of the source

    def improve(self, batch: int, size: Size, judge: Judge) -> Batch | None:
        """One move of the generator."""
        [(name, proxies)] = self.start.others.items()
        with torch.no_grad():
            self._shown[0].proxies = proxies.draw(batch, size, judge.move.of(name)).images
        return super().improve(batch, size, judge)
