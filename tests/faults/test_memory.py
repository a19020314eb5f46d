"""Out of memory at any moment: exit 6, the peak, two things to try, and a last checkpoint that is good."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from segkd.cli.main import main
from segkd.players.player import Player
from segkd.synthesis.source import Source
from segkd.training import checkpoint
from segkd.training.distiller import Distiller
from segkd.training.monitor import Monitor
from segkd.training.networks import Networks
from tests.faults.child import Memory
from tests.faults.harness import PLAIN

SAID = r"segkd: out of memory at a peak of \d+ MB: lower run\.batch, or .*synth\.size.*; what was saved so far is good"
LARGE = ("run.batch=8", "synth.size=[64, 128]", "run.save_every=1", "run.eval_every=9", "run.sample_every=9")
FULL = [Memory(100), Memory(300), Memory(0, backward=True), Memory(1, backward=True)]


@pytest.mark.row("O1", 4)
def test_an_address_space_that_is_full(row, forks, tiny, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(tiny.recipe("dfad", *PLAIN, *LARGE, "run.dir=run").to_yaml())
    for fault in row:
        place = tmp_path / str(fault)
        place.mkdir()
        full = forks.start(["distill", str(recipe), "--quiet"], place, FULL[fault])
        code, said = full.wait(), full.said()
        assert code == 6 and re.fullmatch(SAID, said[-1]), (code, said)
        assert checkpoint.newest(place / "run" / "checkpoints")[0]["step"] == 0


def torch_cpu(*given, **options):
    raise RuntimeError("[enforce fail at alloc_cpu.cpp:124] . DefaultCPUAllocator: can't allocate memory: you tried to"
                       " allocate 99 bytes. Error code 12 (Cannot allocate memory)")  # fmt: skip


def torch_device(*given, **options):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def numpy_host(*given, **options):
    raise np._core._exceptions._ArrayMemoryError((10**9,), np.dtype(float))


def plain(*given, **options):
    raise MemoryError


LOADS = {"torch": torch_cpu, "device": torch_device, "host": plain}


@pytest.mark.row("O1", 2)
@pytest.mark.parametrize(
    "kind", ["torch", *(pytest.param(kind, marks=pytest.mark.faults) for kind in ("device", "host"))]
)
def test_no_memory_to_read_a_file_is_no_damage_to_it(row, tiny, tmp_path, monkeypatch, capsys, own_threads, kind):
    """A good checkpoint is not passed over, and a good teacher not called unreadable, because memory ran out."""
    teacher = tmp_path / "teacher.pt"
    torch.save(load_file(tiny.folder / "teacher.safetensors"), teacher)
    recipe = tmp_path / "recipe.yaml"
    overrides = [
        "run.threads=1",
        "run.steps=2",
        "run.save_every=1",
        "game.student_moves=1",
        f"run.dir={tmp_path / 'run'}",
    ]
    recipe.write_text(tiny.recipe("noise", *overrides).to_yaml())
    assert main(["distill", str(recipe), "--quiet"]) == 0
    (tmp_path / "run" / "summary.json").unlink()
    before = {path: path.read_bytes() for path in checkpoint.listed(tmp_path / "run" / "checkpoints")}
    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(torch, "load", LOADS[kind])
        assert main(["distill", str(recipe), "--quiet"]) == 6
        assert re.fullmatch(SAID, capsys.readouterr().err.splitlines()[-1])
        assert {path: path.read_bytes() for path in checkpoint.listed(tmp_path / "run" / "checkpoints")} == before
        row.count()
        assert main(["distill", str(recipe), "--quiet", f"teacher.weights={teacher}", "run.dir=new"]) == 6
        row.count()
    assert main(["distill", str(recipe), "--quiet"]) == 0


PLACES = {
    "student's forward": (Networks, "student_outputs", torch_cpu),
    "synthesis": (Source, "augmented", torch_device),
    "teacher's forward": (Networks, "teacher_outputs", numpy_host),
    "update": (Player, "update", torch_device),
    "evaluation": (Monitor, "agreement", torch_cpu),
    "save": (checkpoint, "_plain", plain),
}


@pytest.mark.row("O1", 1)
@pytest.mark.parametrize("place", PLACES)
def test_no_memory_in_the_second_step(row, tiny, tmp_path, monkeypatch, capsys, own_threads, place):
    owner, name, error = PLACES[place]
    recipe = tmp_path / "recipe.yaml"
    overrides = ["run.steps=3", "run.save_every=1", "run.eval_every=1", "run.sample_every=9", "game.student_moves=1"]
    recipe.write_text(tiny.recipe("dfad", "run.threads=1", *overrides, f"run.dir={tmp_path / 'run'}").to_yaml())
    play = Distiller.play

    def second(game, step):
        if step == 1:
            monkeypatch.setattr(owner, name, error)
        return play(game, step)

    monkeypatch.setattr(Distiller, "play", second)
    for _ in row:
        assert main(["distill", str(recipe), "--quiet"]) == 6
        assert re.fullmatch(SAID, capsys.readouterr().err.splitlines()[-1])
        assert checkpoint.newest(tmp_path / "run" / "checkpoints")[0]["step"] == 1
