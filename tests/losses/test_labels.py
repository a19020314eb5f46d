"""Cross-entropy to maps of classes against loops over pixels in float64: value and gradient."""

import math

import numpy as np
import pytest
import torch

from segkd.losses.labels import cross_entropy, softened

SHAPES = [(2, 5, 4, 6), (1, 3, 1, 1), (3, 2, 5, 7)]


def reference(logits, ids, rows, tau):
    """Value and gradient; the slope of a pixel's cross-entropy is (softmax - target) / tau."""
    count, _, height, width = logits.shape
    total, gradient = 0.0, np.zeros_like(logits)
    for n, i, j in np.ndindex(count, height, width):
        pixel = logits[n, :, i, j] / tau
        log_p = pixel - pixel.max() - math.log(sum(math.exp(v - pixel.max()) for v in pixel))
        wanted = rows[n][ids[n, i, j]]
        total -= sum(a * b for a, b in zip(wanted, log_p, strict=True)) / (count * height * width)
        gradient[n, :, i, j] = (np.exp(log_p) - wanted) / tau / (count * height * width)
    return total, gradient


@pytest.mark.parametrize("tau", [1.0, 20.0])
@pytest.mark.parametrize("each", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_value_and_gradient(shape, each, tau):
    rng = np.random.default_rng(0)
    logits, ids = 3 * rng.standard_normal(shape), rng.integers(0, shape[1], (shape[0], *shape[2:]))
    rows = (
        rng.dirichlet(np.ones(shape[1]), (shape[0], shape[1])) if each else rng.dirichlet(np.ones(shape[1]), shape[1])
    )
    x = torch.tensor(logits, dtype=torch.float32, requires_grad=True)
    value = cross_entropy(x, torch.tensor(ids), torch.tensor(rows, dtype=torch.float32), tau)
    (gradient,) = torch.autograd.grad(value, x)
    wanted, wanted_gradient = reference(logits, ids, rows if each else [rows] * shape[0], tau)
    assert value.item() == pytest.approx(wanted, rel=1e-5)
    np.testing.assert_allclose(gradient.double().numpy(), wanted_gradient, atol=1e-5 * np.abs(wanted_gradient).max())


def test_ids_are_softened():
    rows = softened(5, 0.8)
    assert torch.allclose(rows.sum(1), torch.ones(5)) and (rows.diagonal() == 0.8).all()
    assert torch.allclose(rows[0, 1:], torch.full((4,), 0.05)) and softened(1, 1.0).item() == 1
    logits = torch.randn(2, 5, 3, 4)
    ids = torch.randint(5, (2, 3, 4))
    plain = cross_entropy(logits, ids, softened(5, 1.0))
    assert plain.item() == pytest.approx(torch.nn.functional.cross_entropy(logits, ids).item(), rel=1e-6)


def test_a_softened_class_is_wanted_no_surer_than_it_says():
    logits = torch.tensor([0.8, *[0.05] * 4]).log().view(1, 5, 1, 1).requires_grad_()
    cross_entropy(logits, torch.zeros(1, 1, 1, dtype=torch.long), softened(5, 0.8)).backward()
    assert logits.grad.abs().max() < 1e-6


def test_maps_are_taken_to_the_resolution_of_a_head():
    ids = torch.randint(5, (2, 3, 4))
    logits = torch.randn(2, 5, 3, 4)
    large = ids.repeat_interleave(4, 1).repeat_interleave(4, 2)
    assert cross_entropy(logits, large, softened(5, 0.8)).item() == cross_entropy(logits, ids, softened(5, 0.8)).item()


def test_bf16_is_judged_in_fp32():
    logits, ids = torch.randn(2, 5, 8, 8).bfloat16(), torch.randint(5, (2, 8, 8))
    value = cross_entropy(logits, ids, softened(5, 0.8))
    assert value.dtype == torch.float32 and value.item() == cross_entropy(logits.float(), ids, softened(5, 0.8)).item()
