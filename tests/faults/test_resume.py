"""Every method and `teach`: resumed after any step, watched at every step, and played again, it is the same to the byte."""

from __future__ import annotations

import os
import random
import shutil
import signal
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from segkd import builders, runs
from segkd.data import catalogue
from segkd.evaluation.evaluate import evaluate
from segkd.foundation.errors import Stopped
from segkd.recipe import TeachRecipe, load
from segkd.runs.distill import save_samples
from segkd.training import checkpoint
from segkd.training.distiller import Distiller
from segkd.training.game import Events, Game
from segkd.training.log import RunLog
from segkd.training.loop import Loop
from segkd.training.resume import ResumePoint
from segkd.training.rhythm import Plan
from segkd.training.signals import StopFlag
from tests.conftest import Tiny, hash_of
from tests.faults.harness import TEACH
from tests.methods.conftest import tiers

CASES = [*tiers(), "teach"]
"""Every method by one of its variants in each commit's tests; other variants and students take longer than they tell."""
LITTLE = ("game.student_moves=1", "run.steps=16")  # as many steps as no schedule is done with


pytestmark = pytest.mark.usefixtures("one_thread")


def game_of(tiny: Tiny, case: str, *overrides: str) -> Game:
    """A fresh game."""
    if case != "teach":
        bank = ["game.keep_moves=1"] if tiny.recipe(case).synth.replay else []
        return tiny.game(case, *LITTLE, *bank, *overrides)
    path = tiny.folder / "teach.yaml"
    path.write_text(TEACH.replace("ROOT", str(tiny.folder / "camvid")))
    recipe = load(path, ["run.steps=16", *overrides], "teach")
    assert isinstance(recipe, TeachRecipe)
    return builders.teaching_of(recipe, torch.device("cpu"), bf16=False)[0]


def state_of(folder: Path, game: Game, step: int) -> str:
    """The name of a checkpoint of the game: it holds the hash of all its bytes."""
    folder.mkdir(exist_ok=True)
    return checkpoint.save(folder, step, {"game": game.state()}, 99).name


@pytest.mark.row("R4", 10)
@pytest.mark.parametrize("case", CASES)
def test_resumed_after_any_step(row, tiny, tmp_path, case):
    """Optimisers, averages, bank, buffers and counts included; the steps come in no order, so that no state lingers."""
    whole, other = game_of(tiny, case), game_of(tiny, case)
    whole.play(0)
    names, states, values = [state_of(tmp_path, whole, 1)], [], []
    for step in range(1, row.n + 1):
        values.append(whole.play(step))
        states.append(hash_of(whole.state()))
        names.append(state_of(tmp_path, whole, step + 1))
    order = random.Random(case).sample(range(row.n), row.n)
    for fault in row:
        index = order[fault]
        other.restore(checkpoint.load(tmp_path / names[index])["game"])
        torch.manual_seed(fault)  # whatever ran in between must not matter
        assert other.play(index + 1) == values[index]
        assert hash_of(other.state()) == states[index]


@pytest.mark.row("R5", 3)
@pytest.mark.parametrize("case", CASES)
def test_looking_writing_and_saving_change_nothing(row, tiny, tmp_path, case):
    game, recipe = game_of(tiny, case), tiny.recipe("ddad.segkd")
    player = game.player if case == "teach" else game.student
    data = catalogue.dataset("camvid", str(tiny.folder / "camvid"), "val", catalogue.classes_of("camvid"))

    def look(step: int) -> dict[str, object]:
        images = torch.rand(2, 3, 32, 64)
        for network in (player.ema_or_live, player.network):
            evaluate(network, data, mean=recipe.teacher.mean, std=recipe.teacher.std)
            network.eval()(images)
        return {"agreement": game.monitor.agreement(game.monitor.measured("ema"), 1)} if case != "teach" else {}

    def sample(step: int) -> None:
        if case != "teach":
            save_samples(tmp_path / "samples" / f"{step}.png", game, game.teacher, data.classes, "ema")

    never = Plan(2, 99, 99, 99, 1, log_every=99)
    kinds = [
        (Plan(2, 99, 1, 1, 1, log_every=99), Events(look, sample)),
        (Plan(2, 99, 99, 99, 1, log_every=1), Events()),
        (Plan(2, 1, 99, 99, 1, log_every=99), Events()),
    ]
    first = tmp_path / "first" / state_of(tmp_path / "first", game, 0)

    def played(name: str, plan: Plan, events: Events) -> str:
        game.restore(checkpoint.load(first)["game"])
        (tmp_path / name / "checkpoints").mkdir(parents=True)
        diary = RunLog(tmp_path / name / "metrics.jsonl", 2, quiet=True)
        Loop(game, ResumePoint(0), plan, events, diary, tmp_path / name, {}, StopFlag()).run()
        return hash_of(game.state())

    expected = played("never", never, Events())
    for kind in row:
        assert played(str(kind), *kinds[kind]) == expected


@pytest.mark.row("R6", 2)
@pytest.mark.parametrize("case", CASES)
def test_the_seed_decides_every_byte(row, tiny, case):
    states = []
    for seed in (0, 0, 1):
        torch.manual_seed(len(states))
        game = game_of(tiny, case, f"run.seed={seed}")
        for step in range(2):
            torch.rand(len(states) + 1)
            game.play(step)
        states.append(hash_of(game.state()))
    assert states[0] == states[1]
    row.count()
    assert states[1] != states[2]
    row.count()


@pytest.mark.faults
@pytest.mark.row("R4", 10)
def test_the_shipped_quickstart_resumed_after_any_step(row, tmp_path, monkeypatch):
    """As it is, for one more step: bf16 where the processor has it, dropout, augmentation, averages, two threads."""

    def distil(name: str) -> Path:
        short = ["data.final=null", f"run.steps={row.n}", "run.save_every=1", "run.keep=20", "run.threads=2"]
        rare = ["run.eval_every=1000", "run.sample_every=1000", f"run.dir={tmp_path / name}"]
        runs.distill(load("quickstart", [*short, *rare], "distill"), runs.Options(quiet=True))
        return tmp_path / name

    whole, play = distil("whole"), Distiller.play
    saved = [checkpoint.load(path) for path in checkpoint.listed(whole / "checkpoints")][::-1]

    def play_and_stop(game: Distiller, step: int) -> dict[str, float]:
        values = play(game, step)
        os.kill(os.getpid(), signal.SIGTERM)
        return values

    for after in row:
        folder, last = tmp_path / str(after), after + 1 == row.n
        shutil.copytree(whole / "checkpoints", folder / "checkpoints")
        for path in checkpoint.listed(folder / "checkpoints")[: row.n - after]:
            path.unlink()
        torch.manual_seed(after)
        with monkeypatch.context() as patch, nullcontext() if last else pytest.raises(Stopped):
            patch.setattr(Distiller, "play", play if last else play_and_stop)
            distil(str(after))
        state = checkpoint.load(checkpoint.listed(folder / "checkpoints")[0])
        assert state["step"] == after + 1 and hash_of(state["game"]) == hash_of(saved[after + 1]["game"])
    weights = [place / "student" / "model.safetensors" for place in (whole, folder)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
