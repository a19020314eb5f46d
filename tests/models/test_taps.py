"""Taps: the statistics against sums by hand, every kind of BatchNorm, and nothing left behind."""

import copy

import numpy as np
import pytest
import timm.layers
import torch
import torchvision
from torch import nn

from segkd.foundation.errors import TeacherError
from segkd.models.adapters import Adapter
from segkd.models.family import Sizes
from segkd.models.taps import (
    BatchNormTap,
    FeatureTap,
    batchnorm_layers,
    channel_maps,
    check_statistics,
    untouched_statistics,
)


def small_network(*, trained: bool = True) -> nn.Sequential:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1), nn.BatchNorm2d(2), nn.AdaptiveAvgPool2d(1),
        nn.BatchNorm2d(2),
    )  # fmt: skip
    if trained:
        for layer in batchnorm_layers(network).values():
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2)
    return network.eval()


def by_hand(values: torch.Tensor) -> tuple[list[float], list[float]]:
    """Mean and biased variance of each channel of (N,C,H,W), as sums over all its pixels."""
    means, variances = [], []
    for c in range(values.shape[1]):
        pixels = [float(v) for v in values[:, c].reshape(-1)]
        means.append(sum(pixels) / len(pixels))
        variances.append(sum((p - means[-1]) ** 2 for p in pixels) / len(pixels))
    return means, variances


def hooks_of(network: nn.Module) -> int:
    return sum(len(m._forward_pre_hooks) + len(m._forward_hooks) for m in network.modules())


def test_statistics_equal_those_computed_by_hand():
    network = small_network()
    images = torch.randn(2, 3, 5, 4)
    tap = BatchNormTap(network)
    with torch.no_grad(), tap.open() as found:
        network(images)
    assert [statistics.name for statistics in found] == ["1", "4"]  # in order, without the 1x1 input of the last
    with torch.no_grad():
        inputs = {"1": network[0](images), "4": network[:4](images)}
    for statistics in found:
        means, variances = by_hand(inputs[statistics.name].double())
        np.testing.assert_allclose(statistics.mean.numpy(), means, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(statistics.var.numpy(), variances, rtol=1e-4)
        layer = network[int(statistics.name)]
        assert torch.equal(statistics.running_mean, layer.running_mean)
        assert torch.equal(statistics.running_var, layer.running_var)


def test_the_variance_is_biased():
    network = nn.Sequential(nn.BatchNorm2d(1)).eval()
    with BatchNormTap(network).open() as found:
        network(torch.tensor([0.0, 2.0]).view(1, 1, 1, 2))
    assert found[0].var.item() == 1.0  # the unbiased one is 2


def test_a_single_column_is_no_single_pixel():
    network = nn.Sequential(nn.BatchNorm2d(2)).eval()
    with BatchNormTap(network).open() as found:
        network(torch.randn(1, 2, 1, 1))
        assert found == []
        network(torch.randn(1, 2, 3, 1))
        assert len(found) == 1


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_gradients_of_both_statistics_equal_those_of_var_mean(layout: torch.memory_format):
    layer = nn.BatchNorm2d(5).eval()
    images = (3 + 2 * torch.randn(2, 5, 6, 7)).contiguous(memory_format=layout).requires_grad_()
    pull_mean, pull_var = torch.randn(5), torch.randn(5)
    with BatchNormTap(layer).open() as found:
        layer(images)
    (gradient,) = torch.autograd.grad((pull_mean * found[0].mean + pull_var * found[0].var).sum(), images)
    var, mean = torch.var_mean(images.double(), dim=(0, 2, 3), correction=0)
    (expected,) = torch.autograd.grad((pull_mean * mean + pull_var * var).sum(), images)
    torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-7)
    of_each = torch.var_mean(images.double(), dim=(2, 3), correction=0)[::-1]
    for one, wanted in zip(found[0].images, of_each, strict=True):
        torch.testing.assert_close(one.double(), wanted, rtol=1e-5, atol=1e-5)
        assert not one.requires_grad


def test_statistics_carry_a_gradient_to_the_images():
    network = small_network().requires_grad_(False)
    images = torch.randn(1, 3, 5, 5, requires_grad=True)
    with BatchNormTap(network).open() as found:
        network(images)
    (gradient,) = torch.autograd.grad(found[-1].var.sum(), images)
    assert gradient.abs().max() > 0


