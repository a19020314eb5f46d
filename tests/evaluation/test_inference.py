"""Windows, scales and mirror images against loops in NumPy and resizing by Pillow."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

from segkd.data.classes import Classes, listed
from segkd.data.samples import Sample
from segkd.evaluation.evaluate import Shown, evaluate, predict
from segkd.evaluation.inference import Averaged, Inference, Sliding, starts
from segkd.foundation.errors import NumbersError, UsageError
from segkd.foundation.resize import reduced
from segkd.models.adapters import Adapter
from segkd.models.building import create_network
from segkd.models.masks import class_ids, normalised
from tests.work import memory_below

MIX = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)


class Placed(nn.Module):
    """Logits that depend on the pixel, on its place in the window, and on the whole window: no two windows agree."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.Parameter(torch.zeros(1))
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.shapes.append(tuple(x.shape[-2:]))
        rows, columns = torch.arange(x.shape[-2])[:, None], torch.arange(x.shape[-1])
        place = torch.stack([rows * 0 + columns, 2.0 * rows - columns, rows + 0.0 * columns, 0.1 * rows * columns]) / 10
        return torch.einsum("cd,ndhw->nchw", torch.from_numpy(MIX), x) + place + x.mean((1, 2, 3), keepdim=True)


def placed(image: np.ndarray) -> np.ndarray:
    """The same for one image (3,H,W), in NumPy."""
    rows, columns = np.mgrid[: image.shape[1], : image.shape[2]]
    place = np.stack([columns, 2 * rows - columns, rows, 0.1 * rows * columns]) / 10
    return np.tensordot(MIX.astype(np.float64), image, 1) + place + image.mean()


def slid(image: np.ndarray, high: int, wide: int) -> np.ndarray:
    """Sliding windows over one image (3,H,W), pixel by pixel: each pixel looks for the windows that hold it."""
    height, width = image.shape[1:]
    high, wide = min(high, height), min(wide, width)
    places = []
    for length, side in ((height, high), (width, wide)):
        place, along = 0, []
        while place + side < length:
            along.append(place)
            place += max(1, int(side * 2 / 3))
        places.append([*along, length - side])
    windows = {(y, x): placed(image[:, y : y + high, x : x + wide]) for y in places[0] for x in places[1]}
    result = np.zeros((4, height, width))
    for row in range(height):
        for column in range(width):
            over = [
                logits[:, row - y, column - x]
                for (y, x), logits in windows.items()
                if y <= row < y + high and x <= column < x + wide
            ]
            result[:, row, column] = np.mean(over, 0)
    return result


def resized(channels: np.ndarray, height: int, width: int) -> np.ndarray:
    """(K,H,W) resized by Pillow, bilinear over the area of the new pixel."""
    pictures = [Image.fromarray(channel.astype(np.float32)) for channel in channels]
    return np.stack([np.asarray(p.resize((width, height), Image.Resampling.BILINEAR)) for p in pictures])


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(0))
    return powers / powers.sum(0)


def images(count: int, height: int, width: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(seed))


@given(st.integers(1, 23), st.integers(1, 23), st.integers(1, 12), st.integers(1, 12))
@settings(max_examples=40, deadline=None)
def test_sliding_is_the_loop(height: int, width: int, high: int, wide: int) -> None:
    x = images(2, height, width)
    found = Sliding(Placed(), (high, wide))(x).numpy()
    for one, image in zip(found, x.numpy(), strict=True):
        np.testing.assert_allclose(one, slid(image, high, wide), atol=1e-4)


