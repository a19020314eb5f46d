"""The one door to networks: size rule, output forms, heads, and errors about weights that do not fit."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from segkd.foundation.errors import RecipeError, TeacherError
from segkd.models.adapters import Adapter, as_logits, flops_of, parameters_of
from segkd.models.building import create_network
from segkd.models.family import Sizes
from segkd.models.weights import load_weights
from tests.work import work_below

TINY = {"channels": [8, 8, 16, 16]}
ARCHITECTURES = ["DeepLabV3", "DeepLabV3Plus", "FPN", "PAN", "PSPNet", "Unet", "Segformer"]


class Strict(nn.Module):
    """A network of stride 4 that refuses other sizes; its logits come as `form` makes them, at `scale` of the image."""

    def __init__(self, form=lambda logits: logits, scale: int = 1) -> None:
        super().__init__()
        self.conv, self.form, self.scale = nn.Conv2d(3, 5, 3, padding=1), form, scale

    def forward(self, images):
        if images.shape[-2] % 4 or images.shape[-1] % 4:
            raise RuntimeError("the stride does not divide the size")
        return self.form(F.avg_pool2d(self.conv(images), self.scale) if self.scale > 1 else self.conv(images))


def network(arch: str, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return create_network(arch, "tu-resnet10t", 5, TINY).eval()


@pytest.mark.parametrize("size", [(1, 1), (7, 13), (8, 9), (12, 16), (5, 4)])
def test_pad_and_crop_equal_an_explicit_pad_and_crop(size):
    images = torch.randn(2, 3, *size)
    height, width = size
    below, beside = (-height) % 4, (-width) % 4
    padded = torch.from_numpy(np.pad(images.numpy(), ((0, 0), (0, 0), (0, below), (0, beside)), mode="edge"))
    model = Strict()
    with torch.no_grad():
        wanted = model(padded)[:, :, :height, :width]
        assert torch.equal(Adapter(model, 5, sizes=Sizes(4))(images), wanted)
    assert torch.equal(Sizes(4).fitted(images), padded)


def test_a_size_that_fits_is_not_copied():
    images = torch.randn(1, 3, 8, 12)
    assert Sizes(4).fitted(images) is images


@pytest.mark.parametrize(
    "form",
    [
        lambda logits: {"out": logits, "aux": logits + 1},
        lambda logits: {"aux": logits + 1, "logits": logits},
        lambda logits: (logits, logits.mean()),
        lambda logits: [[logits], None],
        lambda logits: {"out": (logits,)},
    ],
)
def test_outputs_of_all_forms(form):
    torch.manual_seed(0)
    model = Strict(form)
    images = torch.randn(2, 3, 8, 9)
    with torch.no_grad():
        wanted = model.conv(Sizes(4).fitted(images))[..., :8, :9]
        assert torch.equal(Adapter(model, 5, sizes=Sizes(4))(images), wanted)


def test_low_resolution_logits_are_brought_to_the_padded_size_before_the_crop():
    model = Strict(scale=4)
    images = torch.randn(2, 3, 10, 13)
    with torch.no_grad():
        wanted = F.interpolate(model(Sizes(4).fitted(images)), (12, 16), mode="bilinear", align_corners=False)
        assert torch.equal(Adapter(model, 5, sizes=Sizes(4))(images), wanted[..., :10, :13])


@pytest.mark.parametrize("output", [None, {}, {"masks": torch.zeros(1, 2, 3, 3)}, [], torch.zeros(1, 2, 3), "logits"])
def test_an_output_without_logits_is_a_one_line_error(output):
    with pytest.raises(TeacherError, match="no \\(N,C,H,W\\) tensor") as caught:
        as_logits(output)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_logits_at_the_head_upsampled_are_the_logits(arch):
    adapter = Adapter(network(arch), 5)
    images = torch.randn(1, 3, 128, 160)
    with torch.no_grad():
        full, head = adapter(images), adapter(images, at_head=True)
        assert head.shape == (1, 5, 128 // adapter.head_stride, 160 // adapter.head_stride)
        again = F.interpolate(head, full.shape[-2:], mode="bilinear", align_corners=True)
        assert torch.equal(adapter.from_head(head), full)
    assert torch.allclose(again, full, atol=1e-6)


def test_the_heads_own_activation_follows_its_upsampling():
    torch.manual_seed(0)
    adapter = Adapter(create_network("FPN", "tu-resnet10t", 5, TINY | {"activation": "softmax2d"}).eval(), 5)
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        full = adapter(images)
        assert torch.equal(adapter.from_head(adapter(images, at_head=True)), full)
    assert torch.allclose(full.sum(1), torch.ones(1, 64, 96), atol=1e-5)


def test_strides_are_read_off_the_network():
    expected = {"DeepLabV3": (8, 8), "DeepLabV3Plus": (16, 4), "FPN": (32, 4), "Unet": (32, 1)}
    found = {arch: Adapter(network(arch), 5) for arch in expected}
    assert {arch: (each.stride, each.head_stride) for arch, each in found.items()} == expected
    unknown = Adapter(nn.Conv2d(3, 5, 1), 5)
    assert (unknown.stride, unknown.head_stride) == (32, 1)


def test_at_head_of_an_odd_size_covers_the_image_and_no_padding():
    adapter = Adapter(network("FPN"), 5)
    images = torch.randn(1, 3, 33, 49)
    with torch.no_grad():
        head = adapter(images, at_head=True)
        padded = adapter(Sizes(32).fitted(images), at_head=True)
    assert torch.equal(head, padded[..., :9, :13])


def test_at_head_of_a_network_without_upsampling_is_the_full_output():
    adapter = Adapter(Strict(), 5, sizes=Sizes(4))
    images = torch.randn(1, 3, 6, 7)
    with torch.no_grad():
        assert torch.equal(adapter(images, at_head=True), adapter(images))


def test_an_option_that_is_null_is_left_out():
    options = {"channels": None, "stem_width": None, "decoder_channels": 16, "encoder_depth": None}
    assert create_network("DeepLabV3Plus", "mobilenet_v2", 5, options).segmentation_head[0].in_channels == 16


@pytest.mark.parametrize(
    ("arch", "encoder", "options"),
    [
        ("NoSuchNet", "resnet18", {}),
        ("Unet", "resnet18", {"decoder_channels": 5}),
        ("Unet", "resnet18", {"checkpoint_path": "x.pth"}),
        ("Unet", "tu-resnet18", {"checkpoint_path": "x.pth"}),
        ("Unet", "tu-resnet18", {"pretrained_cfg": "x"}),
        ("Unet", "tu-resnet18", {"pretrained_of_tomorrow": "x"}),
        ("Unet", "tu-resnet18", {"cache_dir": "x"}),
        ("Unet", "tu-resnet18", {"features_only": False}),
        ("Unet", "tu-resnet18", {"no_such_option": 1}),
        ("UPerNet", "tu-swin_tiny_patch4_window7_224", {"num_heads": [0, 1, 1, 1]}),
        ("FPN", "tu-hf-hub:nobody/nothing", {}),
        ("FPN", "nosuchencoder", {}),
        ("FPN", "tu-nosuchencoder", {}),
        ("FPN", "resnet18", {"no_such_option": 1}),
        ("DeepLabV3", "resnet18", {"encoder_output_stride": 7}),
    ],
)
def test_what_smp_cannot_build_is_a_recipe_error_of_one_line(arch, encoder, options):
    with pytest.raises(RecipeError) as caught:
        create_network(arch, encoder, 5, options)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("model") and (arch if arch == "NoSuchNet" else encoder) in str(caught.value)


@pytest.mark.parametrize(
    ("arch", "options", "megabytes"),
    [
        ("Unet", {"decoder_channels": [10**6, 10**6, 16, 16, 16]}, 64),
        ("DeepLabV3", {"decoder_channels": 2**31}, 64),
        ("Unet", {"layers": [100_000, 1, 1, 1], "channels": [8, 8, 8, 8]}, 1),
    ],
)
def test_a_network_that_no_memory_holds_is_refused_before_it_is_made(arch, options, megabytes):
    encoder = "tu-resnet10t" if "layers" in options else "resnet18"
    with (
        work_below(calls=4_000_000, megabytes=400),
        pytest.raises(RecipeError, match="cannot be built: it asks for more than"),
    ):
        create_network(arch, encoder, 5, options, megabytes=megabytes)


def test_creating_a_network_loads_no_weights():
    assert network("FPN").config["encoder_weights"] is None


def test_load_weights_loads_every_tensor():
    source, target = network("FPN", seed=1), network("FPN", seed=2)
    load_weights(target, {key: value.clone() for key, value in source.state_dict().items()}, "x.safetensors")
    for key, value in target.state_dict().items():
        assert torch.equal(value, source.state_dict()[key]), key


def test_half_precision_weights_become_the_networks_own_type():
    source, target = network("FPN", seed=1), network("FPN", seed=2)
    halves = {k: v.half() if v.is_floating_point() else v for k, v in source.state_dict().items()}
    load_weights(target, halves, "x.safetensors")
    assert all(p.dtype == torch.float32 for p in target.parameters())
    key = "segmentation_head.0.weight"
    assert torch.equal(target.state_dict()[key], source.state_dict()[key].half().float())


def test_missing_and_unexpected_keys_are_one_line_with_the_first_three():
    model = nn.Sequential(*(nn.Conv2d(2, 2, 1) for _ in range(3)))
    state = {
        "a": torch.zeros(1),
        "b": torch.zeros(1),
        "c": torch.zeros(1),
        "d": torch.zeros(1),
        "2.bias": torch.zeros(2),
    }
    with pytest.raises(TeacherError) as caught:
        load_weights(model, state, "x.safetensors")
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith("x.safetensors: ")
    assert "missing 0.weight, 0.bias, 1.weight ..." in line
    assert "unexpected a, b, c ..." in line
    assert "1.bias" not in line
    assert ", d" not in line


def test_three_missing_keys_need_no_dots():
    model = nn.Sequential(nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1))
    with pytest.raises(TeacherError, match="missing 0.bias, 1.weight, 1.bias;") as caught:
        load_weights(model, {"0.weight": torch.zeros(2, 2, 1, 1)}, "x.pt")
    assert "unexpected" not in str(caught.value)


def test_another_shape_is_one_line_with_both_and_changes_nothing():
    model = nn.Conv2d(3, 11, 1)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = {"weight": torch.zeros(11, 3, 1, 1), "bias": torch.zeros(13)}
    with pytest.raises(TeacherError, match=r"bias: expected shape \(11,\), found \(13,\)") as caught:
        load_weights(model, state, "x.pt")
    assert "\n" not in str(caught.value)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_counts_of_a_convolution():
    model = nn.Conv2d(3, 8, 3, padding=1).train()
    assert parameters_of(model) == 3 * 8 * 9 + 8
    assert flops_of(model, 10, 12) == 2 * 3 * 8 * 9 * 10 * 12
    assert model.training


class Own(nn.Module):
    """Makes a tensor on the CPU in its forward, as position encodings are; `breaks`: it takes no single image."""

    def __init__(self, breaks: bool = False) -> None:
        super().__init__()
        self.layer, self.breaks = nn.Conv2d(3, 8, 3, padding=1), breaks

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.breaks and len(x) < 2:
            raise IndexError("one image")
        return self.layer(x) * torch.linspace(0, 1, x.shape[-1])


def test_a_network_that_makes_tensors_of_its_own_is_counted_too():
    assert flops_of(Own(), 10, 12) == 2 * 3 * 8 * 9 * 10 * 12


def test_what_cannot_be_counted_is_none_and_the_network_stays_as_it_was():
    model = Own(breaks=True).train()
    assert flops_of(model, 10, 12) is None
    assert model.training and all(p.device.type == "cpu" for p in model.parameters())
