"""Maps of attention, and how unlike images are, against loops in float64: value and gradient."""

import numpy as np
import pytest
import torch

from segkd.losses.features import attention, attention_distance, sameness

SHAPES = [((2, 3, 4, 5), (2, 7, 4, 5)), ((1, 1, 2, 3), (1, 4, 2, 3)), ((3, 2, 1, 6), (3, 2, 1, 6))]


def drawn(*shapes: tuple[int, ...]) -> list[np.ndarray]:
    chance = np.random.default_rng(3)
    return [chance.standard_normal(shape) for shape in shapes]


def energy(image: np.ndarray) -> np.ndarray:
    return (image**2).sum(axis=0) / len(image)


def reference(student: np.ndarray, teacher: np.ndarray) -> tuple[float, np.ndarray]:
    """The value, and the gradient of the student's maps, by the angle: |a - b|^2 = 2 - 2 a.b of vectors of length 1."""
    value, gradient = 0.0, np.zeros_like(student)
    for n, (own, other) in enumerate(zip(student, teacher, strict=True)):
        s, t = energy(own), energy(other)
        length = np.sqrt((s**2).sum())
        unit, target = s / length, t / np.sqrt((t**2).sum())
        cosine = (unit * target).sum()
        value += (2 - 2 * cosine) / len(student)
        slope = -2 * (target - cosine * unit) / length / len(student)
        gradient[n] = slope * 2 * own / len(own)
    return value, gradient


@pytest.mark.parametrize("shapes", SHAPES)
def test_value_and_gradient(shapes):
    student, teacher = drawn(*shapes)
    x = torch.tensor(student, dtype=torch.float32, requires_grad=True)
    value = attention_distance([x], [torch.tensor(teacher, dtype=torch.float32)])
    wanted, slope = reference(student, teacher)
    assert value.item() == pytest.approx(wanted, rel=1e-4)
    (gradient,) = torch.autograd.grad(value, x)
    np.testing.assert_allclose(gradient.double().numpy(), slope, rtol=1e-3, atol=1e-5 * np.abs(slope).max())


def test_layers_add_up_from_the_end_and_the_students_size_holds():
    early, late, other = (torch.tensor(x).float() for x in drawn((2, 3, 8, 8), (2, 4, 2, 3), (2, 5, 4, 6)))
    pooled = torch.nn.functional.interpolate(
        other.square().mean(1, keepdim=True), (2, 3), mode="bilinear", antialias=True
    )
    wanted = attention_distance([late], [pooled.sqrt()])
    assert torch.allclose(attention_distance([early, late], [other]), wanted)
    assert torch.allclose(attention_distance([late], [early, other]), wanted)
    assert torch.allclose(attention_distance([early, late], [early.flip(3), other]),
                          wanted + attention_distance([early], [early.flip(3)]))  # fmt: skip
    assert attention(other, (4, 6)).equal(attention(other))


@pytest.mark.parametrize("scale", [1e-3, 7.0, 1e30])
def test_a_scale_says_nothing(scale):
    maps = torch.tensor(drawn((2, 3, 4, 5))[0]).float()
    found = attention(scale * maps)
    assert torch.allclose(found, attention(maps)) and torch.allclose(found.flatten(1).norm(dim=1), torch.ones(2))


def test_silent_maps_attend_to_nothing():
    maps = torch.zeros(2, 3, 4, 5, requires_grad=True)
    value = attention_distance([maps], [torch.ones(2, 1, 4, 5)])
    assert value.item() == pytest.approx(1)
    assert torch.autograd.grad(value, maps)[0].abs().max() == 0


def test_bf16_is_judged_in_fp32():
    maps = torch.randn(2, 3, 4, 5).bfloat16()
    assert attention(maps).equal(attention(maps.float())) and attention(maps).dtype == torch.float32


@pytest.mark.parametrize("lists", [([], [torch.ones(1, 1, 2, 2)]), ([torch.ones(1, 1, 2, 2)], [])])
def test_no_maps_are_an_error(lists):
    with pytest.raises(ValueError, match="none to compare"):
        attention_distance(*lists)


def pooled(maps: np.ndarray) -> np.ndarray:
    """Means over windows of an eighth of each side, as one vector of length 1."""
    channels, height, width = maps.shape
    down, right = max(1, height // 8), max(1, width // 8)
    cells = [
        maps[c, i * down : (i + 1) * down, j * right : (j + 1) * right].mean()
        for c in range(channels) for i in range(height // down) for j in range(width // right)
    ]  # fmt: skip
    return np.array(cells) / np.sqrt(np.square(cells).sum())


def sameness_reference(maps: np.ndarray, logits: np.ndarray) -> float:
    total, pairs = 0.0, len(maps) // 2
    for pair in range(pairs):
        one, other = 2 * pair, 2 * pair + 1
        p, q = (np.exp(x) / np.exp(x).sum(axis=0) for x in (logits[one], logits[other]))
        unlike = np.sqrt(sum(((p - q)[:, i, j] ** 2).sum() for i, j in np.ndindex(p.shape[1:])) / p[0].size)
        gap = pooled(maps[one]) - pooled(maps[other])
        total += unlike / (np.sqrt(gap @ gap) + 1e-3)
    return total / pairs


@pytest.mark.parametrize(("maps", "logits"), [((4, 2, 3, 5), (4, 3, 4, 2)), ((3, 1, 17, 8), (3, 2, 2, 2))])
def test_sameness_and_its_gradient(maps, logits):
    x, y = drawn(maps, logits)
    f, t = (torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (x, y))
    value = sameness(f, t)
    assert value.item() == pytest.approx(sameness_reference(x, y), rel=1e-9)
    for index, gradient in enumerate(torch.autograd.grad(value, [f, t])):
        for place in list(np.ndindex(gradient.shape))[::7]:
            around = []
            for step in (1e-6, -1e-6):
                moved = [x.copy(), y.copy()]
                moved[index][place] += step
                around.append(sameness_reference(*moved))
            assert gradient[place].item() == pytest.approx((around[0] - around[1]) / 2e-6, abs=1e-5)


def test_images_that_look_the_same_to_the_teacher_are_the_worst():
    maps, logits = (torch.tensor(x).float() for x in drawn((2, 3, 8, 8), (2, 4, 8, 8)))
    assert sameness(maps[:1].repeat(2, 1, 1, 1), logits) > 100 * sameness(maps, logits) > 0
    assert sameness(maps, logits[:1].repeat(2, 1, 1, 1)) == 0
    noise = torch.tensor(drawn((2, 3, 64, 64))[0]).float()
    assert sameness(maps[:1].repeat(2, 1, 8, 8) + 0.1 * noise, logits) > 5 * sameness(maps, logits), (
        "noise is no difference"
    )