def test_bf16_maps_are_summed_in_fp32():
    network = small_network()
    images = torch.randn(2, 3, 64, 64) + 3
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16), BatchNormTap(network).open() as found:
        network(images)
        seen = network[0](images)
    assert seen.dtype == torch.bfloat16
    assert found[0].mean.dtype == found[0].var.dtype == torch.float32
    np.testing.assert_allclose(found[0].mean.numpy(), seen.double().mean((0, 2, 3)).numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found[0].var.numpy(), seen.double().var((0, 2, 3), correction=0).numpy(), rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_many_pixels_do_not_round_the_sums_away(dtype, layout):
    images = (torch.randn(8, 2, 256, 352) + torch.tensor([3.0, 30.0]).view(1, 2, 1, 1)).to(dtype)
    layer = nn.BatchNorm2d(2).eval()
    with torch.no_grad(), BatchNormTap(layer).open() as found:
        layer(images.contiguous(memory_format=layout))
    var, mean = torch.var_mean(images.double(), dim=(0, 2, 3), correction=0)
    np.testing.assert_allclose(found[0].mean.numpy(), mean.numpy(), rtol=1e-5)
    np.testing.assert_allclose(found[0].var.numpy(), var.numpy(), rtol=1e-4)


@pytest.mark.parametrize(
    "make",
    [
        nn.BatchNorm2d,
        nn.SyncBatchNorm,
        timm.layers.BatchNormAct2d,
        timm.layers.FrozenBatchNormAct2d,
        torchvision.ops.FrozenBatchNorm2d,
    ],
)
def test_every_kind_of_layer_is_seen(make):
    network = nn.Sequential(nn.Identity(), make(3)).eval()
    network[1].running_mean.fill_(0.25)
    images = torch.randn(2, 3, 4, 4)
    with BatchNormTap(network).open() as found:
        network(images)
    assert [statistics.name for statistics in found] == ["1"]
    np.testing.assert_allclose(found[0].mean.numpy(), by_hand(images)[0], rtol=1e-4, atol=1e-6)
    assert found[0].running_mean.tolist() == [0.25] * 3
    assert check_statistics(network, "x") == 1


def test_layers_without_running_statistics_are_not_seen():
    network = nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False), nn.BatchNorm2d(3), nn.GroupNorm(1, 3)).eval()
    assert list(batchnorm_layers(network)) == ["1"]


def test_each_opening_starts_with_an_empty_list():
    network, tap = small_network(), BatchNormTap(small_network())
    tap = BatchNormTap(network)
    for _ in range(2):
        with tap.open() as found:
            network(torch.randn(1, 3, 5, 5))
        assert len(found) == 2
    network(torch.randn(1, 3, 5, 5))
    assert len(found) == 2


@pytest.mark.parametrize("make", [BatchNormTap, lambda network: FeatureTap(network, ("1", "3"))])
def test_no_hook_remains_even_after_an_exception(make):
    network = small_network()
    tap = make(network)
    assert hooks_of(network) == 0
    with tap.open():
        assert hooks_of(network) > 0
    assert hooks_of(network) == 0
    with pytest.raises(RuntimeError), tap.open():
        network(torch.randn(1, 7, 5, 5))
    assert hooks_of(network) == 0


def test_features_come_in_the_order_of_execution():
    class Pyramid(nn.Module):
        def forward(self, x):
            return [x, x[..., ::2, ::2]]

    network = nn.Sequential(nn.Conv2d(3, 4, 1), Pyramid()).eval()
    images = torch.randn(2, 3, 6, 6)
    with FeatureTap(network, ("1", "0")).open() as features:
        network(images)
    assert [tuple(f.shape) for f in features] == [(2, 4, 6, 6), (2, 4, 3, 3)]
    assert torch.equal(features[0], network[0](images))


