"""SegNet: unpooling against torch's own, the whole network against a plain reading of the paper, sizes, taps, options."""

from inspect import signature

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from segkd.foundation.errors import RecipeError, TeacherError
from segkd.models.adapters import Adapter, flops_of, parameters_of
from segkd.models.building import create_network
from segkd.models.families.segnet import SegNet, unpool
from segkd.models.taps import BatchNormTap, FeatureTap, check_statistics
from segkd.models.teacher import Teacher

# (in, out) of the convolutions at width 64: VGG16's thirteen, and their mirror image.
VGG16 = [(3, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 256), (256, 512), (512, 512), (512, 512),
         (512, 512), (512, 512), (512, 512)]  # fmt: skip
POOLED_AFTER = {2, 4, 7, 10, 13}
UNPOOLED_BEFORE = {0, 3, 6, 9, 11}
FORMATS = [torch.contiguous_format, torch.channels_last]


@pytest.fixture
def deterministic():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def network(width: int = 2, upsample: str = "unpool", classes: int = 5) -> SegNet:
    torch.manual_seed(0)
    made = SegNet(classes, width, upsample)
    for module in made.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
            torch.nn.init.uniform_(module.weight, 0.5, 2)
            torch.nn.init.normal_(module.bias, std=0.3)
    torch.nn.init.normal_(made.segmentation_head.bias)
    return made.eval()


