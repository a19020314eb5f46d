"""The distance of BatchNorm statistics against explicit sums in float64: value and gradient."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from segkd.losses.statistics import batchnorm_distance, blended, image_distances, nearness


@dataclass
class Layer:
    mean: Tensor
    var: Tensor
    running_mean: Tensor
    running_var: Tensor
    images: tuple[Tensor, Tensor] | None = None


def layers(widths: tuple[int, ...], seed: int = 0) -> list[Layer]:
    rng = np.random.default_rng(seed)
    made = []
    for width in widths:
        mean, running_mean = rng.standard_normal((2, width))
        var, running_var = rng.random((2, width)) + 0.1
        made.append(Layer(*(torch.tensor(v, dtype=torch.float32) for v in (mean, var, running_mean, running_var))))
    return made


def reference(found: list[Layer], reduction: str) -> float:
    total = 0.0
    for layer in found:
        means = variances = 0.0
        for mean, var, running_mean, running_var in zip(
            *(part.tolist() for part in (layer.mean, layer.var, layer.running_mean, layer.running_var)), strict=True
        ):
            unit = running_var + 1e-3 if reduction == "scaled" else 1.0
            means += (mean - running_mean) ** 2 / unit
            variances += ((var - running_var) / unit) ** 2
        distance = math.sqrt(means) + math.sqrt(variances)
        total += distance if reduction == "sum" else distance / math.sqrt(len(layer.mean)) / len(found)
    return total


@pytest.mark.parametrize("reduction", ["mean", "sum", "scaled"])
@pytest.mark.parametrize("widths", [(4,), (1, 7, 3), (16, 16)])
def test_value(widths, reduction):
    found = layers(widths)
    assert batchnorm_distance(found, reduction).item() == pytest.approx(reference(found, reduction), rel=1e-6)


@pytest.mark.parametrize("reduction", ["mean", "sum", "scaled"])
def test_gradient(reduction):
    found = layers((3, 5), seed=2)
    asking = [part.requires_grad_() for layer in found for part in (layer.mean, layer.var)]
    gradients = torch.autograd.grad(batchnorm_distance(found, reduction), asking)
    for layer, (to_mean, to_var) in zip(found, zip(gradients[::2], gradients[1::2], strict=True), strict=True):
        share = 1.0 if reduction == "sum" else 1 / (math.sqrt(len(layer.mean)) * len(found))
        unit = layer.running_var.double() + 1e-3 if reduction == "scaled" else torch.ones(len(layer.mean)).double()
        for found_, now, then, scale in (
            (to_mean, layer.mean, layer.running_mean, unit.sqrt()), (to_var, layer.var, layer.running_var, unit)
        ):  # fmt: skip
            gap = (now - then).detach().double() / scale
            np.testing.assert_allclose(found_.numpy(), (share * gap / gap.norm() / scale).numpy(), rtol=1e-5)


@pytest.mark.parametrize("reduction", ["mean", "sum", "scaled"])
def test_the_first_layer_may_weigh_more(reduction):
    found = layers((3, 5, 2))
    share = 1 if reduction == "sum" else 1 / 3
    wanted = reference(found, reduction) + 9 * share * reference(found[:1], reduction)
    assert batchnorm_distance(found, reduction, 10.0).item() == pytest.approx(wanted, rel=1e-6)


def test_the_mean_is_what_is_meant_unless_another_is_named():
    found = layers((4, 7))
    assert batchnorm_distance(found).item() == batchnorm_distance(found, "mean").item()


def test_the_mean_carries_over_between_depths_and_widths():
    layer = layers((4,))[0]
    parts = (layer.mean, layer.var, layer.running_mean, layer.running_var)
    wide, once = Layer(*(part.repeat(9) for part in parts)), batchnorm_distance([layer]).item()
    assert batchnorm_distance([wide]).item() == pytest.approx(once, rel=1e-6)
    assert batchnorm_distance([layer] * 5).item() == pytest.approx(once, rel=1e-6)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_matching_statistics_are_at_distance_0_with_a_finite_gradient(reduction):
    layer = layers((6,))[0]
    layer.running_mean, layer.running_var = layer.mean.clone(), layer.var.clone()
    layer.mean.requires_grad_()
    value = batchnorm_distance([layer], reduction)
    value.backward()
    assert value.item() == 0
    assert torch.isfinite(layer.mean.grad).all()


def test_extreme_statistics_stay_finite():
    layer = layers((8,))[0]
    layer.var = torch.full((8,), 1e15)
    assert torch.isfinite(batchnorm_distance([layer]))


def test_it_takes_an_iterator():
    found = layers((2, 3))
    assert batchnorm_distance(iter(found)).item() == batchnorm_distance(found).item()


def test_no_layer_is_an_error_and_no_silent_zero():
    with pytest.raises(ValueError, match="no BatchNorm statistics"):
        batchnorm_distance([])


def test_unknown_reduction():
    with pytest.raises(ValueError, match="'max': expected mean, sum or scaled"):
        batchnorm_distance(layers((2,)), "max")


@pytest.mark.parametrize("decay", [0.0, 0.9, 0.25])
def test_statistics_of_which_the_past_has_a_share(decay):
    found = layers((3, 5), seed=4)
    asking = [part.requires_grad_() for layer in found for part in (layer.mean, layer.var)]
    past = torch.tensor(np.random.default_rng(5).random(16), dtype=torch.float32)
    mixed, kept = blended(iter(found), past, torch.tensor(decay))
    now = np.concatenate([part.detach().double().numpy() for part in asking])
    np.testing.assert_allclose(kept.numpy(), decay * past.double().numpy() + (1 - decay) * now, rtol=1e-6)
    np.testing.assert_allclose(torch.cat([x for m in mixed for x in (m.mean, m.var)]).detach().numpy(), kept.numpy())
    assert all(
        m.running_mean is layer.running_mean and m.running_var is layer.running_var
        for m, layer in zip(mixed, found, strict=True)
    )
    gradients = torch.autograd.grad(sum((m.mean.sum() + 2 * m.var.sum()) for m in mixed), asking)
    for gradient, factor in zip(gradients, (1, 2, 1, 2), strict=True):
        np.testing.assert_allclose(gradient.numpy(), factor * (1 - decay), rtol=1e-5)
    assert not kept.requires_grad


@pytest.mark.parametrize("reduction", ["mean", "sum", "scaled"])
def test_the_distance_of_each_image_is_that_of_a_batch_of_it_alone(reduction):
    found, shown = layers((3, 7), seed=6), [layers((3, 7), seed=seed) for seed in (7, 8, 9)]
    for at, layer in enumerate(found):
        layer.images = tuple(torch.stack([getattr(one[at], part) for one in shown]) for part in ("mean", "var"))
        layer.images[0].requires_grad_()
    distances = image_distances(iter(found), reduction)
    for distance, one in zip(distances.tolist(), shown, strict=True):
        for layer, own in zip(found, one, strict=True):
            own.running_mean, own.running_var = layer.running_mean, layer.running_var
        assert distance == pytest.approx(reference(one, reduction), rel=1e-6)
    assert distances.shape == (3,) and not distances.requires_grad
    assert torch.equal(image_distances(found), distances) == (reduction == "mean")
    with pytest.raises(ValueError, match="no BatchNorm statistics"):
        image_distances([])


def test_nearness():
    assert nearness(torch.tensor([3.0, 1.0, 2.0, 1.5])).tolist() == [0.0, 1.0, 0.5, 0.75]
    assert nearness(torch.tensor([2.0, 2.0])).tolist() == [1.0, 1.0] and nearness(torch.tensor([0.0])).tolist() == [1.0]
    assert nearness(torch.tensor([1.0, math.nan])).isnan().all(), "a number that is none is not hidden"
