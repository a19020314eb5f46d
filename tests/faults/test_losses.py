"""Row N3: every loss, and every term of every method, is finite where its inputs are extreme, and so is its gradient."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from segkd import builders, losses
from segkd.data.classes import IGNORE
from segkd.losses import contrast, discrepancy, features, labels, priors, reduce, statistics
from segkd.methods.base import View
from segkd.methods.finding import term_class
from segkd.recipe import further_terms, load, method_terms
from segkd.training.teaching import Objective
from tests.losses.test_statistics import Layer
from tests.methods.conftest import cases


def logits(values: Callable[..., Tensor], shape: tuple[int, ...] = (2, 5, 6, 8)) -> tuple[Tensor, Tensor]:
    """Of a student and of a teacher."""
    torch.manual_seed(len(shape) + shape[1])
    return values(shape), values(shape)


def sure(shape: tuple[int, ...]) -> Tensor:
    """One class everywhere, by far."""
    made = torch.full(shape, -1e4)
    made[:, shape[1] // 2] = 1e4
    return made


def far_apart(shape: tuple[int, ...]) -> Tensor:
    return 1e30 * torch.randn(shape).sign()


EXTREMES: dict[str, tuple[Tensor, Tensor]] = {
    "plain": logits(torch.randn),
    "uniform": logits(torch.zeros),
    "uniform, but not 0": logits(lambda shape: torch.full(shape, 7.0)),
    "equal": (logits(torch.randn)[0],) * 2,
    "large": logits(lambda shape: 1e4 * torch.randn(shape)),
    "larger": logits(lambda shape: 1e8 * torch.randn(shape)),
    "as large as can be": logits(far_apart),
    "tiny": logits(lambda shape: 1e-30 * torch.randn(shape)),
    "below the least": logits(lambda shape: torch.full(shape, 1e-42)),
    "one class, surely": logits(sure),
    "one class for the student alone": (logits(sure)[0], logits(torch.randn)[0]),
    "a network of one class": logits(torch.randn, (2, 1, 6, 8)),
    "a network of 254": logits(torch.randn, (1, 254, 3, 5)),
    "batch of one": logits(torch.randn, (1, 5, 6, 8)),
    "one pixel": logits(torch.randn, (2, 5, 1, 1)),
    "one row": logits(torch.randn, (2, 5, 1, 7)),
    "one column": logits(torch.randn, (2, 5, 9, 1)),
    "one image of one pixel, uniform": logits(torch.zeros, (1, 5, 1, 1)),
    "odd sides": logits(torch.randn, (3, 5, 7, 13)),
    "bf16": tuple(x.bfloat16() for x in logits(lambda shape: 1e4 * torch.randn(shape))),
    "bf16, as large as can be": tuple(x.bfloat16() for x in logits(far_apart)),
}  # fmt: skip


def layers(student: Tensor, teacher: Tensor) -> list[Layer]:
    """Statistics of the student's logits, as far as activations go, beside the teacher's, one of them silent in training."""
    plain = [value.float().clamp(-1e7, 1e7) for value in (student, teacher.detach())]
    x, y = (value.transpose(0, 1).flatten(1) for value in plain)
    images = plain[0].mean((2, 3)), plain[0].var((2, 3), correction=0)
    moments = (x.mean(1), x.var(1, correction=0), y.mean(1), y.var(1, correction=0))
    return [Layer(*moments, images), Layer(*moments[:3], torch.zeros_like(moments[3]), images)]


Loss = Callable[[Tensor, Tensor], Tensor]
LOSSES: dict[str, Loss] = {
    "l1": discrepancy.l1,
    "l2": discrepancy.l2,
    "kl": discrepancy.kl,
    **{f"kl at {t}": lambda s, t, tau=t: discrepancy.kl(s, t, tau) for t in (0.1, 20.0)},
    "channel_wise": discrepancy.channel_wise,
    "jensen_shannon": discrepancy.jensen_shannon,
    "agreed_kl": discrepancy.agreed_kl,
    "contrast": lambda s, t: contrast.contrast(contrast.pooled(s), contrast.pooled(s, torch.rand(2, len(s))), contrast.pooled(t)),
    "contrast, with none before": lambda s, t: contrast.contrast(contrast.pooled(s), contrast.pooled(t), torch.zeros(3, s.shape[1])),
    "pooled": lambda s, t: contrast.pooled(s, torch.rand(2, len(s))).mean(),
    "layer_distances": lambda s, t: statistics.layer_distances(layers(s, t), "mean").sum(),
    "image_distances": lambda s, t: (statistics.image_distances(layers(s, t)) * s.float().clamp(-1, 1).mean((1, 2, 3))).mean(),
    "nearness": lambda s, t: (statistics.nearness(s.detach().float().mean((1, 2, 3))) * s.float().clamp(-1, 1).mean((1, 2, 3))).mean(),
    "blended": lambda s, t: statistics.batchnorm_distance(statistics.blended(layers(s, t), torch.rand(4 * s.shape[1]), torch.tensor(0.9))[0]),
    **{f"discrepancy {kind}": lambda s, t, kind=kind: discrepancy.discrepancy(s, t, kind, 2.0) for kind in discrepancy.KINDS},
    "balance": lambda s, t: priors.balance(s),
    "rarity": lambda s, t: priors.rarity(s),
    "one_hot": lambda s, t: priors.one_hot(s),
    "smoothness": lambda s, t: priors.smoothness(s),
    "magnitude": lambda s, t: priors.magnitude(s),
    "softened": lambda s, t: (s.float() * labels.softened(s.shape[1], 0.8)[0].view(1, -1, 1, 1)).mean(),
    "cross_entropy": lambda s, t: labels.cross_entropy(s, t.float().argmax(1), labels.softened(s.shape[1], 0.8), 20.0),
    "attention": lambda s, t: (features.attention(s) * torch.arange(s.shape[2] * s.shape[3]).view(s.shape[2:])).sum(),
    "sameness": lambda s, t: features.sameness(s, t),
    "attention_distance": lambda s, t: features.attention_distance([s], [t]),
    **{f"batchnorm_distance {kind}": lambda s, t, kind=kind: statistics.batchnorm_distance(layers(s, t), kind)
       for kind in ("mean", "sum", "scaled")},
    "mean_over_ranks": lambda s, t: reduce.mean_over_ranks(s).float().mean(),
    "moments_over_ranks": lambda s, t: reduce.moments_over_ranks([(s, t)], [t])[0][0].float().mean(),
    **{f"Objective {kind} {gamma}, {ignored}": lambda s, t, kind=kind, gamma=gamma, ignored=ignored: objective(kind, gamma, ignored)(s, t)
       for kind, gamma in (("cross_entropy", 2.0), ("focal", 0.0), ("focal", 0.5), ("focal", 2.0)) for ignored in ("none", "some", "all")},
}  # fmt: skip


def objective(kind: str, gamma: float, ignored: str) -> Loss:
    """The loss of supervised teaching, with class weights, against the teacher's classes."""

    def loss(student: Tensor, teacher: Tensor) -> Tensor:
        target = teacher.float().argmax(1)
        void = torch.rand(target.shape) < {"none": 0.0, "some": 0.5, "all": 2.0}[ignored]
        weights = torch.linspace(0.1, 10, student.shape[1])
        return Objective(kind, gamma, weights)(student, target.masked_fill(void, IGNORE))

    return loss