def both_halves(width: int, classes: int) -> list[tuple[int, int]]:
    """(in, out) of all 26 convolutions, in their order."""
    down = [(channels * width // 64 if channels > 3 else 3, out * width // 64) for channels, out in VGG16]
    return [*down, *((out, channels) for channels, out in down[:0:-1]), (width, classes)]


@pytest.mark.parametrize(("width", "total"), [(64, 29_441_419), (16, 1_844_587)])
def test_the_papers_network_has_29_million_parameters(width, total):
    made, plan = SegNet(11, width), both_halves(width, 11)
    norms = sum(2 * out for _, out in plan[:-1])
    assert parameters_of(made) == sum(9 * channels * out for channels, out in plan) + norms + 11 == total
    shapes = [tuple(p.shape) for p in made.parameters() if p.dim() == 4]
    assert shapes == [(out, channels, 3, 3) for channels, out in plan]


def test_operations_are_those_of_the_convolutions():
    pixels = [64 * 96 // 4 ** sum(pooled <= index for pooled in POOLED_AFTER) for index in range(13)]
    pairs = zip(both_halves(4, 5), pixels + pixels[::-1], strict=True)
    assert flops_of(network(4), 64, 96) == sum(2 * 9 * channels * out * places for (channels, out), places in pairs)


@pytest.mark.parametrize("upsample", ["unpool", "bilinear"])
def test_the_network_is_the_papers(upsample):
    made = network(upsample=upsample)
    state = list(made.state_dict().items())
    kernels = [value for key, value in state if value.dim() == 4]
    norms = [value for key, value in state if value.dim() == 1 and "segmentation_head" not in key]
    x = images = torch.randn(2, 3, 64, 96)
    places = []
    for index, kernel in enumerate(kernels):
        if index - 13 in UNPOOLED_BEFORE:
            if upsample == "unpool":
                x = F.max_unpool2d(x, places.pop(), 2)
            else:
                x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        last = index == 25
        x = F.conv2d(x, kernel, made.segmentation_head.bias if last else None, padding=1)
        if not last:
            weight, bias, mean, var = norms[4 * index : 4 * index + 4]
            x = F.relu(F.batch_norm(x, mean, var, weight, bias))
        if index + 1 in POOLED_AFTER:
            x, where = F.max_pool2d(x, 2, 2, return_indices=True)
            places.append(where)
    assert len(kernels) == 26 and len(norms) == 100 and x.shape == (2, 5, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(made(images), x, rtol=1e-4, atol=1e-5)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(
    sizes=st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5), st.integers(1, 6)),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
    layout=st.sampled_from(FORMATS),
    levels=st.integers(1, 9),
    seed=st.integers(0, 99),
)
def test_unpooling_is_that_of_torch(sizes, dtype, layout, levels, seed):
    """Value and both gradients (of the values put back, and of what was pooled); few levels mean many ties."""
    n, c, h, w = sizes
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(levels, (n, c, 2 * h, 2 * w), generator=generator).to(dtype)
    image = (image - levels // 2).contiguous(memory_format=layout).requires_grad_()
    weight = torch.randint(-8, 9, image.shape, generator=generator).to(dtype)
    found = []
    for undo in (unpool, lambda x, indices: F.max_unpool2d(x, indices, 2)):
        pooled, indices = F.max_pool2d(image, 2, return_indices=True)
        spread = undo(pooled, indices)
        found.append((spread.detach(), *torch.autograd.grad((spread * weight).sum(), (pooled, image))))
    assert all(torch.equal(own, theirs) for own, theirs in zip(*found, strict=True))
    assert found[0][0].dtype == dtype


def test_unpooling_keeps_channels_last_and_takes_values_of_any_sign():
    maps = torch.randn(2, 3, 8, 8).to(memory_format=torch.channels_last)
    pooled, indices = F.max_pool2d(maps, 2, return_indices=True)
    values = torch.randn_like(pooled)
    spread = unpool(values, indices)
    assert spread.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(F.max_pool2d(spread.abs(), 2), values.abs())


@pytest.mark.parametrize("layout", FORMATS)
def test_indices_of_bf16_maps_are_right_beyond_what_bf16_counts(layout):
    height, width = 320, 416
    maps = torch.randn(1, 2, height, width, generator=torch.Generator().manual_seed(0)).bfloat16()
    values, indices = F.max_pool2d(maps.contiguous(memory_format=layout), 2, return_indices=True)
    spread = unpool(values, indices)[0].float().numpy()
    windows = maps[0].float().numpy().reshape(2, height // 2, 2, width // 2, 2).transpose(0, 1, 3, 2, 4)
    first = windows.reshape(2, height // 2, width // 2, 4).argmax(-1)  # of equal ones the first, as torch has it
    wanted = np.zeros((2, height, width), np.float32)
    c, y, x = np.indices(first.shape)
    wanted[c, 2 * y + first // 2, 2 * x + first % 2] = windows.max((-1, -2))
    assert (spread == wanted).all()


@pytest.mark.parametrize("upsample", ["unpool", "bilinear"])
def test_a_training_step_is_deterministic(deterministic, upsample):
    made = network(upsample=upsample).to(memory_format=torch.channels_last).train()
    images = torch.randn(2, 3, 64, 32)
    results = []
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16):
            logits = made(images)
        loss = logits.float().square().mean()
        results.append([logits, *torch.autograd.grad(loss, list(made.parameters()))])
    assert logits.dtype == torch.bfloat16 and logits.is_contiguous(memory_format=torch.channels_last)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    assert all(gradient.isfinite().all() for gradient in results[0])
    assert sum(bool(gradient.abs().max() > 0) for gradient in results[0]) > 60


@pytest.mark.parametrize(("size", "good"), [((33, 64), "64x64"), ((64, 40), "64x64"), ((1, 100), "32x128")])
def test_a_size_that_does_not_fit_is_refused_with_one_that_does(size, good):
    with pytest.raises(ValueError, match=f"multiples of 32, not {size[0]}x{size[1]}; pad to {good}"):
        network()(torch.zeros(1, 3, *size))


def test_the_adapter_pads_to_its_stride():
    made = network()
    adapter = Adapter(made, 5)
    assert (adapter.stride, adapter.head_stride) == (32, 1)
    images = torch.randn(1, 3, 37, 51)
    padded = F.pad(images, (0, 13, 0, 27), mode="replicate")
    with torch.no_grad():
        wanted = made(padded)[..., :37, :51]
        assert torch.equal(adapter(images), wanted)
        assert torch.equal(adapter(images, at_head=True), wanted)


def test_taps_hear_every_layer_of_a_segnet_teacher():
    teacher = Teacher(network(), ["a", "b", "c", "d", "e"], [0.5] * 3, [0.5] * 3)
    assert check_statistics(teacher.network, "x") == 25
    with pytest.raises(TeacherError, match="25 of 25 BatchNorm layers were never trained"):
        check_statistics(SegNet(5, 2), "x")
    images = torch.randn(2, 3, 64, 96, requires_grad=True)
    with BatchNormTap(teacher.network).open() as statistics, FeatureTap(teacher.network).open() as features:
        teacher(images)
    assert len({found.name for found in statistics}) == len(statistics) == 25
    assert [tuple(maps.shape) for maps in features] == [(2, 16, 2, 3), (2, 2, 64, 96)]
    (gradient,) = torch.autograd.grad(sum(found.var.sum() for found in statistics), images)
    assert gradient.abs().max() > 0
    first = F.conv2d(images, teacher.network.encoder.stages[0][0].weight, padding=1)
    torch.testing.assert_close(statistics[0].mean, first.mean((0, 2, 3)))


def test_it_is_built_by_name_with_its_options():
    for arch in ("SegNet", "segnet"):
        made = create_network(arch, None, 7, {"width": 3, "upsample": "bilinear"})
        assert isinstance(made, SegNet) and made.config == {
            "_model_class": "SegNet",
            "classes": 7,
            "width": 3,
            "upsample": "bilinear",
        }
    assert create_network("SegNet", None, 7, {"width": 3, "channels": None}).config["upsample"] == "unpool"
    assert signature(SegNet).parameters["width"].default == 64


def test_weights_follow_the_global_seed():
    states = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        states.append(create_network("SegNet", None, 5, {"width": 2}).state_dict()["encoder.stages.0.0.weight"])
    assert torch.equal(states[0], states[1]) and not torch.equal(states[0], states[2])


@pytest.mark.parametrize(
    ("encoder", "options", "message"),
    [
        (None, {"widht": 16}, "no option 'widht'"),
        (None, {"channels": [8, 8]}, "no option 'channels'"),
        (None, {"width": 0}, "width: expected a whole number 1..1024, not 0"),
        (None, {"width": 16.0}, "width: .* not 16.0"),
        (None, {"width": True}, "width: .* not True"),
        (None, {"width": 4096}, "width: .* not 4096"),
        (None, {"upsample": "nearest"}, "upsample: expected unpool or bilinear, not 'nearest'"),
        (None, {"upsample": ["unpool"]}, "upsample: .* not "),
        ("vgg16_bn", {}, "set encoder: null instead of vgg16_bn"),
    ],
)
def test_wrong_options_are_one_line_that_lists_the_known_ones(encoder, options, message):
    with pytest.raises(RecipeError, match=f"^model.*SegNet.*{message}") as caught:
        create_network("SegNet", encoder, 5, options)
    line = str(caught.value)
    assert "\n" not in line and len(line) < 300
    assert "no option" not in message or line.endswith("it has upsample, width")