class Unfamiliar(nn.Module):
    """Two scales, an attention over pixels, a stage that runs twice, and a head that is upsampled."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.Dropout(0.5))
        self.twice, self.deep, self.table = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 8, 2, 2), nn.Identity()
        self.pooled, self.head = nn.AdaptiveAvgPool2d(1), nn.Sequential(nn.Conv2d(8, 5, 1), nn.Upsample(scale_factor=4))

    def forward(self, images):
        x = self.deep(self.twice(self.twice(self.stem(images))))
        table = self.table(x.flatten(2).transpose(1, 2) @ x.flatten(2))
        return {"out": self.head(x + self.pooled(x) + table.mean())}


def test_where_the_maps_of_an_unfamiliar_network_are_is_found_by_one_image():
    """The last at each stride, without the logits; nothing of the network changes, and it is asked once."""
    network = Adapter(Unfamiliar(), 5, Sizes(4))
    network.network.stem.eval()
    modes, before = [module.training for module in network.modules()], copy.deepcopy(network.state_dict())
    torch.manual_seed(1)
    drawn = torch.rand(1)
    torch.manual_seed(1)
    assert network.features == ("stem", "deep") and torch.equal(torch.rand(1), drawn)
    assert [module.training for module in network.modules()] == modes and hooks_of(network) == 0
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    images = torch.randn(2, 3, 8, 12)
    with FeatureTap(network.network, network.features).open() as features:
        network.eval()(images)
    assert [tuple(maps.shape) for maps in features] == [(2, 4, 4, 6), (2, 8, 2, 3)]
    assert torch.equal(features[0], network.network.stem(images))
    network.network.forward = None
    assert network.features == ("stem", "deep"), "not found anew"
    assert Adapter(Unfamiliar(), 5, features=["deep"]).features == ("deep",)
    with pytest.raises(TeacherError, match="no submodule 'layer3' to tap; the network's own are stem, stem.0"):
        Adapter(Unfamiliar(), 5, features=["layer3"])
    with pytest.raises(TeacherError, match="no submodule of the network gives"):
        Adapter(nn.Conv2d(3, 5, 1), 5).features  # noqa: B018 - it is looked for


def test_an_unknown_submodule_is_named():
    with pytest.raises(TeacherError, match="no submodule 'encoder' to tap") as caught:
        FeatureTap(small_network())
    assert "\n" not in str(caught.value)


def test_untouched_statistics_moves_no_buffer_even_with_nan():
    network = nn.Sequential(small_network(), nn.Flatten(), nn.BatchNorm1d(2)).train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with untouched_statistics(network):
        network(torch.full((2, 3, 5, 5), float("nan")))
        network(torch.randn(2, 3, 5, 5))
    for key, value in network.state_dict().items():
        assert torch.equal(value, before[key]), key
    network(torch.randn(2, 3, 5, 5))
    assert not torch.equal(network[0][1].running_mean, before["0.1.running_mean"])
    assert network[0][1].num_batches_tracked == before["0.1.num_batches_tracked"] + 1


def test_untouched_statistics_normalises_by_the_batch():
    network = small_network().train()
    images = torch.randn(2, 3, 5, 5)
    with untouched_statistics(network):
        inside = network(images)
    assert torch.equal(inside, network(images))


def test_untouched_statistics_puts_the_flags_back_after_an_exception():
    network = nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm2d(3, track_running_stats=False))
    with pytest.raises(RuntimeError), untouched_statistics(network):
        network(torch.randn(1, 5, 4, 4))
    assert [layer.track_running_stats for layer in network] == [True, False]


def test_a_teacher_without_batchnorm_is_an_error():
    with pytest.raises(
        TeacherError, match="x.safetensors: the teacher has no BatchNorm layer .*; set weights.bn=0"
    ) as caught:
        check_statistics(nn.Sequential(nn.Conv2d(3, 3, 1), nn.GroupNorm(1, 3)), "x.safetensors")
    assert "\n" not in str(caught.value)


def test_statistics_that_were_never_trained_are_an_error():
    with pytest.raises(TeacherError, match="x.safetensors: 3 of 3 BatchNorm layers were never trained"):
        check_statistics(small_network(trained=False), "x.safetensors")
    assert check_statistics(small_network(), "x") == 3


def test_not_a_number_is_no_training():
    network = small_network()
    for layer in batchnorm_layers(network).values():
        layer.running_mean.fill_(float("nan"))
    with pytest.raises(TeacherError, match="3 of 3"):
        check_statistics(network, "x")


class Maps(nn.LayerNorm):
    """Of maps (N,C,H,W), by a name that does not say so, as smp's SegFormer has it."""

    def forward(self, x):
        return super().forward(x.flatten(2).transpose(1, 2)).transpose(1, 2).reshape(x.shape)


@pytest.mark.parametrize("side", [5, 6])
def test_a_layer_norm_of_maps_is_heard_channel_by_channel_at_any_width(side):
    torch.manual_seed(0)
    last, x = nn.LayerNorm(6), torch.randn(2, 6, 4, side)
    torch.testing.assert_close(channel_maps(Maps(6), x), x)
    torch.testing.assert_close(channel_maps(last, x.movedim(1, -1)), x)
    torch.testing.assert_close(channel_maps(Maps(6, elementwise_affine=False), x), x)
    assert channel_maps(last, x.flatten(2).transpose(1, 2)).shape == (2, 6, 4 * side, 1)


def test_batchnorm_by_another_name_is_heard_at_its_input():
    class BN(nn.BatchNorm2d):
        pass

    torch.manual_seed(0)
    network = nn.Sequential(BN(3)).eval()
    network[0].running_mean.normal_(), network[0].running_var.uniform_(2, 3)
    x = torch.randn(2, 3, 4, 5)
    with BatchNormTap(network).open() as found:
        network(x)
    torch.testing.assert_close(found[0].mean, x.mean((0, 2, 3)))
