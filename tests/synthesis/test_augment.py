"""Augmentation of synthetic images: same shape and range, a function of the seed, gradients to the images."""

import pytest
import torch

from segkd.models.teacher import input_range
from segkd.synthesis.augment import Augment

LOW, HIGH = input_range((0.485, 0.456, 0.2), (0.229, 0.5, 0.1))
SHAPE = (16, 3, 20, 28)
NAMES = ("flip", "jitter", "crop", "erase", "noise", "collage")


def images(seed=0):
    torch.manual_seed(seed)
    low, high = LOW.view(1, 3, 1, 1), HIGH.view(1, 3, 1, 1)
    return low + torch.rand(SHAPE) * (high - low)


def changed(names, seed=1):
    x = images()
    torch.manual_seed(seed)
    return Augment(names, LOW, HIGH)(x)


def test_no_name_is_no_change():
    x = images()
    assert Augment([], LOW, HIGH)(x) is x


@pytest.mark.parametrize("names", [[name] for name in NAMES] + [list(NAMES)], ids="+".join)
def test_images_change_within_their_range_by_the_seed_alone(names):
    x, y = images(), changed(names)
    assert y.shape == x.shape and y.dtype == x.dtype
    assert not torch.equal(x, y)
    slack = 1e-4 * (HIGH - LOW)
    assert (y.amin((0, 2, 3)) >= LOW - slack).all() and (y.amax((0, 2, 3)) <= HIGH + slack).all()
    assert torch.equal(changed(names), y)
    assert not torch.equal(changed(names, seed=2), y)


def reached(names):
    """Which images (N,) a gradient reaches through the augmentation."""
    x = images().requires_grad_()
    torch.manual_seed(1)
    Augment(names, LOW, HIGH)(x).sum().backward()
    assert x.grad.isfinite().all()
    return x.grad.abs().amax((1, 2, 3)) > 0


WHOLE = [name for name in NAMES if name != "collage"]


@pytest.mark.parametrize("names", [[name] for name in WHOLE] + [WHOLE], ids="+".join)
def test_gradients_flow_to_the_images(names):
    assert reached(names).all()


def test_collages_end_when_their_part_of_the_run_is_over():
    x, collages = images(), Augment(["collage"], LOW, HIGH, collage_until=0.6)
    assert not torch.equal(collages(x, 0.59), x)
    torch.testing.assert_close(collages(x, 0.6), x)
    torch.testing.assert_close(Augment(["collage"], LOW, HIGH)(x, 1.0), x)  # unless told otherwise, to the end


@pytest.mark.parametrize("names", [["collage"], list(NAMES)], ids="+".join)
def test_a_collage_hides_few_images_altogether(names):
    assert reached(names).float().mean() >= 0.8


def test_flip_mirrors_some_and_leaves_the_others():
    x, y = images(), changed(["flip"])
    kept = torch.isclose(x, y, atol=1e-4).all(3).all(2).all(1)
    mirrored = torch.isclose(x.flip(-1), y, atol=1e-4).all(3).all(2).all(1)
    assert (kept ^ mirrored).all() and kept.any() and mirrored.any()


def test_erase_puts_grey_in_a_small_part():
    grey = ((LOW + HIGH) / 2).view(1, 3, 1, 1)
    x, y = images(), changed(["erase"])
    erased = torch.isclose(y, grey, atol=1e-4).all(1)
    share = erased.float().mean((1, 2))
    assert share.max() <= 0.13 and 0 < (share > 0.01).sum() < 16
    assert torch.allclose(y.movedim(1, -1)[~erased], x.movedim(1, -1)[~erased], atol=1e-4)


def test_noise_has_3_percent_of_the_range():
    middle = ((LOW + HIGH) / 2).view(1, 3, 1, 1).expand(SHAPE)
    torch.manual_seed(1)
    y = Augment(["noise"], LOW, HIGH)(middle)
    spread = ((y - middle) / (HIGH - LOW).view(1, 3, 1, 1)).std((1, 2, 3))
    noisy = spread > 1e-4
    assert 0 < noisy.sum() < 16 and torch.allclose(spread[noisy], torch.tensor(0.03), atol=0.003)


def many(name, x):
    """300 images, each changed by itself."""
    torch.manual_seed(2)
    return Augment([name], torch.zeros(3), torch.ones(3))(x.expand(300, -1, -1, -1).contiguous())


