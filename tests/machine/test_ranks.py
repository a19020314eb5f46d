"""Two and four processes against one with the whole batch: terms, gradients, and what all refuse together."""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from torch import Tensor, nn

from segkd.losses.discrepancy import l1
from segkd.losses.priors import balance, rarity
from segkd.losses.reduce import mean_over_ranks
from segkd.losses.statistics import batchnorm_distance, blended, nearness
from segkd.machine import ranks
from segkd.machine.batchnorm import SyncedBatchNorm2d, synced
from segkd.machine.snapshot import Snapshot
from segkd.players.player import Player
from tests.conftest import Tiny
from tests.waiting import PATIENCE

ALONE = ("synth.augment=[]", "synth.replay=0", "game.keep_moves=0", "synth.class_balance=0", "run.batch=8",
         "student.options.decoder_aspp_dropout=0.0")  # fmt: skip
GAMES = {  # dtype, how near processes come to one, whether networks use the statistics of batches, and what the recipe says
    "float64": (torch.float64, 1e-10, True, "run.sync_bn=true"),
    "fp32": (torch.float32, 1e-4, True, "run.sync_bn=true"),
    "checkpointed": (torch.float64, 1e-10, True, "run.sync_bn=true", "run.checkpointing=true"),
    "networks in eval mode": (torch.float64, 1e-10, False),
}
PLAYED = {2: list(GAMES), 4: ["float64"]}
"""What so many processes play: what is not of their number two show."""
METHODS = ("dafl", "dfq", "mad", "rdskd", "zskt")