def test_all_windows_have_the_size_asked_for_and_overlap_by_a_third() -> None:
    network = Placed()
    Sliding(network, (9, 12))(images(1, 21, 40))
    assert network.shapes == [(9, 12)] * 15  # rows 0, 6, 12; columns 0, 8, 16, 24, 28: the border


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_window_is_the_network_itself(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    network = Adapter(create_network("Linknet", "mobilenet_v2", 5, {"encoder_depth": 3}), 5).eval()
    x = images(2, 40, 56)
    with torch.inference_mode(), torch.autocast("cpu", dtype, enabled=dtype is torch.bfloat16):
        whole = network(x)
        assert whole.dtype == dtype and whole.std() > 0
        assert torch.equal(Sliding(network, (40, 56))(x), whole.float())


@pytest.mark.parametrize("window", [(64, 64), (64, 40), (32, 96)])
def test_a_window_larger_than_the_image_is_cut_to_it_and_that_is_told(window: tuple[int, int]) -> None:
    """Padding showed the network an image that is not there, and its pooling changed what it said of all pixels."""
    network, inference = Placed(), Inference(window)
    x = images(1, 33, 50)
    shown = inference.of(network)
    assert not inference.notes(shown)
    logits = shown(x)
    assert all(high <= 33 and wide <= 50 for high, wide in network.shapes)
    if window == (64, 64):
        assert torch.equal(logits, network(x))
    (line,) = inference.notes(shown)
    assert f"slide {window[0]}x{window[1]}" in line and "cut" in line
    small = Inference((32, 32))
    fits = small.of(Placed())
    fits(x)
    assert not small.notes(fits)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("scales", [(1.0,), (0.75, 1.0, 1.25), (0.4, 2.0)])
def test_scales_and_mirror_images(scales: tuple[float, ...], flip: bool) -> None:
    x = images(2, 13, 18)
    found = Averaged(Placed(), scales, flip)(x).numpy()
    assert np.abs(found.sum(1) - 1).max() < 1e-5
    for one, image in zip(found, x.numpy(), strict=True):
        wanted = []
        for scale in scales:
            scaled = resized(image, round(13 * scale), round(18 * scale))
            wanted.append(softmax(resized(placed(scaled), 13, 18)))
            if flip:
                mirrored = placed(scaled[:, :, ::-1])[:, :, ::-1]
                wanted.append(softmax(resized(mirrored, 13, 18)))
        np.testing.assert_allclose(one, np.mean(wanted, 0), atol=2e-5)


def test_windows_of_scaled_images() -> None:
    x = images(1, 20, 30)
    network = Inference((32, 32), (1.0, 1.5), True).of(Placed())
    wanted = []
    for height, width in ((20, 30), (30, 45)):
        scaled = resized(x[0].numpy(), height, width)
        for step in (1, -1):
            wanted.append(softmax(resized(slid(scaled[:, :, ::step], 32, 32)[:, :, ::step], 20, 30)))
    np.testing.assert_allclose(network(x)[0].numpy(), np.mean(wanted, 0), atol=5e-5)


def test_scaling_keeps_at_least_a_pixel() -> None:
    assert Averaged(Placed(), (0.1,))(images(1, 3, 40)).shape == (1, 4, 3, 40)


def test_nothing_asked_is_the_network_untouched() -> None:
    network = Placed()
    assert Inference().of(network) is network
    assert isinstance(Inference(flip=True).of(network), Averaged)
    assert isinstance(Inference((32, 32)).of(network), Sliding)


class Listed(list):
    classes = Classes("four", ("a", "b", "c", "d"), ((1, 1, 1), (2, 2, 2), (3, 3, 3), (4, 4, 4)))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_it_is_evaluated_and_predicts_as_any_network(precision: str) -> None:
    rng = np.random.default_rng(3)
    pictures = [rng.integers(0, 256, (40 + i, 50, 3)).astype(np.uint8) for i in range(2)]
    network = Inference((32, 32), (0.5, 1.0), True).of(Placed())
    how = {"mean": (0.5,) * 3, "std": (0.2,) * 3, "precision": precision}
    masks = predict(network, pictures, **how)
    samples = Listed(Sample(str(i), *pair) for i, pair in enumerate(zip(pictures, masks, strict=True)))
    network.network.train(False)
    assert evaluate(network, samples, **how)["pixel_accuracy"] == 1.0
    assert network.training and not network.network.training  # each module has its own mode back
    assert len(np.unique(masks[0])) > 1


def test_logits_that_are_not_finite_do_not_hide() -> None:
    class Broken(Placed):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).index_fill(1, torch.tensor([2]), torch.nan)

    samples = Listed([Sample("a", np.zeros((40, 40, 3), np.uint8), np.zeros((40, 40), np.uint8))])
    for inference in (Inference((32, 32)), Inference(scales=(0.5, 1.0)), Inference(flip=True)):
        with pytest.raises(NumbersError):
            evaluate(inference.of(Broken()), samples, mean=(0.5,) * 3, std=(0.5,) * 3)


def whole(network: nn.Module, window: tuple[int, int], pictures: list[np.ndarray], bf16: bool) -> Tensor:
    """The class ids (N,H,W) of windows whose logits are summed over whole images: the plain reference."""
    x = normalised(pictures, *NORMAL, "cpu")
    sides = [min(pair) for pair in zip(x.shape[-2:], window, strict=True)]
    total, count = torch.zeros(len(pictures), 4, *x.shape[-2:]), torch.zeros(x.shape[-2:])
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        for top, left in itertools.product(*map(starts, x.shape[-2:], sides)):
            here = (..., slice(top, top + sides[0]), slice(left, left + sides[1]))
            total[here] += network(x[here]).float()
            count[here] += 1
    return (total / count).argmax(1)


