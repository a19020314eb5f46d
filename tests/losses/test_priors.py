"""Balance, one-hot and smoothness against loops over pixels in float64: value and gradient."""

import math

import numpy as np
import pytest
import torch

from segkd.losses.priors import balance, magnitude, one_hot, rarity, smoothness

SHAPES = [(2, 5, 4, 6), (1, 3, 1, 1), (1, 11, 3, 5), (3, 2, 5, 7)]


def probabilities(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def balance_reference(logits: np.ndarray) -> tuple[float, np.ndarray]:
    """The value and its gradient: dL/dp = (log m_c + 1) / pixels through the softmax of each pixel."""
    p = probabilities(logits)
    count, classes, height, width = logits.shape
    pixels = count * height * width
    mean = [
        sum(p[n, c, i, j] for n in range(count) for i in range(height) for j in range(width)) / pixels
        for c in range(classes)
    ]
    value = sum(m * math.log(m) for m in mean)
    slope = np.array([math.log(m) + 1 for m in mean]) / pixels
    gradient = np.zeros_like(logits)
    for n in range(count):
        for i in range(height):
            for j in range(width):
                q = p[n, :, i, j]
                gradient[n, :, i, j] = q * (slope - (q * slope).sum())
    return value, gradient


def one_hot_reference(logits: np.ndarray) -> tuple[float, np.ndarray]:
    p = probabilities(logits)
    pixels = p.size // p.shape[1]
    target = np.zeros_like(p)
    np.put_along_axis(target, logits.argmax(axis=1)[:, None], 1.0, axis=1)
    return float(-(target * np.log(p)).sum() / pixels), (p - target) / pixels


def smoothness_reference(images: np.ndarray) -> tuple[float, np.ndarray]:
    """The value, and its gradient: each step pulls on its two pixels by its sign."""
    value, gradient = 0.0, np.zeros_like(images)
    count, channels, height, width = images.shape
    for down, right in ((1, 0), (0, 1)):
        steps = count * channels * (height - down) * (width - right)
        for n, c, i, j in np.ndindex(count, channels, height - down, width - right):
            step = images[n, c, i + down, j + right] - images[n, c, i, j]
            value += abs(step) / steps
            gradient[n, c, i + down, j + right] += np.sign(step) / steps
            gradient[n, c, i, j] -= np.sign(step) / steps
    return value, gradient


def magnitude_reference(images: np.ndarray) -> tuple[float, np.ndarray]:
    """The value, and its gradient x / (n * pixels * length)."""
    value, gradient, numbers = 0.0, np.zeros_like(images), images[0].size
    for n, image in enumerate(images):
        length = math.sqrt(sum(x * x for x in image.ravel()) / numbers)
        value += length / len(images)
        gradient[n] = image / length / numbers / len(images)
    return value, gradient


LOSSES = [
    (magnitude, magnitude_reference),
    (balance, balance_reference),
    (one_hot, one_hot_reference),
    (smoothness, smoothness_reference),
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("loss", "reference"), LOSSES)
def test_value_and_gradient(loss, reference, shape):
    logits = 2 * np.random.default_rng(5).standard_normal(shape)
    x = torch.tensor(logits, dtype=torch.float32, requires_grad=True)
    value = loss(x)
    (gradient,) = torch.autograd.grad(value, x)
    wanted, wanted_gradient = reference(logits)
    assert value.item() == pytest.approx(wanted, rel=1e-5)
    scale = np.abs(wanted_gradient).max()
    np.testing.assert_allclose(gradient.double().numpy(), wanted_gradient, rtol=1e-3, atol=1e-5 * scale + 1e-8)


@pytest.mark.parametrize("reference", [reference for _, reference in LOSSES])
def test_the_references_own_gradients_by_central_differences(reference):
    logits = np.random.default_rng(6).standard_normal((2, 3, 2, 2))
    gradient = reference(logits)[1]
    for index in np.ndindex(logits.shape):
        up, down = logits.copy(), logits.copy()
        up[index] += 1e-5
        down[index] -= 1e-5
        assert gradient[index] == pytest.approx((reference(up)[0] - reference(down)[0]) / 2e-5, abs=1e-8)


def test_balance_averages_over_the_pixels_not_over_the_batch_alone():
    # A scene whose left half is sky and right half is road is balanced over its pixels; over N alone every pixel
    # position shows one class in all images, and the same logits would count as collapsed (0).
    logits = torch.full((4, 2, 3, 6), -50.0)
    logits[:, 0, :, :3] = 50
    logits[:, 1, :, 3:] = 50
    assert balance(logits).item() == pytest.approx(-math.log(2), rel=1e-6)


def test_balance_does_not_care_where_the_classes_stand():
    logits = torch.randn(2, 4, 3, 5)
    pixels = logits.permute(1, 0, 2, 3).reshape(4, -1)[:, torch.randperm(30)]
    shuffled = pixels.reshape(4, 2, 3, 5).permute(1, 0, 2, 3)
    assert balance(shuffled).item() == pytest.approx(balance(logits).item(), rel=1e-5)


def test_uniform_logits_are_the_extremes():
    logits = torch.zeros(2, 6, 3, 5, requires_grad=True)
    assert balance(logits).item() == pytest.approx(-math.log(6), rel=1e-6)
    assert one_hot(logits).item() == pytest.approx(math.log(6), rel=1e-6)
    balance(logits).backward()
    assert logits.grad.abs().max() < 1e-7


@pytest.mark.parametrize("size", [1e3, 1e8])
def test_one_class_everywhere(size):
    logits = torch.full((2, 6, 3, 5), -size)
    logits[:, 2] = size
    logits.requires_grad_()
    for loss in (balance, one_hot):
        value = loss(logits)
        (gradient,) = torch.autograd.grad(value, logits)
        assert value.item() == pytest.approx(0, abs=1e-6)
        assert torch.isfinite(gradient).all()


def test_descending_balance_lifts_an_absent_class():
    logits = torch.zeros(2, 3, 4, 4)
    logits[:, 0] = 6
    logits.requires_grad_()
    (gradient,) = torch.autograd.grad(balance(logits), logits)
    assert (gradient[:, 0] > 0).all()
    assert (gradient[:, 1:] < 0).all()


@pytest.mark.parametrize("loss", [loss for loss, _ in LOSSES])
def test_bf16_is_judged_in_fp32(loss):
    logits = (4 * torch.randn(2, 5, 8, 8)).bfloat16()
    assert loss(logits).dtype == torch.float32
    assert loss(logits).item() == loss(logits.float()).item()
    with torch.autocast("cpu", torch.bfloat16):
        assert loss(logits).item() == loss(logits.float()).item()


def test_a_slope_is_as_smooth_as_a_step_and_noise_is_not():
    slope = torch.linspace(-1, 1, 9).expand(2, 3, 5, 9)
    step = torch.where(torch.arange(9) < 4, -1.0, 1.0).expand(2, 3, 5, 9)
    assert smoothness(slope).item() == pytest.approx(2 / 8) == smoothness(step).item()
    assert smoothness(torch.randn(2, 3, 5, 9)) > 1
    assert smoothness(torch.full((2, 3, 5, 9), 7.0)).item() == 0


def test_the_magnitude_of_nothing_is_0_with_a_gradient_and_does_not_know_the_size():
    x = torch.zeros(2, 3, 4, 4, requires_grad=True)
    magnitude(x).backward()
    assert magnitude(x).item() == 0 and torch.isfinite(x.grad).all()
    assert (
        magnitude(torch.full((2, 3, 5, 9), -2.0)).item()
        == pytest.approx(2)
        == magnitude(torch.full((1, 3, 2, 2), 2.0)).item()
    )
    assert magnitude(torch.full((2, 3, 5, 9), 1e30)).item() == pytest.approx(1e30)


@pytest.mark.parametrize("shape", SHAPES)
def test_rarity(shape):
    logits = np.random.default_rng(0).standard_normal(shape) * 3
    p = probabilities(logits)
    count, classes, height, width = shape
    mean = np.array([p[:, c].sum() for c in range(classes)]) / (count * height * width)
    x = torch.tensor(logits, requires_grad=True)
    value = rarity(x)
    assert value.item() == pytest.approx(
        sum((1 / classes - m) ** 2 / (m + 1e-3) for m in mean) / classes, rel=1e-6, abs=1e-9
    )
    slope = np.array(
        [(-2 * (1 / classes - m) / (m + 1e-3) - ((1 / classes - m) / (m + 1e-3)) ** 2) / classes for m in mean]
    )
    slope = slope[:, None, None] / (count * height * width)
    [found] = torch.autograd.grad(value, x)
    np.testing.assert_allclose(found.numpy(), p * (slope - (p * slope).sum(1, keepdims=True)), rtol=1e-6, atol=1e-12)


def test_an_absent_class_pulls_far_more_than_a_frequent_one_pushes():
    even, lacking = torch.zeros(1, 2, 3, 3), torch.zeros(1, 2, 3, 3)
    lacking[:, 0] = -9
    assert rarity(even).item() == 0 and rarity(lacking).item() > 90
