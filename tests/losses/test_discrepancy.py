"""The discrepancies against loops over pixels in float64: value and gradient."""

import math

import numpy as np
import pytest
import torch

from segkd.losses.discrepancy import agreed_kl, channel_wise, discrepancy, jensen_shannon, kl, l1, l2

SHAPES = [(2, 5, 4, 6), (1, 3, 1, 1), (3, 2, 5, 7), (1, 11, 3, 5)]


def pair(shape: tuple[int, ...], seed: int = 0, scale: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return scale * rng.standard_normal(shape), scale * rng.standard_normal(shape)


def log_softmax(values: np.ndarray) -> np.ndarray:
    largest = values.max()
    return values - largest - math.log(sum(math.exp(v - largest) for v in values))


def l1_reference(student: np.ndarray, teacher: np.ndarray) -> tuple[float, np.ndarray]:
    """The value, and the gradient with respect to the student."""
    return float(np.abs(student - teacher).sum() / student.size), np.sign(student - teacher) / student.size


def kl_reference(student: np.ndarray, teacher: np.ndarray, tau: float) -> tuple[float, np.ndarray]:
    """Pixel by pixel; d/ds of tau^2 KL(p || q) is tau (q - p)."""
    count, _, height, width = student.shape
    pixels = count * height * width
    total, gradient = 0.0, np.zeros_like(student)
    for n in range(count):
        for i in range(height):
            for j in range(width):
                log_q, log_p = log_softmax(student[n, :, i, j] / tau), log_softmax(teacher[n, :, i, j] / tau)
                p = np.exp(log_p)
                total += tau**2 * sum(a * (b - c) for a, b, c in zip(p, log_p, log_q, strict=True)) / pixels
                gradient[n, :, i, j] = tau * (np.exp(log_q) - p) / pixels
    return total, gradient


def channel_wise_reference(student: np.ndarray, teacher: np.ndarray, tau: float) -> tuple[float, np.ndarray]:
    """Map by map; d/ds of tau^2 KL(p || q) is tau (q - p)."""
    maps = student.shape[0] * student.shape[1]
    total, gradient = 0.0, np.zeros_like(student)
    for index in np.ndindex(student.shape[:2]):
        log_q, log_p = log_softmax(student[index].ravel() / tau), log_softmax(teacher[index].ravel() / tau)
        p = np.exp(log_p)
        total += tau**2 * sum(a * (b - c) for a, b, c in zip(p, log_p, log_q, strict=True)) / maps
        gradient[index] = (tau * (np.exp(log_q) - p) / maps).reshape(student.shape[2:])
    return total, gradient


def value_and_gradient(loss, student: np.ndarray, teacher: np.ndarray, *rest: object) -> tuple[float, np.ndarray]:
    s = torch.tensor(student, dtype=torch.float32, requires_grad=True)
    value = loss(s, torch.tensor(teacher, dtype=torch.float32), *rest)
    (gradient,) = torch.autograd.grad(value, s)
    return value.item(), gradient.double().numpy()


@pytest.mark.parametrize("shape", SHAPES)
def test_l1(shape):
    student, teacher = pair(shape)
    value, gradient = value_and_gradient(l1, student, teacher)
    wanted, wanted_gradient = l1_reference(student, teacher)
    assert value == pytest.approx(wanted, rel=1e-6)
    np.testing.assert_allclose(gradient, wanted_gradient, rtol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_l2(shape):
    student, teacher = pair(shape)
    value, gradient = value_and_gradient(l2, student, teacher)
    assert value == pytest.approx(sum(gap**2 for gap in (student - teacher).ravel()) / student.size, rel=1e-5)
    np.testing.assert_allclose(gradient, 2 * (student - teacher) / student.size, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("tau", [1.0, 0.5, 4.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_kl(shape, tau):
    student, teacher = pair(shape)
    value, gradient = value_and_gradient(kl, student, teacher, tau)
    wanted, wanted_gradient = kl_reference(student, teacher, tau)
    assert value == pytest.approx(wanted, rel=1e-5)
    np.testing.assert_allclose(gradient, wanted_gradient, rtol=1e-4, atol=1e-6 * np.abs(wanted_gradient).max())


@pytest.mark.parametrize("tau", [1.0, 4.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_channel_wise(shape, tau):
    student, teacher = pair(shape)
    value, gradient = value_and_gradient(channel_wise, student, teacher, tau)
    wanted, wanted_gradient = channel_wise_reference(student, teacher, tau)
    assert value == pytest.approx(wanted, rel=1e-5, abs=1e-9)
    np.testing.assert_allclose(gradient, wanted_gradient, rtol=1e-4, atol=1e-6 * np.abs(wanted_gradient).max())


def test_maps_are_compared_at_temperature_4_unless_another_is_given():
    student, teacher = (torch.tensor(a) for a in pair((2, 3, 4, 5)))
    assert channel_wise(student, teacher).item() == pytest.approx(channel_wise_reference(*pair((2, 3, 4, 5)), 4)[0])


def test_channel_wise_hears_a_rare_class_as_loudly_as_a_frequent_one():
    # Two classes are missed at one place, of which one is sure at a single place and the other at half of them.
    teacher = torch.full((1, 2, 4, 8), -8.0)
    teacher[0, 0, 0, 0] = teacher[0, 1, :, :4] = 8
    student = torch.zeros_like(teacher, requires_grad=True)
    pulls = torch.autograd.grad(channel_wise(student, teacher), student)[0].abs().sum(dim=(2, 3))[0]
    assert pulls[0] > pulls[1]
    shifted = teacher + torch.tensor([3.0, -5.0]).view(1, 2, 1, 1)
    assert channel_wise(shifted, teacher).item() == pytest.approx(0, abs=1e-5)


def test_kl_gradient_reaches_the_teacher_too():
    # An adversary moves the images, and through them both networks.
    student, teacher = pair((1, 3, 2, 2))
    t = torch.tensor(teacher, requires_grad=True)
    (gradient,) = torch.autograd.grad(kl(torch.tensor(student), t, 2.0), t)
    for index in np.ndindex(teacher.shape):
        up, down = teacher.copy(), teacher.copy()
        up[index] += 1e-5
        down[index] -= 1e-5
        slope = (kl_reference(student, up, 2.0)[0] - kl_reference(student, down, 2.0)[0]) / 2e-5
        assert gradient[index].item() == pytest.approx(slope, abs=1e-5)


@pytest.mark.parametrize("kind", ["l1", "kl", "l1+kl"])
def test_equal_logits_have_no_discrepancy(kind):
    logits = torch.randn(2, 4, 3, 5, requires_grad=True)
    value = discrepancy(logits, logits.detach(), kind, 3.0)
    assert value.item() == pytest.approx(0, abs=1e-6)
    value.backward()
    assert logits.grad.abs().max() < 1e-6


def test_uniform_logits():
    zeros = torch.zeros(2, 8, 3, 3)
    sure = torch.full((2, 8, 3, 3), -1e4)
    sure[:, 2] = 0
    assert kl(zeros, sure).item() == pytest.approx(math.log(8), rel=1e-6)
    assert l1(zeros, zeros + 2).item() == pytest.approx(2)


@pytest.mark.parametrize("kind", ["l1", "kl", "l1+kl"])
@pytest.mark.parametrize("size", [1e4, 1e8])
def test_extreme_logits_stay_finite(kind, size):
    generator = torch.Generator().manual_seed(1)
    student = (size * torch.randn(2, 5, 3, 3, generator=generator)).requires_grad_()
    teacher = size * torch.randn(2, 5, 3, 3, generator=generator)
    value = discrepancy(student, teacher, kind)
    value.backward()
    assert torch.isfinite(value)
    assert value > 0
    assert torch.isfinite(student.grad).all()


def test_kinds_add_up_and_keep_their_temperature():
    student, teacher = (torch.tensor(a, dtype=torch.float32) for a in pair((2, 3, 4, 5), seed=3))
    assert discrepancy(student, teacher).item() == l1(student, teacher).item()
    assert discrepancy(student, teacher, "kl", 2.5).item() == kl(student, teacher, 2.5).item()
    assert discrepancy(student, teacher, "kl").item() == kl(student, teacher).item() == kl(student, teacher, 1).item()
    both = discrepancy(student, teacher, "l1+kl", 2.5)
    assert both.item() == pytest.approx((l1(student, teacher) + kl(student, teacher, 2.5)).item())


@pytest.mark.parametrize("kind", ["l1", "kl", "l1+kl"])
def test_bf16_logits_are_compared_in_fp32(kind):
    student, teacher = (torch.tensor(a).bfloat16() for a in pair((2, 5, 8, 8), seed=4))
    wanted = discrepancy(student.float(), teacher.float(), kind, 2.0)
    assert discrepancy(student, teacher, kind, 2.0).dtype == torch.float32
    assert discrepancy(student, teacher, kind, 2.0).item() == wanted.item()
    with torch.autocast("cpu", torch.bfloat16):
        assert discrepancy(student, teacher, kind, 2.0).item() == wanted.item()


def test_a_mean_over_pixels_does_not_know_the_size():
    student, teacher = (torch.tensor(a, dtype=torch.float32) for a in pair((1, 4, 3, 5)))
    for kind in ("l1", "kl"):
        once = discrepancy(student, teacher, kind).item()
        tiled = discrepancy(student.repeat(3, 1, 2, 2), teacher.repeat(3, 1, 2, 2), kind).item()
        assert tiled == pytest.approx(once, rel=1e-5)


def test_unknown_kind():
    with pytest.raises(ValueError, match="'l2': expected one of l1, kl, l1"):
        discrepancy(torch.zeros(1, 2, 1, 1), torch.zeros(1, 2, 1, 1), "l2")


def jensen_shannon_reference(student: np.ndarray, teacher: np.ndarray, tau: float) -> float:
    total, places = 0.0, 0
    for index in np.ndindex(student.shape[0], *student.shape[2:]):
        place = (index[0], slice(None), *index[1:])
        p, q = (np.clip(np.exp(log_softmax(logits[place] / tau)), 0.01, 0.99) for logits in (teacher, student))
        total += (
            sum(a * math.log(2 * a / (a + b)) + b * math.log(2 * b / (a + b)) for a, b in zip(p, q, strict=True)) / 2
        )
        places += 1
    return total / places


@pytest.mark.parametrize("tau", [3.0, 1.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_jensen_shannon(shape, tau):
    student, teacher = pair(shape)
    value, gradient = value_and_gradient(jensen_shannon, student, teacher, tau)
    assert value == pytest.approx(jensen_shannon_reference(student, teacher, tau), rel=1e-4, abs=1e-7)
    for index in list(np.ndindex(shape))[:: max(1, student.size // 20)]:
        up, down = student.copy(), student.copy()
        up[index] += 1e-5
        down[index] -= 1e-5
        slope = (jensen_shannon_reference(up, teacher, tau) - jensen_shannon_reference(down, teacher, tau)) / 2e-5
        assert gradient[index] == pytest.approx(slope, rel=1e-3, abs=1e-6)


def test_jensen_shannon_is_taken_at_a_temperature_of_3():
    student, teacher = torch.randn(2, 1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(jensen_shannon(student, teacher), jensen_shannon(student, teacher, 3.0))


def test_l2_rises_in_a_straight_line_from_a_gap_of_a_thousand():
    student = torch.tensor([[[[999.0]], [[1001.0]], [[5001.0]]]], requires_grad=True)
    l2(student, torch.zeros_like(student)).backward()
    assert (3 * student.grad).flatten().tolist() == pytest.approx([2 * 999, 2 * 1000, 2 * 1000])


def test_jensen_shannon_goes_both_ways_up_to_log_2():
    student, teacher = (torch.tensor(a, dtype=torch.float32) for a in pair((2, 2, 4, 5)))
    assert jensen_shannon(student, teacher).item() == pytest.approx(jensen_shannon(teacher, student).item(), rel=1e-5)
    assert jensen_shannon(teacher, teacher).item() == pytest.approx(0, abs=1e-7)
    sure = torch.tensor([99.0, -99.0]).view(1, 2, 1, 1)
    assert 0.9 * math.log(2) < jensen_shannon(sure, -sure).item() < math.log(2)


@pytest.mark.parametrize("shape", SHAPES)
def test_agreed_kl(shape):
    student, teacher = pair(shape, seed=3)
    value, gradient = value_and_gradient(agreed_kl, student, teacher)
    total, wanted = 0.0, np.zeros_like(student)
    count, _, height, width = shape
    for n, i, j in np.ndindex(count, height, width):
        s, t = student[n, :, i, j], teacher[n, :, i, j]
        if s.argmax() == t.argmax():
            log_q, log_p = log_softmax(s), log_softmax(t)
            total += float(np.exp(log_p) @ (log_p - log_q)) / (count * height * width)
            wanted[n, :, i, j] = (np.exp(log_q) - np.exp(log_p)) / (count * height * width)
    assert value == pytest.approx(total, rel=1e-5)
    np.testing.assert_allclose(gradient, wanted, rtol=1e-4, atol=1e-6 * max(np.abs(wanted).max(), 1e-6))


def test_agreed_kl_is_kl_where_all_agree_and_nothing_where_none_does():
    student, teacher = (torch.tensor(x) for x in pair((2, 4, 3, 5)))
    alike = teacher * 0.5
    torch.testing.assert_close(agreed_kl(alike, teacher), kl(alike, teacher))
    assert agreed_kl(-alike, teacher).item() == 0
