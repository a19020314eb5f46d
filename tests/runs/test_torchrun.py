"""Two real processes under torchrun: one result, one writer, and a run that goes on after a process was killed."""

from __future__ import annotations

import copy
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from segkd.runs import run as runs_run
from segkd.runs.place import Place
from segkd.training import checkpoint
from segkd.training.distiller import Distiller
from tests.conftest import ROOT
from tests.waiting import PATIENCE, until

LINUX = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="it is no Linux")


def start(
    recipe: Path, *arguments: str, processes: int = 2, nodes: Sequence[str] = ("--standalone",)
) -> subprocess.Popen:
    command = [sys.executable, "-m", "torch.distributed.run", *nodes, f"--nproc-per-node={processes}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [*command, "-m", "segkd", "distill", str(recipe), *arguments],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.fixture
def recipe(tiny, tmp_path) -> Path:
    file = tmp_path / "recipe.yaml"
    values = (
        "run.batch=4",
        "run.threads=1",
        "run.save_every=1",
        "data.name=camvid",
        "data.watch=val",
        "data.final=test",
    )
    file.write_text(tiny.recipe("ddad.segkd", *values, f"run.dir={tmp_path / 'run'}").to_yaml())
    return file


def under_way(recipe: Path, folder: Path) -> subprocess.Popen:
    """A run that has saved its first step."""
    run = start(recipe, f"run.dir={folder}")
    until(lambda: len(checkpoint.listed(folder / "checkpoints")) >= 2, lambda: run.poll() is None)
    return run


def student(folder: Path) -> bytes:
    return (folder / "student" / "model.safetensors").read_bytes()


def workers(parent: int) -> list[int]:
    """The processes that torchrun has started."""
    return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


def free_place() -> str:
    """A host and a port at which processes may meet."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


@LINUX
def test_two_processes_make_one_run(recipe, tmp_path):
    run = start(recipe)
    out, err = run.communicate(timeout=PATIENCE)
    assert run.returncode == 0, err
    whole = tmp_path / "run"
    summary = json.loads((whole / "summary.json").read_text())
    assert out.count("audit: data-free") == 1 and err.count("evaluation after step 4: agreement") == 1
    assert summary["real_images_for_training"] == 0 and summary["student_miou"] is not None
    state = checkpoint.load(checkpoint.listed(whole / "checkpoints")[0])
    assert state["environment"]["processes"] == 2 and len(state["others"]) == 1
    first, other = (part["student"]["network"] for part in (state["game"], state["others"][0]))
    weights = [key for key in first if "running" not in key and "num_batches" not in key]
    assert all(torch.equal(first[key], other[key]) for key in weights)
    assert any(not torch.equal(first[key], other[key]) for key in first)  # each has seen other images
    banks = (part["replay"]["images"][0] for part in (state["game"], state["others"][0]))
    assert not torch.equal(*banks)


class Rank:
    """What torchrun tells a process of the two that it starts."""

    def __init__(self, rank: int, place: str) -> None:
        host, _, port = place.partition(":")
        self.told = {
            "WORLD_SIZE": "2",
            "RANK": f"{rank}",
            "LOCAL_RANK": f"{rank}",
            "MASTER_ADDR": host,
            "MASTER_PORT": port,
        }

    def __call__(self) -> None:
        os.environ |= self.told


@LINUX
def test_two_processes_whose_batchnorm_is_one_draw_their_samples_together(recipe, tmp_path, forks):
    place, told = free_place(), [str(recipe), "run.sync_bn=true", "run.sample_every=1"]
    both = [forks.start(["distill", *told], tmp_path, Rank(rank, place)) for rank in (0, 1)]
    for run in both:
        assert run.wait(PATIENCE) == 0, run.said()
    assert len(list((tmp_path / "run" / "samples").glob("*.png"))) == 4
    state = checkpoint.load(checkpoint.listed(tmp_path / "run" / "checkpoints")[0])
    first, other = (part["student"]["network"] for part in (state["game"], state["others"][0]))
    assert all(torch.equal(first[key], other[key]) for key in first)  # the statistics too are those of all images


@LINUX
@pytest.mark.faults
@pytest.mark.parametrize("case", ["cgdd", "adi", "zskd"])
def test_two_processes_share_the_maps_of_one(tiny, tmp_path, forks, case):
    """Each has its part of the maps that one process draws, and all remember what each has seen."""
    file, place = tmp_path / "recipe.yaml", free_place()
    file.write_text(tiny.recipe(case, "run.batch=4", "run.threads=1", "run.dir=run").to_yaml())
    both = [forks.start(["distill", str(file)], tmp_path, Rank(rank, place)) for rank in (0, 1)]
    alone = forks.start(["distill", str(file), "run.dir=alone"], tmp_path)
    for run in (*both, alone):
        assert run.wait(PATIENCE) == 0, run.said()
    states = [checkpoint.load(checkpoint.listed(tmp_path / name / "checkpoints")[0]) for name in ("run", "alone")]
    first, other, whole = states[0]["game"], states[0]["others"][0], states[1]["game"]
    shares = torch.cat([part["replay"]["labels"][first["replay"]["next"]] for part in (first, other)])
    assert case == "cgdd" or torch.equal(shares, whole["replay"]["labels"][whole["replay"]["next"]])
    learnt = {key: value for key, value in first["student"]["network"].items() if "running" not in key}
    assert all(torch.equal(value, other["student"]["network"][key]) for key, value in learnt.items())
    own = first.get("source", {}).get("own", {})
    assert all(torch.equal(value, other["source"]["own"][name]) for name, value in own.items())
    assert ("maps.seen" in own) == (case == "cgdd")


@LINUX
@pytest.mark.slow
def test_two_nodes_make_the_run_that_one_with_two_processes_makes(recipe, tmp_path):
    nodes = ("--nnodes=2", "--rdzv-backend=c10d", f"--rdzv-endpoint={free_place()}", "--rdzv-id=run")
    apart = f"run.dir={tmp_path / 'apart'}"
    for run in [start(recipe, apart, processes=1, nodes=nodes) for _ in range(2)]:
        _, err = run.communicate(timeout=PATIENCE)
        assert run.returncode == 0, err
    _, err = start(recipe).communicate(timeout=PATIENCE)
    assert student(tmp_path / "apart") == student(tmp_path / "run"), err


@LINUX
@pytest.mark.faults
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_asked_to_stop_both_save_and_say_so_where_torchrun_has_a_code_of_its_own(recipe, tmp_path, number):
    whole, again = tmp_path / "run", tmp_path / "again"
    assert start(recipe).communicate(timeout=PATIENCE) and (whole / "summary.json").exists()
    run = under_way(recipe, again)
    run.send_signal(number)
    run.communicate(timeout=PATIENCE)
    assert run.returncode != 0
    # Else torchrun would have lost its patience, of 30 seconds, and killed them.
    assert json.loads((again / "summary.json").read_text()) == {"exit_code": 128 + number}
    assert not (again / "student").exists()

    run = start(recipe, f"run.dir={again}")
    assert run.communicate(timeout=PATIENCE) and run.returncode == 0
    assert student(again) == student(whole)
    assert json.loads((again / "summary.json").read_text())["student_miou"] is not None


@LINUX
@pytest.mark.faults
def test_a_killed_process_ends_all_and_the_run_goes_on_to_the_same_bytes(recipe, tmp_path):
    whole, again = tmp_path / "run", tmp_path / "again"
    assert start(recipe).communicate(timeout=PATIENCE) and (whole / "summary.json").exists()
    run = under_way(recipe, again)
    os.kill(workers(run.pid)[-1], signal.SIGKILL)
    run.communicate(timeout=PATIENCE)
    assert run.returncode != 0
    assert not (again / "summary.json").exists()

    refused = subprocess.run(
        [sys.executable, "-m", "segkd", "distill", str(recipe), f"run.dir={again}"], capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert refused.returncode == 2 and "2 processes made its checkpoint, and 1 would go on" in refused.stderr

    run = start(recipe, f"run.dir={again}")
    assert run.communicate(timeout=PATIENCE) and run.returncode == 0
    assert student(again) == student(whole)


def test_a_method_and_a_teacher_of_ones_own(recipe, tmp_path):
    file, teacher = tmp_path / "own.py", tmp_path / "net.py"
    file.write_text('from segkd.methods.ddad import DDAD\n\n\nclass Own(DDAD):\n    """As DDAD."""\n')
    teacher.write_text("from tests.conftest import tiny_teacher as build\n")
    values = ["method=own", "variant=null", "data=null", "run.steps=1", "--method-file", str(file)]
    run = start(recipe, *values, "--teacher-file", str(teacher), "teacher.weights=null")
    assert run.wait(PATIENCE) == 0, run.stderr.read()
    assert (tmp_path / "run/method/own.py").read_text() == file.read_text()
    assert (tmp_path / "run/teacher/net.py").read_text() == teacher.read_text()
    assert json.loads((tmp_path / "run/summary.json").read_text())["method"] == "own"


class Elsewhere(Rank):
    """A process on another kind of machine, of which `auto` says another precision."""

    def __call__(self) -> None:
        super().__call__()
        first = self.told["RANK"] == "0"
        found = Place(torch.device("cpu"), False, frozenset()) if first else Place(torch.device("cpu"), True, None)
        runs_run.place_of = lambda recipe, folder=None: found


@LINUX
def test_processes_whose_machines_differ_take_the_precision_of_the_first(recipe, tmp_path, forks):
    place = free_place()
    both = [forks.start(["distill", str(recipe)], tmp_path, Elsewhere(rank, place)) for rank in (0, 1)]
    for process in both:
        assert process.wait(PATIENCE) == 0, process.said()
    assert json.loads((tmp_path / "run/summary.json").read_text())["precision"] == "fp32"


class Spoilt(Rank):
    """A process of which the second checkpoint would hold a number that is none."""

    def __call__(self) -> None:
        super().__call__()
        if self.told["RANK"] == "0":
            return
        true, calls = Distiller.state, itertools.count()

        def state(game: Distiller) -> dict:
            found = copy.deepcopy(true(game))
            if next(calls) == 2:
                next(iter(found["student"]["network"].values())).fill_(torch.nan)
            return found

        Distiller.state = state


@LINUX
def test_what_is_not_finite_in_one_process_winds_all_of_them_back(recipe, tmp_path, forks):
    place, told = free_place(), ["distill", str(recipe), "run.rollback=1"]
    both = [forks.start(told, tmp_path, Spoilt(rank, place)) for rank in (0, 1)]
    for process in both:
        assert process.wait(PATIENCE) == 0, process.said()
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert (summary["steps"], summary["rollbacks"]) == (4, 1)


@LINUX
def test_a_finished_run_is_said_to_be_so_once(recipe, tmp_path, forks):
    place, told = free_place(), ["distill", str(recipe)]
    assert forks.start(told, tmp_path).wait(PATIENCE) == 0
    (tmp_path / "run/summary.json").write_text("{")
    both = [forks.start([*told, "--accept", "processes"], tmp_path, Rank(rank, place)) for rank in (0, 1)]
    for process in both:
        assert process.wait(PATIENCE) == 0, process.said()
    said = "\n".join(line for process in both for line in process.said())
    assert said.count("made again from the last checkpoint") == 1, said
