"""Statistics of a user's images, recorded in layers of any kind, and a file of them that does not fit."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from segkd.foundation.errors import TeacherError
from segkd.models.building import create_network
from segkd.models.own import digest
from segkd.models.recorded import KIND, hash_of, read_recorded, record
from segkd.models.taps import BatchNormTap, channel_maps
from segkd.models.teacher import Teacher
from segkd.models.tensors import to_safetensors


class Last(nn.Module):
    """LayerNorm of channels that come last, as in a Swin, and of tokens, as in a SegFormer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first, self.tokens = nn.Conv2d(3, 6, 3, 2, 1), nn.LayerNorm(6), nn.LayerNorm(6)
        self.group, self.head = nn.GroupNorm(2, 6), nn.Conv2d(6, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(self.stem(x).permute(0, 2, 3, 1))
        tokens = self.tokens(x.flatten(1, 2))
        return self.head(self.group(tokens.transpose(1, 2).unflatten(2, x.shape[1:3])))


class Plain(nn.Module):
    """No normalisation layer: two stages and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 5, 3, 2, 1), nn.Conv2d(5, 6, 3, 2, 1)
        self.head = nn.Conv2d(6, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.two(self.one(x).relu()).relu())


def teacher(network: nn.Module | None = None) -> Teacher:
    torch.manual_seed(0)
    return Teacher(network or Last(), ["a", "b", "c", "d"], [0.5] * 3, [0.5] * 3)


def images(count: int = 3) -> list[torch.Tensor]:
    torch.manual_seed(1)
    return [torch.randn(1, 3, 32, side) for side in (32, 64, 32)[:count]]


def test_statistics_are_those_of_all_images_each_of_equal_weight() -> None:
    guide, shown = teacher(), images()
    found = record(guide, shown)
    assert found.images == 3 and list(found.layers) == ["first", "tokens", "group"]
    net = guide.network
    inputs = [net.stem(x).permute(0, 2, 3, 1).reshape(-1, 6).detach().double().numpy() for x in shown]
    means, squares = np.mean([x.mean(0) for x in inputs], 0), np.mean([(x**2).mean(0) for x in inputs], 0)
    mean, var = found.layers["first"]
    np.testing.assert_allclose(mean.numpy(), means, atol=1e-6)
    np.testing.assert_allclose(var.numpy(), squares - means**2, rtol=1e-4)


def test_the_images_that_were_recorded_are_at_no_distance_and_their_gradient_is_right() -> None:
    guide, shown = teacher(), torch.cat([x for x in images() if x.shape[-1] == 32])
    found = record(guide, shown.split(1))
    x = shown.clone().requires_grad_()
    with BatchNormTap(guide.network, found.layers).open() as seen:
        guide(x)
    for layer in seen:
        torch.testing.assert_close(layer.mean, layer.running_mean, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(layer.var, layer.running_var, rtol=1e-4, atol=1e-5)
    [got] = torch.autograd.grad(sum(layer.mean.sum() + 2 * layer.var.sum() for layer in seen), x)
    first = guide.network.stem(x).permute(0, 2, 3, 1)
    tokens = guide.network.first(first).flatten(1, 2)
    maps = guide.network.tokens(tokens)
    plain = sum(
        y.flatten(0, -2).mean(0).sum() + 2 * y.flatten(0, -2).var(0, correction=0).sum() for y in (first, tokens, maps)
    )
    torch.testing.assert_close(got, torch.autograd.grad(plain, x)[0], rtol=1e-4, atol=1e-5)


def test_without_normalisation_layers_the_last_maps_of_each_stage_are_recorded() -> None:
    guide = teacher(Plain())
    found = record(guide, images())
    assert list(found.layers) == ["one", "two"] and len(found.layers["two"][0]) == 6
    with BatchNormTap(guide.network, found.layers).open() as seen:
        guide(images()[0])
    assert [layer.name for layer in seen] == ["one", "two"]
    torch.testing.assert_close(seen[0].mean, guide.network.one(images()[0]).mean((0, 2, 3)))


def test_a_segformer_has_statistics_at_its_layernorms() -> None:
    torch.manual_seed(0)
    network = create_network("Segformer", "mit_b0", 4, {})
    found = record(Teacher(network, list("abcd"), [0.5] * 3, [0.5] * 3), [torch.randn(1, 3, 64, 64)])
    kinds = [type(network.get_submodule(name)).__name__ for name in found.layers]
    assert kinds.count("BatchNorm2d") == 1 and len(kinds) > 25


@pytest.mark.parametrize(
    ("layer", "shape", "seen"),
    [
        (nn.LayerNorm(6), (2, 4, 5, 6), (2, 6, 4, 5)),
        (nn.LayerNorm(6), (2, 20, 6), (2, 6, 20, 1)),
        (nn.LayerNorm(6), (2, 6), (2, 6, 1, 1)),
        (type("LayerNorm2d", (nn.LayerNorm,), {})(6), (2, 6, 4, 5), (2, 6, 4, 5)),
        (type("OwnLayerNorm", (nn.Module,), {"data_format": "channels_first"})(), (2, 6, 4, 5), (2, 6, 4, 5)),
        (nn.GroupNorm(2, 6), (2, 6, 4, 5), (2, 6, 4, 5)),
        (nn.BatchNorm1d(6), (2, 6, 20), (2, 6, 20, 1)),
    ],
)
def test_where_a_layer_has_its_channels(layer, shape, seen) -> None:
    x = torch.randn(shape)
    assert channel_maps(layer, x).shape == seen


def test_a_file_is_read_back_as_it_was(tmp_path) -> None:
    guide, file = teacher(), tmp_path / "s.safetensors"
    found = record(guide, images())
    file.write_bytes(found.to_bytes())
    again = read_recorded(file, teacher())
    assert (
        again.images == 3
        and again.teacher == found.teacher
        and list(again.layers) == sorted(found.layers, key=list(found.layers).index)
    )
    assert all(
        torch.equal(a, b) for name in found.layers for a, b in zip(again.layers[name], found.layers[name], strict=True)
    )
    assert found.to_bytes() == again.to_bytes()


def own(mean: torch.Tensor | None = None, var: torch.Tensor | None = None, name: str = "first", **words: str) -> bytes:
    """A file whose hash is right, and else anything."""
    parts = {} if mean is None else {f"{name}.mean": mean, f"{name}.var": var.clone()}
    about = {
        "kind": KIND,
        "images": "1",
        "teacher": digest(teacher().network),
        "layers": json.dumps([name] if parts else []),
    }
    return to_safetensors(parts, **about | words, sha256=hash_of(parts, about | words))


NAN, ONES = torch.tensor([float("nan")] + [0.0] * 5), torch.ones(6)
FAULTS = {
    "absent": (lambda data: None, "no such file; make it with: segkd record"),
    "cut": (lambda data: data[: len(data) // 2], "damaged statistics"),
    "a flipped bit": (lambda data: data[:-9] + bytes([data[-9] ^ 64]) + data[-8:], "do not match the hash in it"),
    "nothing": (lambda data: b"", "damaged statistics"),
    "weights": (lambda data: to_safetensors({"a": ONES}), "holds no statistics; make them with: segkd record"),
    "another teacher": (lambda data: own(ONES, ONES, teacher="0" * 64), "of another teacher (sha256 000000000000, and"),
    "another number of images": (lambda data: data.replace(b'"images":"3"', b'"images":"4"'), "do not match the hash"),
    "a number that is none": (lambda data: own(ONES, ONES, images="many"), "damaged statistics (invalid literal"),
    "names of other layers": (lambda data: own(ONES, ONES, layers='["fourth"]'), "damaged statistics ('fourth.mean')"),
    "other layers": (lambda data: own(ONES, ONES, "x"), "of a layer x that the teacher has not"),
    "other channels": (lambda data: own(ONES, ONES[:5]), "first that are not of its 6"),
    "NaN": (lambda data: own(NAN, ONES), "first that no images can have"),
    "negative": (lambda data: own(ONES, -ONES), "first that no images can have"),
    "no layer": (lambda data: own(), "statistics of no layer"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_file_that_does_not_fit_is_one_line(fault, tmp_path) -> None:
    change, words = FAULTS[fault]
    file = tmp_path / "s.safetensors"
    if (data := change(record(teacher(), images()).to_bytes())) is not None:
        file.write_bytes(data)
    with pytest.raises(TeacherError) as caught:
        read_recorded(file, teacher())
    said = str(caught.value)
    assert said.startswith(f"{file}: ") and words in said and "\n" not in said and caught.value.exit_code == 3


def test_what_shows_nothing_is_an_error() -> None:
    with pytest.raises(TeacherError, match="no layer of the teacher can be listened to"):
        record(teacher(nn.Sequential(nn.Conv2d(3, 4, 1))), images())
    broken = teacher()
    broken.network.stem.weight.data.fill_(1e38)
    with pytest.raises(TeacherError, match="^first: what the teacher computes there is not finite"):
        record(broken, [x * 10 for x in images()])


@pytest.mark.parametrize("end", [nn.Flatten(), nn.Flatten(2)])
def test_a_network_that_gives_no_maps_is_told_as_distill_tells_it(end: nn.Module) -> None:
    with pytest.raises(TeacherError, match=r"^the network's output is no \(N,C,H,W\) tensor but one of shape \(1, "):
        record(teacher(nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.Conv2d(6, 4, 1), end)), images())


def test_safetensors_alone_reads_it(tmp_path) -> None:
    file = tmp_path / "s.safetensors"
    file.write_bytes(record(teacher(), images()).to_bytes())
    assert set(load_file(file)) == {
        f"{name}.{part}" for name in ("first", "tokens", "group") for part in ("mean", "var")
    }
