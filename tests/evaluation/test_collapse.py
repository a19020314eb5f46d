"""The signs of a collapse against what they mean, on images and logits whose answer is known."""

import pytest
import torch

from segkd.evaluation.collapse import ALIKE, class_shares, collapsed, distance, diversity

NAMES = ("sky", "road", "car")


def scenes(n: int = 6, seed: int = 0) -> torch.Tensor:
    """Unrelated images (N,3,16,24)."""
    return torch.randn(n, 3, 16, 24, generator=torch.Generator().manual_seed(seed))


def loop_over_pixels(images: torch.Tensor) -> float:
    between = [torch.var(images[:, c, i, j]) for c in range(3) for i in range(16) for j in range(24)]
    total = [torch.var(images[:, c].flatten()) for c in range(3)]
    return float(torch.stack(between).mean() / torch.stack(total).mean())


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_diversity_is_the_share_of_the_variance_that_lies_between_images(share):
    images = share**0.5 * scenes() + (1 - share) ** 0.5 * scenes(1, seed=1)
    assert diversity(images) == pytest.approx(loop_over_pixels(images), rel=1e-4)
    assert diversity(images) == pytest.approx(share, abs=0.05)


def test_diversity_knows_no_contrast_and_no_brightness():
    assert diversity(1e-3 * scenes() + 5) == pytest.approx(diversity(scenes()), rel=1e-3)


@pytest.mark.parametrize("images", [torch.zeros(4, 3, 8, 8), scenes(1).expand(4, -1, -1, -1)])
def test_images_that_are_all_the_same_have_none(images):
    assert diversity(images) == pytest.approx(0, abs=1e-6)


def test_shares_of_classes():
    ids = torch.tensor([[[0, 0], [2, 2]], [[2, 2], [2, 0]]])
    logits = torch.nn.functional.one_hot(ids, 3).permute(0, 3, 1, 2).float()
    torch.testing.assert_close(class_shares(logits), torch.tensor([3 / 8, 0, 5 / 8]))


def test_distance_is_in_units_of_what_a_constant_gets():
    teacher = 7 * scenes() + 3
    assert distance(teacher, teacher) == 0
    assert distance(torch.full_like(teacher, float(teacher.mean())), teacher) == pytest.approx(1)
    assert distance(teacher + 20 * (teacher - teacher.mean()), teacher) == pytest.approx(20, rel=1e-4)


def test_what_is_wrong_is_named():
    mixed = torch.tensor([0.5, 0.5, 0.0])
    assert collapsed(diversity(scenes()), mixed, NAMES) is None
    alike = scenes(1) + 0.5 * ALIKE**0.5 * scenes()
    assert collapsed(diversity(alike), mixed, NAMES).startswith(
        "collapsed: the synthetic images are all alike (diversity 0.0"
    )
    assert (
        collapsed(diversity(scenes()), torch.tensor([0.005, 0.995, 0]), NAMES)
        == "collapsed: 99.5 % of the synthetic pixels are road"
    )
