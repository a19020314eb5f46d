"""Gradient checkpointing of blocks: the same bytes as without, less kept, and the network as it was afterwards."""

import copy

import pytest
import torch
from torch import nn

from segkd.machine.recompute import blocks_of, recomputing
from segkd.models.building import create_network
from segkd.models.taps import BatchNormTap
from segkd.synthesis.architectures import dcgan, resize_convolution

RANGE = (-torch.ones(3), torch.ones(3))
NETWORKS = {
    "residual blocks": lambda: create_network("DeepLabV3Plus", "tu-resnet10t", 4, {"decoder_aspp_dropout": 0.5}),
    "inverted residual blocks": lambda: create_network("DeepLabV3", "mobilenet_v2", 4, {}),
    "skips between them": lambda: create_network("Unet", "resnet18", 4, {}),
    "indices beside the maps": lambda: create_network("SegNet", None, 4, {"width": 8}),
    "stages": lambda: dcgan(16, (64, 64), 8, *RANGE),
    "stages that upsample": lambda: resize_convolution(16, (64, 64), 4, *RANGE),
}


def looked_at(network, given, *, checkpointed):
    """Output, statistics seen on the way, all gradients and all buffers of one pass; and how many numbers were kept for it."""
    network, kept = copy.deepcopy(network), []
    tap = BatchNormTap(network)

    def keep(value):
        kept.append(value.numel())
        return value

    x = given.clone().requires_grad_()
    torch.manual_seed(3)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value), tap.open() as seen:
        if checkpointed:
            with recomputing(network, tap.open):
                y = network(x)
        else:
            y = network(x)
    judged = y.square().mean() + sum(one.mean.square().sum() + one.var.sum() for one in seen)
    count, after = len(seen), torch.rand(())
    gradients = torch.autograd.grad(judged, [x, *network.parameters()], allow_unused=True)
    assert len(seen) == count  # the second pass tells nobody
    found = [y, after, *(one.mean for one in seen), *(one.var for one in seen), *gradients, *network.buffers()]
    return found, sum(kept)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("training", [True, False])
def test_values_gradients_and_buffers_are_the_same_bytes(name, training):
    torch.manual_seed(0)
    network = NETWORKS[name]().train(training)
    given = torch.randn(2, 16) if "stages" in name else torch.randn(2, 3, 64, 64)
    plain, much = looked_at(network, given, checkpointed=False)
    same, little = looked_at(network, given, checkpointed=True)
    assert len(plain) == len(same)
    for one, other in zip(plain, same, strict=True):
        assert (one is None and other is None) or torch.equal(one, other)
    assert little < 0.6 * much


def test_a_network_is_as_it_was_after_an_error():
    network = NETWORKS["residual blocks"]()
    with pytest.raises(RuntimeError), recomputing(network):
        network(torch.randn(2, 5, 64, 64))
    assert blocks_of(network) and not any("forward" in vars(module) for module in network.modules())


def test_blocks_do_not_overlap_and_one_used_twice_is_one():
    shared = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1))
    network = nn.Module()
    network.first, network.second = nn.ModuleList([shared, nn.ReLU()]), nn.ModuleList([shared])
    assert blocks_of(network) == [shared]
    deep = NETWORKS["inverted residual blocks"]()
    inside = [module for block in blocks_of(deep) for module in block.modules()]
    assert len(inside) == len(set(inside))


def test_without_gradients_nothing_is_computed_twice():
    calls = []
    network = nn.Sequential(nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)), nn.Conv2d(3, 2, 1))
    network[0][0].register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad(), recomputing(network):
        network(torch.randn(1, 3, 4, 4))
    assert len(calls) == 1
