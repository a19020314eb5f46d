"""The generators: DFAD's size, any image size, the teacher's exact input range, and fewer checkerboards."""

import pytest
import torch

from segkd.models.adapters import parameters_of
from segkd.models.teacher import input_range
from segkd.synthesis.architectures import ToRange, dcgan, resize_convolution

LOW, HIGH = input_range((0.485, 0.456, 0.2), (0.229, 0.5, 0.1))
UNIT = torch.full((3,), -1.0), torch.full((3,), 1.0)
MAKERS = [dcgan, resize_convolution]


def made(make, size=(40, 56), width=4, latent=6, low=LOW, high=HIGH, seed=0):
    torch.manual_seed(seed)
    return make(latent, size, width, low, high)


def test_the_dcgan_of_dfad_has_11_2_million_parameters():
    with torch.device("meta"):
        generator = dcgan(256, (128, 128), 64, torch.zeros(3), torch.ones(3))
    assert 11.15e6 < parameters_of(generator) < 11.25e6


@pytest.mark.parametrize(
    ("make", "channels"), [(dcgan, [64, 32, 16, 8, 8]), (resize_convolution, [64, 64, 32, 32, 16, 8])]
)
def test_the_stages_are_those_of_the_paper(make, channels):
    generator = made(make, (128, 128), width=8)
    assert [stage.get_submodule("0" if make is dcgan else "1").in_channels for stage in generator.stages] == channels[
        :-1
    ]
    for stage, after in zip(generator.stages, channels[1:], strict=True):
        *ups, norm, bend = stage
        assert isinstance(norm, torch.nn.BatchNorm2d) and norm.num_features == after and bend.negative_slope == 0.2
        conv = ups[-1]
        assert conv.bias is None and (conv.kernel_size[0], conv.stride[0], conv.padding[0]) == (
            (4, 2, 1) if make is dcgan else (3, 1, 1)
        )
        if make is dcgan:
            assert conv.weight.std().item() == pytest.approx(0.02, rel=0.1)
            assert abs(norm.weight.mean().item() - 1) < 0.03 and 0.005 < norm.weight.std().item() < 0.04
        else:
            assert ups[0].scale_factor == 2 and ups[0].mode == "nearest"
    last = generator.last[0]
    assert (last.kernel_size, last.padding) == ((3, 3), (1, 1)) and last.bias is not None
    assert (last.weight.std().item() < 0.03) == (make is dcgan)
    assert make is dcgan or not generator.last[1].affine


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("size", [(16, 16), (1, 1), (33, 47), (40, 56), (256, 352)])
def test_any_size_can_be_the_largest(make, size):
    assert made(make, size, width=1)(torch.randn(2, 6)).shape == (2, 3, *size)


