"""Quick layers against torch's own: values and gradients, in every way that a layer can be computed."""

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from segkd.machine import layers
from segkd.machine.layers import QuickConv2d, QuickPooling, QuickUpsample, quicken
from segkd.models.adapters import Adapter, flops_of
from segkd.models.building import create_network

WAYS = {  # channels, groups, stride, dilation, (height, width), and what computes it
    "split into plain maps": (6, 6, 1, 2, (9, 12), "_apart"),
    "single taps, depthwise": (6, 6, 1, 5, (7, 12), "_DepthwiseTaps"),
    "the middle tap alone": (6, 6, 1, 30, (7, 12), "_DepthwiseTaps"),
    "strided": (6, 6, 2, 1, (9, 12), None),
    "single taps, dense": (6, 1, 1, 6, (8, 9), "_DenseTaps"),
    "the middle tap alone, dense": (6, 1, 1, 30, (8, 9), "_DenseTaps"),
    "dense as ever": (6, 1, 1, 2, (8, 9), "_dilated"),
}


def pair(channels, groups, stride, dilation, bias=False, kernel=3, dtype=torch.float64):
    """torch's own layer, and the same as a quick one."""
    padding = dilation * (kernel // 2)
    plain = nn.Conv2d(channels, channels, kernel, stride, padding, dilation, groups, bias).to(dtype)
    twin = quicken(nn.Sequential(copy.deepcopy(plain)))[0]
    assert type(twin) is QuickConv2d
    return plain, twin


def both(plain, twin, images):
    """Outputs and gradients by images and parameters of two layers, for the same slopes."""
    results = []
    for layer in (plain, twin):
        x = images.clone().requires_grad_()
        y = layer(x)
        slopes = torch.randn(y.shape, dtype=y.dtype, generator=torch.Generator().manual_seed(1))
        results.append((y.detach(), *torch.autograd.grad(y, (x, *layer.parameters()), slopes)))
    return zip(*results, strict=True)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("bias", [False, True])
def test_values_and_gradients_are_torchs_own(monkeypatch, way, bias):
    channels, groups, stride, dilation, size, means = WAYS[way]
    plain, twin = pair(channels, groups, stride, dilation, bias)
    used = []
    if means is not None:
        owner, name = (getattr(layers, means), "forward") if means.endswith("Taps") else (layers, means)
        own = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *given: used.append(means) or own(*given))
    for one, other in both(plain, twin, torch.randn(2, channels, *size, dtype=torch.float64)):
        torch.testing.assert_close(other, one, rtol=1e-12, atol=1e-12)
    assert means is None or used


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 3), st.integers(1, 40), st.sampled_from([1, 3, 5]), st.integers(1, 13), st.integers(1, 13),
    st.booleans(), st.integers(1, 3),
)  # fmt: skip
def test_any_size_dilation_and_kernel(n, dilation, kernel, height, width, depthwise, stride):
    plain = nn.Conv2d(4, 4, kernel, stride, dilation * (kernel // 2), dilation, 4 if depthwise else 1).double()
    twin = quicken(nn.Sequential(copy.deepcopy(plain)))[0]
    for one, other in both(plain, twin, torch.randn(n, 4, height, width, dtype=torch.float64)):
        torch.testing.assert_close(other, one, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("channels", [1, 2, 3, 7, 15])
@pytest.mark.parametrize(("stride", "size"), [(2, (16, 16)), (4, (16, 8)), ((2, 1), (9, 7))])
def test_a_strided_1x1_convolution_of_few_channels_does_not_end_the_process(channels, stride, size):
    """torch's own writes past the end of the kernel's gradient, on processors without AVX-512."""
    torch.manual_seed(0)
    plain = nn.Conv2d(channels, 48, 1, stride, bias=channels == 3)
    twin = quicken(nn.Sequential(copy.deepcopy(plain).to(memory_format=torch.channels_last)))[0]
    assert type(twin) is QuickConv2d, "torch would end the process"
    images = torch.randn(2, channels, *size)
    slopes = torch.randn(plain(images).shape)
    for _ in range(12):
        results = []
        for layer, layout in ((plain, torch.contiguous_format), (twin, torch.channels_last)):
            x = images.contiguous(memory_format=layout).requires_grad_()
            results.append((y := layer(x), *torch.autograd.grad(y, (x, *layer.parameters()), slopes)))
        for one, other in zip(*results, strict=True):
            torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_in_bf16_it_is_as_near_to_the_truth_as_torchs_own(way, layout):
    channels, groups, stride, dilation, size, _ = WAYS[way]
    plain, twin = pair(channels, groups, stride, dilation, dtype=torch.float32)
    images = torch.randn(2, channels, *size).contiguous(memory_format=layout)
    with torch.autocast("cpu", torch.bfloat16):
        found = list(both(plain, twin, images))
    truth = both(plain, plain, images)
    for (own, ours), (exact, _) in zip(found, truth, strict=True):
        assert ours.dtype == own.dtype
        assert (ours - exact).abs().max() <= 1.5 * (own - exact).abs().max() + 0.004 * exact.abs().max()


@pytest.mark.parametrize("way", WAYS)
def test_without_gradients_too(way):
    channels, groups, stride, dilation, size, _ = WAYS[way]
    plain, twin = pair(channels, groups, stride, dilation)
    images = torch.randn(2, channels, *size, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(twin(images), plain(images), rtol=1e-12, atol=1e-12)
    twin.requires_grad_(False)  # as a judge, through which gradients flow to the images
    for one, other in zip(*(gradient(layer, images) for layer in (plain, twin)), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-12, atol=1e-12)


def gradient(layer, images):
    x = images.clone().requires_grad_()
    return torch.autograd.grad(layer(x).square().sum(), x)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 4, 3, padding=1),
        nn.Conv2d(4, 4, 1),
        nn.Conv2d(4, 4, 3, padding=1, groups=4),
        nn.Conv2d(4, 4, 3, padding=2),
        nn.Conv2d(4, 4, 3, dilation=2),
        nn.Conv2d(4, 4, 2, padding=1, dilation=2),
        nn.Conv2d(4, 4, 3, stride=2, padding=2, dilation=2),
        nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=2),
        nn.Conv2d(4, 4, 3, padding=2, dilation=2, padding_mode="reflect"),
        nn.Conv2d(4, 4, 3, padding="same", dilation=2),
        nn.Conv2d(4, 8, 3, padding=2, dilation=2, groups=4),
    ],
)
def test_what_torch_does_well_or_otherwise_stays(layer):
    assert type(quicken(nn.Sequential(layer))[0]) is nn.Conv2d


