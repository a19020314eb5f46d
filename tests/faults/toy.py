"""The smallest real game: a generator, a teacher and a student of a few layers each, played by the true spine."""

from __future__ import annotations

import gc
import os
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from segkd.methods.base import Rules
from segkd.methods.ddad import DDAD
from segkd.models.adapters import Adapter
from segkd.models.family import Sizes
from segkd.models.teacher import Teacher
from segkd.players.player import Player
from segkd.players.refusals import Refusals
from segkd.players.schedule import cosine
from segkd.synthesis.architectures import GeneratorNetwork
from segkd.synthesis.augment import Augment
from segkd.synthesis.bank import Replay
from segkd.synthesis.generator import Generator
from segkd.synthesis.source import Sampling
from segkd.training.distiller import Distiller
from segkd.training.game import Events
from segkd.training.log import RunLog
from segkd.training.loop import Loop
from segkd.training.networks import Networks
from segkd.training.resume import ResumePoint
from segkd.training.rhythm import Plan
from segkd.training.signals import StopFlag

LOW, HIGH = -torch.ones(3), torch.ones(3)
SIZE = (16, 16)


def block(inside: int, outside: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inside, outside, 3, padding=1, bias=False), nn.BatchNorm2d(outside), nn.ReLU())


class Toy(nn.Module):
    """Logits (N,3,H,W)."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = block(3, 4), nn.Sequential(nn.Dropout(0.2), nn.Conv2d(4, 3, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.encoder(x))


def toy_game(steps: int) -> Distiller:
    """DDAD with a bank, averages and augmentation."""
    torch.manual_seed(0)
    network = Toy()
    for _ in range(4):
        network.train()(torch.randn(4, 3, *SIZE))
    teacher = Teacher(network, ("a", "b", "c"), [0.5] * 3, [0.5] * 3, sizes=Sizes(4))
    stage = nn.Sequential(nn.Upsample(scale_factor=2), *block(4, 4))
    last = nn.Sequential(nn.Conv2d(4, 3, 3, padding=1), nn.Tanh())
    painter = GeneratorNetwork(4, SIZE, [stage], 4, last, LOW, HIGH)
    rules, options = (
        Rules(steps, student_moves=1, synth_moves=1, keep_moves=1),
        {"discrepancy": "l1+kl", "bn": "scaled", "ramp": 0.3},
    )

    def player(name: str, module: nn.Module) -> Player:
        return Player(name, module, partial(torch.optim.AdamW, lr=1e-3, fused=True), partial(cosine, steps=steps), 0.99)

    student = Adapter(Toy(), 3, sizes=Sizes(4))
    return Distiller(
        DDAD(rules, {"balance": 0.3}, options), Networks(teacher, student, keeps_heads=True), player("student", student),
        Generator(painter, 4, player("source", painter), Augment(("flip",), LOW, HIGH)),
        bank=Replay(5, torch.float32, True), sampling=Sampling(2, (SIZE,), 0), refusals=Refusals(5),
    )  # fmt: skip


def soak(folder: Path, steps: int) -> None:
    """Play `steps` steps in `folder`; a hundred times on the way, `meter` gets resident pages, descriptors and objects."""
    torch.set_num_threads(1)
    game, every = toy_game(steps), steps // 100
    (folder / "checkpoints").mkdir()
    diary, played = RunLog(folder / "metrics.jsonl", steps, quiet=True), 0

    def check() -> None:
        nonlocal played
        played += 1
        if played % every == 0:
            gc.collect()
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            with (folder / "meter").open("a") as meter:
                meter.write(f"{pages} {len(os.listdir('/proc/self/fd'))} {len(gc.get_objects())}\n")

    events = Events(lambda step: {"agreement": game.monitor.agreement(game.monitor.measured("ema"), 1)}, check=check)
    plan = Plan(steps, steps // 20, steps // 20, steps, keep=2)
    with StopFlag().listening() as stop:
        Loop(game, ResumePoint(0), plan, events, diary, folder, {}, stop).run()