def enter(rank: int, size: int, folder: str, work: Callable[[], object]) -> None:
    torch.set_num_threads(1)
    meet, patience = f"file://{folder}/meet", timedelta(seconds=PATIENCE)
    dist.init_process_group("gloo", init_method=meet, rank=rank, world_size=size, timeout=patience)
    torch.save(work(), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def together(size: int, folder: Path, work: Callable[[], object]) -> list:
    """What `work` returns in each of so many processes."""
    torch.multiprocessing.start_processes(enter, (size, str(folder), work), size, start_method="forkserver")
    return [torch.load(folder / f"{rank}.pt") for rank in range(size)]


def layers(x: Tensor) -> list[SimpleNamespace]:
    """Two layers' statistics of maps (N,C,H,W)."""
    made = []
    for maps, base in ((x, 0.3), (x.square(), 1.0)):
        var, mean = torch.var_mean(maps, (0, 2, 3), correction=0)
        running = torch.full_like(mean, base)
        made.append(SimpleNamespace(mean=mean, var=var, running_mean=running, running_var=running + 0.5))
    return made


def weighed(x: Tensor) -> Tensor:
    """The mean of a term of each image, in which some weigh more, as `dfss` has it."""
    weights, each = nearness(x.detach().mean((1, 2, 3))), x.square().mean((1, 2, 3))
    return mean_over_ranks((weights * each).mean()) / mean_over_ranks(weights.mean())


TERMS = {
    "balance": lambda x: balance(x),
    "rarity": lambda x: rarity(x),
    "near images first": lambda x: weighed(x),
    "statistics after those of the past": lambda x: batchnorm_distance(
        blended(layers(x), torch.linspace(0, 1, 12, dtype=x.dtype), torch.tensor(0.9, dtype=x.dtype))[0]
    ),
    "log of the gap": lambda x: -torch.log1p(mean_over_ranks(l1(x, x.square()))),
    **{f"bn {kind}": lambda x, kind=kind: batchnorm_distance(layers(x), kind) for kind in ("mean", "sum", "scaled")},
}


def terms() -> dict[str, tuple[Tensor, Tensor]]:
    """Each term of this process's share of a batch, and its gradient there."""
    torch.manual_seed(0)
    found = {}
    for name, term in TERMS.items():
        x = ranks.shard(torch.randn(4, 3, 5, 6, dtype=torch.float64)).requires_grad_()
        value = term(x)
        found[name] = value.detach(), torch.autograd.grad(value, x)[0]
    return found


@pytest.mark.parametrize("size", [2, 4])
def test_terms_are_those_of_the_whole_batch(processes, size):
    whole, parts = terms(), [part["terms"] for part in processes[size]]
    for name, (value, slope) in whole.items():
        for rank, part in enumerate(parts):
            each = len(slope) // size
            torch.testing.assert_close(part[name][0], value, rtol=0, atol=1e-12)
            # averaged over the processes afterwards, as those of parameters are
            torch.testing.assert_close(part[name][1] / size, slope[rank * each : (rank + 1) * each], rtol=0, atol=1e-12)


@functools.cache
def first_moves(tiny: Tiny, name: str, case: str = "ddad.segkd") -> dict[str, tuple[list[Tensor], dict[str, Tensor]]]:
    """Gradients and terms of the first move of each player, from the same weights."""
    dtype, _, training, *overrides = GAMES[name]
    found = {}
    for player in ("student", "source"):
        game = tiny.game(case, *ALONE, *overrides)
        painters = dict.fromkeys((game.source.player.network, game.source.player.ema_or_live))
        for module in (game.teacher, game.student.network, *painters):
            module.to(dtype)
            if not training:
                module.eval().train = lambda mode=True, module=module: module
        for painter in painters:
            painter.forward = lambda z, size, paint=painter.forward: paint(z.to(dtype), size)
        side, caught = {"student": game.student, "source": game.source.player}[player], []
        parameters = list(side.network.parameters())

        def step(parameters=parameters, caught=caught) -> None:
            caught.extend(torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in parameters)

        side.optimizer.step = step
        side.average = None
        values = game.moves[player](0, 0)
        found[player] = caught, {term: value.detach() for term, value in values.items()}
    return found


def are_alike(one: dict, other: dict, near: float) -> None:
    """First moves of one process with the whole batch, and of one of several."""
    for player, (whole, values) in one.items():
        assert max(float(g.abs().max()) for g in whole) > 1e-4
        gradients, terms = other[player]
        assert len(gradients) == len(whole) > 10
        assert max(float((a - b).abs().max()) for a, b in zip(gradients, whole, strict=True)) < near
        assert terms.keys() == values.keys()


@pytest.mark.parametrize(("size", "name"), [(size, name) for size, names in PLAYED.items() for name in names])
def test_first_moves_are_those_of_one_process(processes, tiny, size, name):
    one, near = first_moves(tiny, name), GAMES[name][1]
    for part in processes[size]:
        are_alike(one, part[name], near)
        # a student's term is that of its own images; their mean is taken of gradients
        for term, value in one["source"][1].items():
            assert float(part[name]["source"][1][term]) == pytest.approx(float(value), abs=near)


def of_methods(tiny: Tiny) -> dict[str, dict]:
    return {case: first_moves(tiny, "float64", case) for case in METHODS}


@pytest.mark.faults
def test_first_moves_of_other_methods_too(tiny, forks, tmp_path):
    one, parts = of_methods(tiny), together(2, tmp_path, functools.partial(of_methods, tiny))
    for case in METHODS:
        for part in parts:
            are_alike(one[case], part[case], 1e-9)
        for term, value in one[case]["source"][1].items():  # some are means over images, and each tells that of its own
            mean = sum(float(part[case]["source"][1][term]) for part in parts) / len(parts)
            assert mean == pytest.approx(float(value), abs=1e-9), (case, term)


@functools.cache
def played(tiny: Tiny, name: str) -> dict[str, Tensor]:
    """The weights of both players after three steps."""
    dtype, _, _, *overrides = GAMES[name]
    game = tiny.game("ddad.segkd", *ALONE, *overrides)
    for module in (game.teacher, game.student.network, game.source.network):
        module.to(dtype)
    paint, game.student.average = game.source.network.forward, None
    game.source.network.forward = lambda z, size: paint(z.to(dtype), size)
    for step in range(3):
        game.play(step)
    sides = {"student": game.student.network, "source": game.source.network}
    return {f"{side}.{key}": p.detach() for side, network in sides.items() for key, p in network.named_parameters()}


@pytest.mark.parametrize("size", [2, 4])
def test_three_steps_are_those_of_one_process(processes, tiny, size):
    one = played(tiny, "float64")
    for part in processes[size]:
        assert part["played"].keys() == one.keys()
        for key, whole in one.items():
            torch.testing.assert_close(
                part["played"][key], whole, rtol=0, atol=1e-5, msg=lambda text, key=key: f"{key}: {text}"
            )


def updates(bad: int) -> tuple[list[str | None], Tensor]:
    """Three updates of a player, of which one loss is not finite in one process."""
    torch.manual_seed(0)
    network = nn.Linear(3, 1)
    player = Player("student", network, partial(torch.optim.SGD, lr=0.1, fused=True))
    x, said = ranks.shard(torch.randn(4, 3)), []
    for step in range(3):
        loss = network(x).square().mean() * (float("nan") if step == 1 and ranks.rank() == bad else 1)
        verdict = player.update(loss, step, Snapshot([network]))
        said.append(verdict.why() if verdict.refused else None)
    return said, network.weight.detach()


def test_all_refuse_what_one_refuses(processes):
    parts = [part["updates"] for part in processes[2]]
    said = [part[0] for part in parts]
    assert [line[0] for line in said] == [line[2] for line in said] == [None, None]
    assert said[1][1] == "loss is nan" and said[0][1].endswith("not finite in another process")
    alone = updates(bad=0)
    torch.testing.assert_close(parts[0][1], alone[1])
    assert torch.equal(parts[0][1], parts[1][1])


def normalised(dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Of two layers, the second without weights: output, gradients of the input and the weights, running statistics."""
    torch.manual_seed(0)
    network = synced(
        nn.Sequential(nn.BatchNorm2d(3, dtype=dtype), nn.ReLU(), nn.BatchNorm2d(3, affine=False, dtype=dtype))
    )
    layer = network[0]
    assert type(layer) is type(network[2]) is SyncedBatchNorm2d
    with torch.no_grad():
        layer.weight.copy_(torch.randn(3)), layer.bias.copy_(torch.randn(3))
    x = (
        ranks.shard(torch.randn(4, 3, 5, 6, dtype=dtype) * 3 + 1)
        .contiguous(memory_format=torch.channels_last)
        .requires_grad_()
    )
    y = network(x)
    (y * ranks.shard(torch.randn(4, 3, 5, 6, dtype=dtype))).sum().backward()
    running = [(layer.running_mean, layer.running_var) for layer in (layer, network[2])]
    return y.detach(), x.grad, layer.weight.grad, layer.bias.grad, *running[0], *running[1]


def test_batchnorm_over_all_processes(processes):
    whole, parts = normalised(torch.float64), [part["normalised"] for part in processes[2]]
    for index in (0, 1):
        torch.testing.assert_close(torch.cat([part[index] for part in parts]), whole[index])
    for index in (2, 3):
        torch.testing.assert_close(parts[0][index] + parts[1][index], whole[index])
    for part in parts:
        torch.testing.assert_close(part[4:], whole[4:])


def everything(tiny: Tiny) -> dict[str, object]:
    moves = {name: first_moves(tiny, name) for name in PLAYED[ranks.size()]}
    found = {"terms": terms(), **moves, "played": played(tiny, "float64")}
    return found if ranks.size() > 2 else {**found, "updates": updates(bad=1), "normalised": normalised(torch.float64)}


@pytest.fixture(scope="module")
def processes(tiny, forks, tmp_path_factory) -> dict[int, list[dict]]:
    """What each of two and of four processes found; they do everything at once."""
    return {
        size: together(size, tmp_path_factory.mktemp(f"{size}"), functools.partial(everything, tiny)) for size in (2, 4)
    }


def test_other_kinds_of_batchnorm_are_named():
    with pytest.raises(ValueError, match="BatchNorm3d cannot be synchronised"):
        synced(nn.Sequential(nn.BatchNorm2d(2), nn.BatchNorm3d(2)))


def test_a_batch_that_cannot_be_shared_out(monkeypatch):
    monkeypatch.setattr(ranks, "size", lambda: 3)
    with pytest.raises(ValueError, match="a batch of 4 cannot be shared out to 3 processes"):
        ranks.local_batch(4)
