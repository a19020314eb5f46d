"""A student that starts from evenly spaced channels of a wider network of its own architecture."""

import pytest
import torch
from torch import nn

from segkd.models.building import create_network
from segkd.models.selection import select_weights

NARROW = {"channels": [8, 8, 16, 16], "stem_width": 4, "decoder_channels": 16}
WIDE = {"channels": [16, 16, 32, 32], "stem_width": 8, "decoder_channels": 32}


def networks(narrow: dict | None = None) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(1)
    wide = create_network("DeepLabV3Plus", "tu-resnet10t", 3, WIDE)
    return create_network("DeepLabV3Plus", "tu-resnet10t", 3, narrow or NARROW), wide


def test_a_network_of_half_the_width_takes_every_second_channel() -> None:
    narrow, wide = networks()
    assert select_weights(narrow, wide) == []
    own, there = narrow.encoder.model.layer1[0], wide.encoder.model.layer1[0]
    assert torch.equal(own.conv1.weight, there.conv1.weight[::2, ::2])
    assert torch.equal(own.bn1.weight, there.bn1.weight[::2])
    assert torch.equal(narrow.segmentation_head[0].weight, wide.segmentation_head[0].weight[:, ::2]), "all classes"


def test_what_is_added_or_put_together_belongs_together() -> None:
    """Every second channel of a network whose channels come in equal pairs is the network itself, but for sums twice as small."""
    wide = nn.Sequential(nn.Conv2d(4, 8, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 1)).eval()
    narrow = nn.Sequential(nn.Conv2d(2, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 1)).eval()
    with torch.no_grad():
        for parameter in wide.parameters():  # pairs of outputs, then pairs of inputs
            parameter[1::2] = parameter[::2]
            if parameter.ndim == 4:
                parameter[:, 1::2] = parameter[:, ::2]
    assert select_weights(narrow, wide) == []
    with torch.no_grad():
        for layer in (narrow[0], narrow[3]):
            layer.weight.mul_(2)  # half as many inputs
    x = torch.randn(2, 2, 3, 5)
    torch.testing.assert_close(narrow(x), wide(x.repeat_interleave(2, 1))[:, ::2])


def test_what_has_no_counterpart_so_large_stays_and_is_named() -> None:
    narrow, wide = networks({**NARROW, "channels": [8, 8, 16, 40]})
    before = {name: value.clone() for name, value in narrow.state_dict().items()}
    left = select_weights(narrow, wide)
    assert "encoder.model.layer4.0.conv1.weight" in left and "encoder.model.layer3.0.conv1.weight" not in left
    for name, value in narrow.state_dict().items():
        counts = name.endswith("num_batches_tracked")
        assert torch.equal(value, before[name]) == (name in left or counts or value.unique().numel() == 1), name


def test_rows_of_classes_are_those_that_are_taken() -> None:
    own, there = nn.Linear(2, 3), nn.Linear(4, 11)
    select_weights(own, there, 11, [8, 0, 4])
    assert torch.equal(own.bias, there.bias[[8, 0, 4]]) and torch.equal(own.weight, there.weight[[8, 0, 4]][:, ::2])


@pytest.mark.parametrize(("few", "many"), [(1, 1), (1, 7), (3, 7), (5, 7), (7, 7)])
def test_channels_are_distinct_and_evenly_spaced(few: int, many: int) -> None:
    own, there = nn.Linear(1, few), nn.Linear(1, many)
    with torch.no_grad():
        there.bias.copy_(torch.arange(many))
    select_weights(own, there)
    picked = own.bias.detach()
    assert picked[0] == 0 and len(picked.unique()) == few and picked.max() < many
    gaps = picked.diff()
    assert few < 2 or gaps.max() - gaps.min() <= 1
