"""CUDA graphs against the networks that they were recorded from. Without a GPU there is nothing to record."""

import copy

import pytest
import torch
from torch import nn

from segkd import builders
from segkd.machine.graphs import Recorded
from segkd.models.adapters import Adapter
from segkd.models.building import create_network
from segkd.models.family import Sizes

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

OPTIONS = {"channels": [8, 8, 16, 16], "decoder_channels": 16}


@pytest.fixture
def pair():
    """Two adapters with the same weights on the GPU, in training mode, with dropout."""
    torch.manual_seed(0)
    network = Adapter(create_network("DeepLabV3Plus", "tu-resnet10t", 5, OPTIONS), 5)
    network = network.cuda().to(memory_format=torch.channels_last).train()
    return network, copy.deepcopy(network)


def close(found, wanted, within: float):
    """Whether two lists of tensors are alike but for sums in other orders, which a GPU makes at each run."""
    for one, other in zip(found, wanted, strict=True):
        assert (one.float() - other.float()).norm() <= within * other.float().norm() + 1e-3


def images(seed: int, size=(64, 96)) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(4, 3, *size, generator=generator).cuda().contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
def test_a_training_network_moves_as_without_graphs(pair, bf16):
    plain, twin = pair
    recorded, moved = Recorded(twin), []
    for network, forward in ((plain, plain), (twin, recorded)):
        turns = []
        for turn, size in enumerate([(64, 96), (64, 96), (32, 64), (64, 96)]):
            torch.manual_seed(turn)  # dropout
            with torch.autocast("cuda", torch.bfloat16, enabled=bf16):
                logits = forward(images(turn, size), at_head=True)
            parameters = list(network.parameters())
            slopes = torch.autograd.grad(logits.float().square().mean(), parameters)
            turns.append([logits.detach().clone(), *(slope.clone() for slope in slopes)])
            with torch.no_grad():
                for parameter, slope in zip(parameters, slopes, strict=True):
                    parameter -= 0.01 * slope
        moved.append((turns[0], [turn[0] for turn in turns], [buffer.clone() for buffer in network.buffers()]))
    assert len(recorded.graphs) == 2 and None not in recorded.graphs.values()
    for one, other, within in zip(*moved, (0.05 if bf16 else 0.01, 0.1, 0.1), strict=True):
        close(one, other, within)


def test_a_frozen_network_sends_gradients_to_images(pair):
    found = []
    for network, forward in ((pair[0], pair[0]), (pair[1], Recorded(pair[1]))):
        network.eval().requires_grad_(False)
        for seed in (0, 1):
            x = images(seed).requires_grad_()
            found.append(torch.autograd.grad(forward(x * 2).square().mean(), x)[0].clone())
    close(found[2:], found[:2], within=0.01)


def test_what_asks_the_gpu_for_a_number_runs_as_it_is():
    class Asking(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * (2 if x.mean().item() > 0 else 3)

    network = Adapter(Asking(), 3, sizes=Sizes(1)).cuda()
    recorded = Recorded(network)
    for x in (torch.ones(1, 3, 4, 4).cuda(), -torch.ones(1, 3, 4, 4).cuda()):
        assert torch.equal(recorded(x), network(x))
    assert list(recorded.graphs.values()) == [None]


@pytest.mark.parametrize("preset", ["ddad.segkd", "ddad.paper", "dfad"])
def test_a_game_is_played_as_without_graphs(tiny, preset):
    device, played = torch.device("cuda"), []
    for graphs in ("true", "false"):
        recipe = tiny.recipe(preset, f"run.cuda_graphs={graphs}")
        teacher = builders.teacher_of(recipe.teacher).to(device, memory_format=torch.channels_last)
        game = builders.distiller_of(recipe, teacher, device, bf16=False)
        values = game.play(0)
        passes = [found for recorded in game.networks.recorded.values() for found in recorded.graphs.values()]
        assert bool(passes) == (graphs == "true") and None not in passes
        played.append([torch.tensor(list(values.values())), *(p.detach() for p in game.student.network.parameters())])
    close(*played, within=0.05)
