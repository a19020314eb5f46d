"""DeepInversion (arXiv:1912.08795): the images are pixels that go down a loss, and no generator learns anything."""

from __future__ import annotations

from torch import Tensor, nn

from segkd.foundation.errors import UsageError
from segkd.losses.labels import cross_entropy, softened
from segkd.losses.priors import magnitude
from segkd.losses.statistics import batchnorm_distance
from segkd.methods.base import View
from segkd.methods.ddad import DDAD
from segkd.models.teacher import Teacher, input_range
from segkd.synthesis.label_maps import Labelled, LabelMaps
from segkd.synthesis.pixels import Descent, Pixels

BETAS = (0.5, 0.9)
"""Of the pixels' Adam, as published."""


class DeepInversion(DDAD):
    """Images minimise CE + a_tv TV + a_l2 |x| + a_f L_BN, the first layer ten times as heavy, and the student learns from them.

    A `keep` move inverts one batch, first at half, then at full size, and puts it into the image bank; the student moves
    learn from the bank. Differs: the class is a map of classes, procedural or of smoothed noise; `one_hot` and `balance` may
    stand in its place; losses are means over pixels and layers, so its weights are ours, and not tuned; images begin as `synth.kind`
    says, in the preset as procedural pictures, and are updated 20 times on a constant learning rate, where they begin as
    noise and are updated 3,000 times as published (2,000 at half size, 1,000 at full, falling as a cosine).

    Options:
        first: weight of the first layer's BatchNorm distance among the others.
        sure: probability of a map's class in what the teacher is to answer.
        labels: maps of classes that images are to show, where their source has none.
        updates: of the pixels of a batch.
        half: share of the updates at half the height and width, which come first.
        lr: Adam's learning rate, on logits of the pixels' range.
        jitter: most pixels by which images are rolled for an update, at full size.
        flip: half of the updates are made on mirror images.
    """

    student, source, pixels = ("kd",), (), ("ce", "bn", "tv", "l2", "one_hot", "balance")
    weights = {"kd": 1.0, "ce": 1.0, "bn": 3.0, "tv": 0.1, "l2": 0.01, "one_hot": 0.0, "balance": 0.0}
    options = {
        "discrepancy": "kl", "temperature": 3.0, "bn": "scaled", "first": 10.0, "sure": 0.8, "labels": "both",
        "updates": 60, "half": 0.6, "lr": 0.1, "jitter": 30, "flip": True,
    }  # fmt: skip
    allowed = {
        "discrepancy": ("l1", "kl", "l1+kl"), "temperature": "> 0", "bn": ("mean", "sum", "scaled"), "first": ">= 0",
        "sure": "> 0, <= 1", "labels": ("noise", "scenes", "both"), "updates": ">= 1, <= 100000", "half": ">= 0, <= 1",
        "lr": "> 0", "jitter": ">= 0, <= 1000",
    }  # fmt: skip
    variants = ()

    def meet(self, teacher: Teacher) -> None:
        """Its classes, and the range of its input."""
        self.classes, self.ends = len(teacher.names), input_range(teacher.mean, teacher.std)

    def source_around(self, source: nn.Module) -> Pixels:
        """Images that begin as the recipe's, with maps."""
        if not self.rules.keep_moves:
            raise UsageError(
                "game.keep_moves: images are inverted as they are kept, and none is; set game.keep_moves=1"
            )
        if not self.terms("pixels"):
            known = ", ".join(self.pixels)
            raise UsageError(f"weights: no term that images follow has weight; set one of weights.{known}")
        o = self.options
        how = Descent(o["updates"], o["lr"], BETAS, o["half"], o["jitter"], o["flip"])
        return Pixels(self.labelled(source), how, *self.ends)

    def labelled(self, source: nn.Module) -> Labelled:
        """The recipe's images, each with a map that it is to show."""
        named = self.options["labels"]
        kinds = ("noise", "scenes") if named == "both" else (named,)
        return Labelled(source, LabelMaps(kinds, self.classes, (1, 1)))

    def ce(self, v: View) -> Tensor:
        """Images: the teacher should see the map that was drawn."""
        return cross_entropy(v.t, v.labels, softened(v.t.shape[1], self.options["sure"]).to(v.t.device))

    def bn(self, v: View) -> Tensor:
        """Images: distance to running statistics, as `options.bn` and `first` say."""
        return batchnorm_distance(v.statistics, self.options["bn"], self.options["first"])

    def l2(self, v: View) -> Tensor:
        """Images: pixels should stay near the mean of the training images."""
        return magnitude(v.x)