NORMAL = (0.5, 0.4, 0.3), (0.2, 0.25, 0.5)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@given(st.integers(1, 41), st.integers(1, 41), st.integers(1, 15), st.integers(1, 15), st.integers(1, 3))
@example(21, 40, 9, 12, 2)  # at the lower border three windows lie over a pixel, as at the right
@example(10, 9, 9, 12, 1)  # the last band reaches one row further, and its window is cut
@settings(max_examples=40, deadline=None)
def test_bands_of_windows_give_the_ids_of_the_whole_sum(precision, height, width, high, wide, count) -> None:
    draw = np.random.default_rng(height * 41 + width)
    pictures = [draw.integers(0, 256, (height, width, 3), np.uint8) for _ in range(count)]
    seen = Placed()
    ids, finite = Shown(Sliding(seen, (high, wide)), *NORMAL, "cpu", precision).class_ids(pictures)
    assert ids.dtype == torch.uint8 and finite
    assert torch.equal(ids, whole(Placed(), (high, wide), pictures, precision == "bf16"))
    assert set(seen.shapes) == {(min(height, high), min(width, wide))}


def test_masks_of_reduced_images_and_of_scales_need_the_logits_of_the_whole() -> None:
    """They are resized at once: band by band, the seams would show."""
    (picture,) = pictures = [np.random.default_rng(3).integers(0, 256, (60, 90, 3), np.uint8)]
    how = dict(zip(("mean", "std"), NORMAL, strict=True))
    network = Placed()
    (mask,) = predict(Sliding(network, (9, 12)), pictures, **how, size=21)
    logits = Sliding(Placed(), (9, 12))(normalised([reduced(picture, 21)], *NORMAL, "cpu"))
    assert np.array_equal(mask, class_ids(logits, (60, 90))[0][0])
    scaled = Inference((32, 32), (0.5, 1.0), True).of(Placed())
    (mask,) = predict(scaled, pictures, **how)
    assert np.array_equal(mask, scaled(normalised(pictures, *NORMAL, "cpu")).argmax(1)[0])


@pytest.mark.parametrize("window", [0, 5])
def test_one_number_that_is_not_finite_in_any_window_is_noticed(window: int) -> None:
    class Broken(Placed):
        def forward(self, x: Tensor) -> Tensor:
            logits = super().forward(x)
            logits[0, 2, -1, -1] = torch.nan if len(self.shapes) == window + 1 else 0.0
            return logits

    shown = Shown(Sliding(Broken(), (9, 12)), *NORMAL, "cpu", "fp32")
    assert not shown.class_ids([np.zeros((20, 20, 3), np.uint8)])[1]


class Wide(nn.Module):
    """Twenty logits a pixel."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :1] * torch.linspace(-1, 1, 20)[:, None, None]


def test_forty_megapixels_by_windows_are_never_whole_in_floats() -> None:
    """All logits would be 3.2 GB, and all normalised pixels half a gigabyte."""
    picture = np.repeat(np.array([0, 255], np.uint8), 5000)[None, :, None] * np.ones((4000, 1, 3), np.uint8)
    samples = Listed([Sample("a", picture, picture[..., 0] // 255 * 19)])
    samples.classes = listed("twenty", [str(index) for index in range(20)])
    with memory_below(800):
        network = Inference((256, 256)).of(Wide())
        found = evaluate(network, samples, mean=(0.5,) * 3, std=(0.5,) * 3, size="original")
    assert found["pixel_accuracy"] == 1.0


@pytest.mark.parametrize(
    ("slide", "scales"),
    [((0, 3), (1.0,)), ((31, 64), (1.0,)), ((64, 8193), (1.0,)), ((64,), (1.0,)), ((64, 64, 64), (1.0,)),
     ((64.0, 64), (1.0,)), (None, ()), (None, (0.0,)), (None, (-1.0,)), (None, (8.1,)), (None, (float("nan"),)),
     (None, (float("inf"),)), (None, (1.0, 0.5, 1.0)), (None, tuple(1 + i / 100 for i in range(17)))],
)  # fmt: skip
def test_values_out_of_range(slide: tuple[int, int] | None, scales: tuple[float, ...]) -> None:
    with pytest.raises(UsageError, match="slide" if slide else "scales") as error:
        Inference(slide, scales)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("slide", ["", "64", "64x", "x64", "64x64x64", "-64x64", "6e1x64", "64 x 64", "６４x64"])
def test_windows_that_cannot_be_read(slide: str) -> None:
    with pytest.raises(UsageError, match="slide .*256x256"):
        Inference.parsed(slide, None, False)


@pytest.mark.parametrize("scales", ["", "a,b", "1,", "1;2", "0.5,,1"])
def test_scales_that_cannot_be_read(scales: str) -> None:
    with pytest.raises(UsageError, match=r"scales .*0\.75,1,1\.25"):
        Inference.parsed(None, scales, False)


def test_parsed() -> None:
    assert Inference.parsed(None, None, False) == Inference()
    found = Inference.parsed("96x128", "0.75,1, 1.25", True)
    assert found == Inference((96, 128), (0.75, 1.0, 1.25), True)
    assert found.as_dict() == {"slide": [96, 128], "scales": [0.75, 1.0, 1.25], "flip": True}
