"""A generator of maps: at every scale it is told what to show where, and the map goes with the image."""

import math
import re

import pytest
import torch
import torch.nn.functional as F

from segkd.foundation.errors import RecipeError
from segkd.synthesis.augment import Augment
from segkd.synthesis.conditional import Conditional, ConditionalNetwork
from segkd.synthesis.label_maps import LabelMaps
from segkd.synthesis.source import Move

LOW, HIGH, CLASSES = torch.tensor([-1.0, -2.0, 0.0]), torch.tensor([1.0, 2.0, 4.0]), 5


def network(size=(40, 56)):
    torch.manual_seed(0)
    return ConditionalNetwork(CLASSES, 6, size, 2, LOW, HIGH)


def ids(size, count=3):
    return torch.randint(CLASSES, (count, *size), generator=torch.Generator().manual_seed(3))


def reference(made, z, labels):
    """The same by plain functions, a map at each scale by picking pixels one by one."""
    (height, width), weights = labels.shape[1:], made.state_dict()
    small = math.ceil(height / 32), math.ceil(width / 32)

    def normalised(x, name):
        scale = (weights.get(f"{name}.weight"), weights.get(f"{name}.bias"))
        return F.batch_norm(x, None, None, *scale, training=True)

    def beside(x):
        step, told = 32 * small[0] // x.shape[2], torch.zeros(len(x), CLASSES, *x.shape[2:])
        for n in range(len(x)):
            for i in range(x.shape[2]):
                for j in range(x.shape[3]):
                    told[n, labels[n, min(i * step, height - 1), min(j * step, width - 1)], i, j] = 1
        return torch.cat([x, told], 1)

    x = F.linear(z, weights["project.weight"], weights["project.bias"]).view(len(z), 16, *small)
    x = normalised(x, "first")
    for number in range(5):
        x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
        x = normalised(F.conv2d(beside(x), weights[f"stages.{number}.0.weight"], padding=1), f"stages.{number}.1")
        x = torch.where(x > 0, x, 0.2 * x)
    x = F.conv2d(beside(x), weights["last.0.weight"], weights["last.0.bias"], padding=1)
    unit = (normalised(x, "last.1").tanh() + 1) / 2
    return (unit * (HIGH - LOW).view(1, 3, 1, 1) + LOW.view(1, 3, 1, 1))[..., :height, :width]


def test_it_computes_what_it_says():
    made, labels = network(), ids((40, 56))
    z = torch.randn(3, 6)
    torch.testing.assert_close(made(z, labels), reference(made, z, labels), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("size", [(40, 56), (33, 20), (64, 96)])
def test_any_size_is_painted(size):
    assert network()(torch.randn(2, 6), ids(size, 2)).shape == (2, 3, *size)


def source(*names, kinds=("noise",)):
    return Conditional(network(), 6, LabelMaps(kinds, CLASSES, (40, 56)), augment=Augment(names, LOW, HIGH))


def test_maps_go_with_their_images_and_follow_the_move():
    plain, move = source(), Move(5, 3, 1, 0.5)
    drawn = plain.draw(3, (40, 56), move)
    assert torch.equal(drawn.labels, plain.maps(3, (40, 56), move)) and drawn.latents.shape == (3, 6)
    with torch.no_grad():
        assert torch.equal(drawn.images, plain.network.train()(drawn.latents, drawn.labels))
    assert drawn.images.is_contiguous(memory_format=torch.channels_last) and not drawn.images.requires_grad
    assert torch.equal(plain.draw(3, (40, 56), move).images, drawn.images)


def test_what_changes_an_image_changes_its_map():
    move = Move(5, 3, 1, 0.5)
    plain, flipped = source().draw(8, (40, 56), move), source("flip").draw(8, (40, 56), move)
    changed = [not torch.equal(a, b) for a, b in zip(plain.labels, flipped.labels, strict=True)]
    assert 0 < sum(changed) < 8
    mirrored = torch.tensor(changed).view(-1, 1, 1)
    assert torch.equal(flipped.labels, torch.where(mirrored, plain.labels.flip(-1), plain.labels))
    mirrored = mirrored.unsqueeze(1)
    torch.testing.assert_close(flipped.images, torch.where(mirrored, plain.images.flip(-1), plain.images))
    held_out = Move(5, -1, 0)
    assert torch.equal(source("flip").draw(8, (40, 56), held_out).labels, source().draw(8, (40, 56), held_out).labels)


def test_what_the_teacher_sees_is_remembered(tiny):
    game = tiny.game("ddad.segkd", "synth.kind=conditional", "synth.labels=[noise, teacher]", "synth.replay=3")
    game.moves["source"](0, 0)
    maps, [images] = game.source.maps, game.bank.images
    same = maps.seen[:2] == game.teacher(images).argmax(1)
    assert maps.count == 2 and same.float().mean() > 0.8, "but for how the head's logits are upsampled"
    assert not maps.seen[2:].any() and {"maps.seen", "maps.count"} == set(game.source.state()["own"])


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("synth.labels=[scene]", "synth.labels[0]: unknown value \"scene\", did you mean 'scenes'? (known: noise, teacher, scenes)"),
        ("synth.labels=[]", "synth.labels: name one kind or more"),
        ("synth.labels=[noise, noise]", "synth.labels: each kind once"),
        ("synth.augment=[flip, crop]", "synth.augment: a map of classes cannot follow crop; of conditional's images: flip, "),
        ("synth.mix={noise: 0.5}", "synth.mix: images of others have no map of classes, as those of conditional have"),
        ("synth.optimizer=null", "synth.optimizer: missing: conditional is trained, and needs one"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_line(tiny, override, line):
    with pytest.raises(RecipeError, match=re.escape(line)) as caught:
        tiny.recipe("ddad.segkd", "synth.kind=conditional", override)
    assert len(str(caught.value).splitlines()) == 1
