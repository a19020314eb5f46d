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


def test_without_one_it_is_a_line():
    with pytest.raises(TeacherError, match="no convolution that ends in its 5 classes is seen"):
        class_weights(nn.Conv2d(3, 4, 1), 5)