@pytest.mark.parametrize("make", MAKERS)
def test_images_are_cropped_from_larger_maps(make):
    z = torch.randn(2, 6)
    odd = made(make, (33, 47))
    whole = made(make, (odd.small[0] * odd.factor, odd.small[1] * odd.factor))
    whole.load_state_dict(odd.state_dict())
    assert torch.equal(odd.eval()(z), whole.eval()(z)[..., :33, :47])


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("size", [(40, 56), (24, 56), (17, 23), (8, 8)])
def test_smaller_images_come_from_the_same_generator(make, size):
    generator = made(make)
    z = torch.randn(3, 6)
    images = generator(z, size)
    assert images.shape == (3, 3, *size) and images.dtype == torch.float32
    gradients = torch.autograd.grad((images * torch.randn_like(images)).sum(), list(generator.parameters()))
    assert all(g.isfinite().all() for g in gradients) and gradients[0].abs().max() > 0


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("size", [(96, 96), (40, 56), (24, 31), (9, 70)])
def test_a_smaller_image_is_the_whole_scene_made_from_a_smaller_map(make, size):
    """By its own layers; the small map is resampled between the centres of its pixels."""
    generator = made(make, (96, 96)).eval()
    z = torch.randn(2, 6)
    small = generator.project(z).view(2, generator.channels, *generator.small)
    wanted = tuple(-(-side // generator.factor) for side in size)
    ys, xs = (
        ((torch.arange(to) + 0.5) * side / to - 0.5).clamp(0, side - 1)
        for to, side in zip(wanted, generator.small, strict=True)
    )
    top, left = ys.long(), xs.long()
    below, right = (top + 1).clamp(max=generator.small[0] - 1), (left + 1).clamp(max=generator.small[1] - 1)
    down, across = (ys - top).view(-1, 1), xs - left
    upper, lower = (
        small[..., at, :][..., left] * (1 - across) + small[..., at, :][..., right] * across for at in (top, below)
    )
    x = generator.stages(generator.first(upper * (1 - down) + lower * down))
    x = generator.range(generator.last(x)[..., : size[0], : size[1]])
    torch.testing.assert_close(generator(z, size), x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("make", MAKERS)
def test_gradients_reach_the_latents_and_every_layer(make):
    generator = made(make)
    z = torch.randn(3, 6, requires_grad=True)
    # Not a mean of squares, which the last BatchNorm of `resize` holds constant.
    (generator(z) * torch.randn(3, 3, 40, 56)).sum().backward()
    assert z.grad.abs().max() > 0
    weights = {name: p for name, p in generator.named_parameters() if name.endswith("weight")}
    assert all(p.grad.abs().max() > 0 for p in weights.values()) and len(weights) > 6


def test_the_range_is_exactly_the_teachers_for_asymmetric_normalisation():
    middle = torch.tensor([-1.0, 1.0]).view(1, 1, 1, 2).expand(1, 3, 1, 2)
    ends = ToRange(LOW, HIGH)(middle)
    mean, std = torch.tensor((0.485, 0.456, 0.2)), torch.tensor((0.229, 0.5, 0.1))
    black, white = (0 - mean) / std, (1 - mean) / std
    torch.testing.assert_close(ends[0, :, 0, 0], black, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(ends[0, :, 0, 1], white, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("make", MAKERS)
def test_no_pixel_leaves_the_range_and_saturated_ones_reach_its_ends(make):
    generator = made(make)
    with torch.no_grad():
        for parameter in generator.last.parameters():
            parameter *= 1000
        images = generator(torch.randn(4, 6))
    lowest, highest = images.amin((0, 2, 3)), images.amax((0, 2, 3))
    slack = 1e-5 * (HIGH - LOW)
    assert (lowest >= LOW - slack).all() and (highest <= HIGH + slack).all()
    if make is not resize_convolution:  # its last BatchNorm takes every scale away
        torch.testing.assert_close(lowest, LOW, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(highest, HIGH, rtol=1e-4, atol=1e-4)


def test_half_and_half_is_published_range():
    low, high = input_range((0.5,) * 3, (0.5,) * 3)
    assert torch.equal(low, UNIT[0]) and torch.equal(high, UNIT[1])


def test_the_range_is_no_part_of_the_weights():
    assert not any("range" in key for key in made(dcgan).state_dict())


def nyquist_share(make, seed):
    """Share of the images' energy (without their mean) in the highest frequency of either axis."""
    torch.manual_seed(100 + seed)
    generator = made(make, (64, 64), width=8, latent=16, low=UNIT[0], high=UNIT[1], seed=seed)
    with torch.no_grad():
        power = torch.fft.fft2(generator(torch.randn(8, 16))).abs().square()
    total = power.sum((2, 3)) - power[..., 0, 0]
    highest = power[..., 32, :].sum(-1) + power[..., :, 32].sum(-1) - power[..., 32, 32]
    return float((highest / total).mean())


def test_resizing_leaves_fewer_checkerboards_than_transposed_convolutions():
    shares = {make.__name__: [nyquist_share(make, seed) for seed in range(4)] for make in MAKERS}
    # White noise has 127 of 4095 there.
    assert max(shares["resize_convolution"]) < 0.5 * min(shares["dcgan"]), shares
