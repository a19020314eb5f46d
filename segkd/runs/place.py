"""Where and how the networks of a run are computed: device, precision and threads, resolved before step 1."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from segkd.foundation import terminal
from segkd.machine import ranks
from segkd.machine.device import device_of, machine, seconds_of
from segkd.machine.graphs import Recorded
from segkd.machine.precision import bf16_is_quicker, bf16_of
from segkd.models.adapters import Adapter
from segkd.models.taps import untouched_statistics
from segkd.recipe import Recipe
from segkd.runs.folder import about_run
from segkd.training.distiller import Distiller

TRIALS = 3


@dataclass(frozen=True)
class Place:
    """Where and how networks run.

    `in_fp32` names networks that run in fp32 where the others run in bf16; None: `choose_precision` is to measure which.
    """

    device: torch.device
    bf16: bool
    in_fp32: frozenset[str] | None = frozenset()

    @property
    def precision(self) -> Literal["fp32", "bf16"]:
        return "bf16" if self.bf16 else "fp32"


def place_of(recipe: Recipe, folder: Path | None = None) -> Place:
    """Resolve device, precision and threads.

    A run that goes on in `folder`, on the same machine and device, keeps the precision that `auto` chose first: it was
    measured, may come out otherwise the next time, and would change the result.
    """
    if recipe.run.threads is not None:
        torch.set_num_threads(recipe.run.threads)
    device = device_of(recipe.run.device)
    here = {"machine": machine(), "device": str(device)}
    before = about_run(folder) if folder is not None and recipe.run.precision == "auto" else {}
    if here.items() <= before.items() and (words := before.get("precision", "").split(", "))[0] in ("bf16", "fp32"):
        return Place(device, words[0] == "bf16", frozenset(word.removesuffix(" in fp32") for word in words[1:]))
    bf16 = bf16_of(recipe.run.precision, device)
    return Place(device, bf16, None if bf16 and recipe.run.precision == "auto" else frozenset())


def choose_precision(place: Place, game: Distiller) -> Place:
    """Let those of the game's networks run in fp32 from now on that are quicker so; returns the place that names them."""
    names = place.in_fp32
    if names is None:
        terminal.doing("preparing: timing fp32 and bf16")
        names = ranks.broadcast(frozenset() if ranks.rank() else quicker_in_fp32(game))
    keep_in_fp32(game, names)
    return replace(place, in_fp32=names)


def quicker_in_fp32(game: Distiller) -> frozenset[str]:
    """Which of teacher and student fp32 computes sooner than bf16, forward and backward at the game's batch and size.

    Measured once on a machine, and kept in the user's cache. Networks of depthwise convolutions may be among them where dense ones gain.
    """
    height, width = max(game.sampling.sizes, key=lambda size: size[0] * size[1])
    shape = (game.sampling.batch, game.teacher.channels, height, width)
    found = set()
    for name, network in (("teacher", game.teacher), ("student", game.student.network)):
        about = f"{name} {network} at {shape} on {game.device}{' in graphs' if game.networks.recording else ''}"
        if not bf16_is_quicker(about, partial(_bf16_wins, game, network, shape)):
            found.add(name)
    return frozenset(found)


def keep_in_fp32(game: Distiller, names: Collection[str]) -> None:
    """Let those of teacher and student, and the average of the student, be computed in fp32 from now on."""
    game.teacher.in_fp32 = "teacher" in names
    for network in (game.student.network, game.student.ema_or_live):
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
    """A forward and a backward pass, to the images where no parameter learns; none back where none is possible."""
    learning = [p for p in network.parameters() if p.requires_grad] or [images.requires_grad_()]
    with torch.autocast(images.device.type, torch.bfloat16):
        logits = forward(images)
    if logits.requires_grad:
        torch.autograd.grad(logits.float().square().mean(), learning, allow_unused=True)
