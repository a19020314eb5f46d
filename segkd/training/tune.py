"""In which precision a game's networks run: measured on themselves, once on a machine, and kept in the user's cache."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial

import torch
from torch import Tensor

from segkd.machine.device import seconds_of
from segkd.machine.graphs import Recorded
from segkd.machine.precision import bf16_is_quicker
from segkd.models.adapters import Adapter
from segkd.models.taps import untouched_statistics
from segkd.training.distiller import Distiller

TRIALS = 3


def quicker_in_fp32(game: Distiller) -> frozenset[str]:
    """Which of teacher and student fp32 computes sooner than bf16, forward and backward at the game's batch and size.

    Networks of depthwise convolutions may be among them where dense ones gain.
    """
    height, width = max(game.sampling.sizes, key=lambda size: size[0] * size[1])
    shape = (game.sampling.batch, 3, height, width)
    found = set()
    for name, network in (("teacher", game.teacher), ("student", game.student.network)):
        about = f"{name} {network} at {shape} on {game.device}{' in graphs' if game.networks.recording else ''}"
        if not bf16_is_quicker(about, partial(_bf16_wins, game, network, shape)):
            found.add(name)
    return frozenset(found)


def keep_in_fp32(game: Distiller, names: Collection[str]) -> None:
    """Let those of teacher and student, and the average of the student, be computed in fp32 from now on."""
    game.teacher.in_fp32 = "teacher" in names
    for network in (game.student.network, game.student.headline):
        network.in_fp32 = "student" in names


def _bf16_wins(game: Distiller, network: Adapter, shape: tuple[int, ...]) -> bool:
    devices = [game.device] if game.device.type == "cuda" else []
    times: dict[bool, list[float]] = {False: [], True: []}
    forward = (
        Recorded(network) if game.networks.recording else network
    )  # a host that is slow to launch hides the difference
    with (
        torch.random.fork_rng(devices),
        untouched_statistics(network),
        game.networks.passes.recomputing(network.network),
    ):
        images = torch.randn(shape, device=game.device).contiguous(memory_format=torch.channels_last)
        for _ in range(1 + TRIALS):  # in turn, so that what else the machine does just now slows both
            for in_fp32, seconds in times.items():
                network.in_fp32 = in_fp32
                seconds.append(seconds_of(partial(_both_ways, network, forward, images), game.device))
    network.in_fp32 = False
    return min(times[False][1:]) < min(times[True][1:])


def _both_ways(network: Adapter, forward: Callable[[Tensor], Tensor], images: Tensor) -> None:
    """A forward and a backward pass, to the images where no parameter learns."""
    learning = [p for p in network.parameters() if p.requires_grad] or [images.requires_grad_()]
    with torch.autocast(images.device.type, torch.bfloat16):
        logits = forward(images)
    torch.autograd.grad(logits.float().square().mean(), learning, allow_unused=True)