def test_half_are_mirrored_or_noisy_or_erased_and_four_of_five_jittered():
    x = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)) / 2 + 0.25
    share = {
        name: ((many(name, x) - x).abs().amax((1, 2, 3)) > 1e-3).float().mean().item()
        for name in ("flip", "noise", "erase", "jitter", "crop")
    }
    assert share == pytest.approx({"flip": 0.5, "noise": 0.5, "erase": 0.5, "jitter": 0.8, "crop": 1}, abs=0.08)


def test_jitter_goes_a_fifth_up_and_down_and_turns_no_hue():
    grey = torch.full((1, 3, 8, 8), 0.5)
    factors = many("jitter", grey)[:, 0, 0, 0] / 0.5
    # A fifth of the range is added or taken away, before or after the contrast is a fifth more or less.
    assert 0.36 < factors.min() < 0.55 and 1.5 < factors.max() < 1.7
    assert (many("jitter", grey)[:, :1] - many("jitter", grey)).abs().max() < 1e-4
    red = torch.tensor([0.6, 0.3, 0.3]).view(1, 3, 1, 1).expand(1, 3, 8, 8)
    changed = many("jitter", red)[:, :, 0, 0]
    assert (changed[:, 1] - changed[:, 2]).abs().max() < 1e-4  # red stays red: no hue
    strength = (changed[:, 0] - changed[:, 1]) / 0.3  # contrast times saturation
    assert 0.63 < strength.min() < 0.74 and 1.3 < strength.max() < 1.45


def test_erased_areas_are_from_2_to_10_percent_and_grey():
    y = many("erase", torch.ones(1, 3, 40, 40))[:, 0]
    share = (y != 1).float().mean((1, 2))
    share = share[share > 0]
    assert 0.015 < share.min() < 0.035 and 0.08 < share.max() < 0.11
    assert (y[y != 1] - 0.5).abs().max() < 1e-6


def test_crops_have_from_60_to_100_percent_of_the_area_and_nearly_the_shape():
    rows = torch.linspace(0, 1, 41).view(1, 1, 41, 1).expand(1, 3, 41, 41)
    y = many("crop", rows)[:, 0, :, 20]
    down = y[:, -1] - y[:, 0]
    x = many("crop", rows.transpose(2, 3))[:, 0, 20]
    across = x[:, -1] - x[:, 0]
    area, ratio = down * across, across / down
    assert 0.55 < area.min() < 0.66 and 0.92 < area.max() <= 1.01
    assert 0.85 < ratio.min() < 0.94 and 1.06 < ratio.max() < 1.18


def test_it_has_no_state_and_each_change_is_asked_for():
    assert not Augment(NAMES, LOW, HIGH).state_dict()
    x = images()
    torch.manual_seed(1)
    torch.testing.assert_close(Augment(["collage"], LOW, HIGH, collage_until=0)(x), x)
    assert not torch.equal(Augment(["collage"], LOW, HIGH)(x), x)  # until the end, unless told otherwise


def test_crop_zooms_every_image_in():
    # A single bright column can only grow wider, never thinner.
    x = torch.zeros(SHAPE)
    x[..., 14:] = 1
    unit = Augment(["crop"], torch.zeros(3), torch.ones(3))
    torch.manual_seed(1)
    y = unit(x)
    assert y.shape == SHAPE and (y - x).abs().mean((1, 2, 3)).max() > 0.05
    assert torch.allclose(y, y[:, :, :1], atol=1e-4)  # rows stay alike: a zoom, no rotation


CARRYING = ("flip", "jitter", "noise", "collage")


@pytest.mark.parametrize("names", [[], *([name] for name in CARRYING), CARRYING], ids="+".join)
def test_maps_of_classes_change_with_their_images(names):
    """Images that are bright where their id is 1."""
    ids = torch.randint(2, SHAPE[:1] + SHAPE[2:], generator=torch.Generator().manual_seed(0))
    x = (LOW.view(1, 3, 1, 1) + (0.3 + 0.5 * ids[:, None]) * (HIGH - LOW).view(1, 3, 1, 1)).expand(SHAPE)
    augment = Augment(names, LOW, HIGH)
    torch.manual_seed(1)
    images, labels = augment.alike(x, ids)
    torch.manual_seed(1)
    assert torch.equal(images, augment(x)), "and images as they would without"
    assert labels.dtype == torch.int64 and labels.shape == ids.shape
    unit = ((images - LOW.view(1, 3, 1, 1)) / (HIGH - LOW).view(1, 3, 1, 1)).mean(1)
    shown = unit > unit.mean((1, 2), keepdim=True)
    same = (shown.long() == labels).float().mean()
    assert same > (0.95 if names is CARRYING else 0.999), "leaves of a collage may be darker than others"
    assert torch.equal(labels, ids) == (names in ([], ["jitter"], ["noise"]))
