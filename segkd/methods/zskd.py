"""ZSKD, zero-shot knowledge distillation (Nayak et al., ICML 2019, arXiv:1905.08114): images for drawn class vectors."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Dirichlet

from segkd.losses.labels import cross_entropy
from segkd.methods.base import View
from segkd.methods.deepinversion import DeepInversion
from segkd.models.classifier import class_weights
from segkd.models.teacher import Teacher
from segkd.synthesis.label_maps import Labelled, LabelMaps
from segkd.synthesis.source import Batch, Judge, Move, Size, Source

LEAST = 1e-3
"""Of a concentration: a Dirichlet distribution has none of 0."""


class Impressions(Labelled):
    """Images with maps of regions, and for each region of an image a class vector: latents (N,C,C), row k that of id k.

    Args:
        concentrations: (B,C,C), those of a Dirichlet distribution in each row; image i of a batch has those at i mod B.
    """

    def __init__(self, start: Source, maps: LabelMaps, concentrations: Tensor) -> None:
        super().__init__(start, maps)
        self.concentrations = concentrations.double()  # no buffer: vectors are drawn on the host

    def draw(self, batch: int, size: Size, move: Move, judge: Judge | None = None) -> Batch:
        """`batch` images of `size`, with maps and class vectors."""
        drawn = super().draw(batch, size, move, judge)
        of = self.concentrations[torch.arange(batch) % len(self.concentrations)]
        move.begin("latent")
        vectors = move.shared(Dirichlet(of, validate_args=False).sample().float())
        return Batch(drawn.images, drawn.labels, vectors.to(drawn.images.device))


class ZSKD(DeepInversion):
    """Images x* = argmin CE(softmax(T(x) / 20), y), class vectors y ~ Dirichlet(b C_k); the student learns from them.

    C_k are the likenesses of class k to all classes, cosines of the rows of the teacher's last layer, scaled to [0,1]; half of
    the images have b = `sharp`, the others b = `soft`. Differs: one vector a region of a map of classes, procedural or of
    smoothed noise, k being the map's class there; of classes that are merged for the student the first one's row; updates, two
    sizes, jitter and flips are DeepInversion's (`half: 0, jitter: 0, flip: false` takes them away), and so is the bank.

    Options:
        sharp: concentration of the Dirichlet vectors of every other image.
        soft: and of those between.
    """

    pixels = ("ce",)
    weights = {"kd": 1.0, "ce": 1.0}
    options = {
        "discrepancy": "kl", "temperature": 20.0, "labels": "both", "updates": 60, "half": 0.6, "lr": 0.1, "jitter": 30,
        "flip": True, "sharp": 0.1, "soft": 1.0,
    }  # fmt: skip
    allowed = {
        "discrepancy": ("l1", "kl", "l1+kl"), "temperature": "> 0", "labels": ("noise", "scenes", "both"),
        "updates": ">= 1, <= 100000", "half": ">= 0, <= 1", "lr": "> 0", "jitter": ">= 0, <= 1000", "sharp": "> 0",
        "soft": "> 0",
    }  # fmt: skip

    def meet(self, teacher: Teacher) -> None:
        """How like each other its classes are."""
        super().meet(teacher)
        rows = F.normalize(class_weights(teacher.network, teacher.classes)[teacher.first_members].float())
        likeness = rows @ rows.T
        low, high = likeness.amin(1, keepdim=True), likeness.amax(1, keepdim=True)
        self.likeness = ((likeness - low) / (high - low).clamp_min(LEAST)).cpu()

    def labelled(self, source: Source) -> Impressions:
        """The recipe's images, each with a map and a class vector for each of its regions."""
        plain = super().labelled(source)
        of = torch.stack([(self.options[name] * self.likeness).clamp_min(LEAST) for name in ("sharp", "soft")])
        return Impressions(plain.start, plain.maps, of)

    def ce(self, v: View) -> Tensor:
        """Images: the teacher should answer each region with its class vector, at `options.temperature`."""
        return cross_entropy(v.t, v.labels, v.z, self.options["temperature"])
