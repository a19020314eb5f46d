"""The last layer of each kind of network that has one."""

import pytest
import torch
from torch import nn

from segkd.foundation.errors import TeacherError
from segkd.models.building import create_network
from segkd.models.classifier import class_weights


@pytest.mark.parametrize(
    ("arch", "encoder", "options", "layer"),
    [
        ("DeepLabV3Plus", "tu-resnet10t", {"channels": [16, 24, 32, 48], "stem_width": 8, "decoder_channels": 32}, "segmentation_head.0"),
        ("Unet", "resnet18", {}, "segmentation_head.0"),
        ("SegNet", None, {"width": 2}, None),
    ],
)  # fmt: skip
def test_it_is_the_last_that_gives_a_map_for_each_class(arch, encoder, options, layer):
    torch.manual_seed(0)
    network = create_network(arch, encoder, 11, options)
    rows = class_weights(network, 11)
    assert len(rows) == 11 and rows.dim() == 2 and not rows.requires_grad
    if layer is not None:
        assert torch.equal(rows, network.get_submodule(layer).weight.detach().flatten(1))


def test_one_logit_tells_two_classes_apart():
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 1, 1))
    rows = class_weights(network, 2)
    assert torch.equal(rows[1], network[1].weight.detach().flatten()) and torch.equal(rows[0], -rows[1])
    two = nn.Sequential(nn.Conv2d(3, 2, 1), nn.Conv2d(2, 1, 1))  # a gate of one map, say, beside a head of two
    assert torch.equal(class_weights(two, 2), two[0].weight.detach().flatten(1))
    with pytest.raises(TeacherError, match="ends in its 3 classes"):
        class_weights(network, 3)


def test_without_one_it_is_a_line():
    with pytest.raises(TeacherError, match="no convolution that ends in its 5 classes is seen"):
        class_weights(nn.Conv2d(3, 4, 1), 5)