def terms() -> dict[str, Loss]:
    """Every term of every method, of each of its variants, and those that all have."""
    found: dict[str, Loss] = {}
    for case in cases():
        method, _, variant = case.partition("+")[0].partition(".")
        recipe = load("quickstart", [f"method={method}", *([f"variant={variant}"] if variant else [])])
        made = builders.method_of(recipe)
        for name in method_terms()[method].names:
            found[f"{case}: {name}"] = lambda s, t, f=getattr(made, name): f(view_of(s, t))
    for name in further_terms():
        found[name] = lambda s, t, f=term_class(name)(): f(view_of(s, t))
    return found


def view_of(student: Tensor, teacher: Tensor) -> View:
    values = {
        "z": student.float().clamp(-9, 9).mean((2, 3))[:, None].repeat(1, student.shape[1], 1).softmax(2), "x": student, "s": student, "t": teacher, "s_features": [student], "t_features": [teacher],
        "statistics": layers(student, teacher), "labels": teacher.argmax(1),
    }  # fmt: skip
    return View(values, lambda images: teacher, lambda images: student, lambda images: teacher.detach())


def test_no_loss_is_left_out():
    """A function of segkd.losses that is not in the table above has to be put there."""
    modules = [
        importlib.import_module(f"segkd.losses.{path.stem}") for path in Path(losses.__path__[0]).glob("[!_]*.py")
    ]
    public = {
        name for module in modules for name, thing in vars(module).items()
        if inspect.isfunction(thing) and thing.__module__ == module.__name__ and not name.startswith("_")
    }  # fmt: skip
    assert len(modules) >= 4 and public <= {name.partition(" ")[0] for name in LOSSES}


@pytest.mark.row("N3", 1_000)
def test_losses_and_their_gradients_are_finite_where_inputs_are_extreme(row):
    for name, loss in (LOSSES | terms()).items():
        for kind, pair in EXTREMES.items():
            student, teacher = (logits.detach().clone().requires_grad_() for logits in pair)
            value = loss(student, teacher)
            assert value.shape == () and value.isfinite(), (name, kind, value)
            gradients = torch.autograd.grad(value, [student, teacher], allow_unused=True)
            found = [gradient for gradient in gradients if gradient is not None]
            assert found and all(gradient.isfinite().all() for gradient in found), (name, kind)
            row.count()