def test_the_gradient_of_an_upsampling_is_torchs_own():
    plain = nn.Upsample(scale_factor=4, mode="bilinear", align_corners=True)
    twin = quicken(nn.Sequential(copy.deepcopy(plain)))[0]
    assert type(twin) is QuickUpsample
    images = torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    beside, slopes = torch.randn(2, 2, 16, 20), torch.randn(2, 5, 16, 20)
    found = []
    for layer in (plain, twin):
        x = images.clone().requires_grad_()
        found.append(torch.autograd.grad(torch.cat([layer(x), beside], 1), x, slopes)[0])
    torch.testing.assert_close(found[1], found[0], rtol=1e-6, atol=1e-6)


@pytest.fixture(params=[("DeepLabV3", "mobilenet_v2"), ("DeepLabV3Plus", "tu-resnet10t")], ids=["v3", "v3plus"])
def networks(request):
    """The same weights, plain and in an adapter; several layers of the latter are quick."""
    torch.manual_seed(0)
    arch, encoder = request.param
    options = {"channels": [8, 8, 16, 16]} if encoder.startswith("tu-") else {}
    options |= {"decoder_channels": 16, "decoder_aspp_dropout": 0.0}  # what is dropped depends on the memory format
    plain = create_network(arch, encoder, 5, options)
    return plain, Adapter(copy.deepcopy(plain), 5)


def test_a_whole_network_trains_as_before(networks):
    plain, adapter = networks
    assert sum(type(layer) is QuickConv2d for layer in adapter.modules()) >= 3
    assert list(adapter.network.state_dict()) == list(plain.state_dict())
    images = torch.randn(2, 3, 64, 96, dtype=torch.float64)
    found = []
    for network in (plain, copy.deepcopy(adapter)):
        loss = network.double().train()(images).square().mean()
        found.append((loss.detach(), *torch.autograd.grad(loss, list(network.parameters()))))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-8, atol=1e-10)


def test_operations_are_counted_as_the_architecture_has_them(networks):
    from torch.utils.flop_counter import FlopCounterMode

    plain, adapter = networks
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        plain.eval()(torch.zeros(1, 3, 64, 96))
    before = [p.data_ptr() for p in adapter.parameters()]
    assert flops_of(adapter, 64, 96) == counter.get_total_flops()
    assert [p.data_ptr() for p in adapter.parameters()] == before and adapter.training


def test_export_sees_plain_convolutions():
    _, twin = pair(6, 6, 1, 2, dtype=torch.float32)
    size = {2: torch.export.Dim("rows", min=4, max=64)}
    program = torch.export.export(nn.Sequential(twin).eval(), (torch.zeros(1, 6, 12, 12),), dynamic_shapes=(size,))
    images = torch.randn(1, 6, 40, 12)
    wanted = F.conv2d(images, twin.weight, padding=2, dilation=2, groups=6)
    torch.testing.assert_close(program.module()(images), wanted)


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
def test_an_image_pooling_repeats_its_pixel_in_the_maps_own_memory_format(memory_format):
    from segmentation_models_pytorch.decoders.deeplabv3.decoder import ASPPPooling

    plain = ASPPPooling(6, 5).double()
    twin = quicken(nn.Sequential(copy.deepcopy(plain)))[0]
    assert type(twin) is QuickPooling and twin.state_dict().keys() == plain.state_dict().keys()
    images = torch.randn(3, 6, 7, 9, dtype=torch.float64).contiguous(memory_format=memory_format)
    for one, other in both(plain, twin, images):
        torch.testing.assert_close(other, one, rtol=1e-12, atol=1e-12)
    assert twin(images).is_contiguous(memory_format=memory_format)


def test_a_row_of_that_name_that_pools_otherwise_is_left_alone():
    class ASPPPooling(nn.Sequential):
        pass

    rows = nn.Sequential(ASPPPooling(nn.AdaptiveAvgPool2d(2)), ASPPPooling(nn.ReLU()), ASPPPooling())
    assert all(type(row) is ASPPPooling for row in quicken(rows))
