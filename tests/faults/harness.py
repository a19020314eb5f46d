"""Real `distill` and `teach` in children forked from one preloaded parent, and what an uninterrupted run leaves behind."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from segkd.reporting.report import up_to_date
from segkd.training import checkpoint
from segkd.training.log import read_lines
from tests.conftest import NETWORK, Tiny
from tests.faults import child
from tests.methods.conftest import cases

TEACH = f"""\
model: {{{NETWORK}, classes: camvid}}
train: {{optimizer: {{name: adamw, lr: 1.0e-3}}, crop: [32, 64], scale: [0.8, 1.2], ema: 0.9}}
data: {{name: camvid, root: ROOT, watch: val, final: test}}
run: {{batch: 2, device: cpu, dir: run}}
output: taught.safetensors
"""
JOBS = [*(case for case in cases() if "+" not in case), "teach"]
"""Every method with its variants, found by file name, and `teach`."""

AS_SHIPPED = (
    "run.threads=2",
    "run.precision=auto",
    "run.steps=8",
    "run.save_every=2",
    "run.eval_every=3",
    "run.sample_every=4",
)
"""Bytes are compared as the quickstart runs: bf16 where the processor has it, dropout, augmentation, averages, two threads."""
PLAIN = (
    "run.threads=1",
    "run.precision=fp32",
    "run.steps=2",
    "run.save_every=1",
    "run.eval_every=2",
    "run.sample_every=2",
)
"""The shortest run that saves, looks, samples and deletes an old checkpoint."""


class Child:
    """One forked command; `code` is its exit code once it has ended, minus the signal's number where that ended it."""

    def __init__(self, process: multiprocessing.process.BaseProcess, words: int) -> None:
        self.process, self._words = process, words

    def wait(self, seconds: float = 600) -> int | None:
        """The exit code; None while it is still running after so long."""
        self.process.join(seconds)
        return self.process.exitcode

    def kill(self) -> bool:
        """kill -9; False where it had ended before."""
        self.process.kill()
        self.process.join()
        return self.process.exitcode == -9

    def signal(self, number: int) -> None:
        os.kill(self.process.pid, number)

    def said(self) -> list[str]:
        """The lines that it wrote, once it has ended."""
        with os.fdopen(self._words, "rb") as pipe:
            return pipe.read().decode().splitlines()


class Forks:
    """Starts children of the server of multiprocessing, which has imported `child` and run no torch operation."""

    def __init__(self) -> None:
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload([child.__name__])

    def start(self, arguments: list[str], folder: Path, fault: Callable[[], None] | None = None) -> Child:
        """`segkd ARGUMENTS` in `folder`, with a fault armed."""
        ours, theirs = os.pipe()
        words = multiprocessing.connection.Connection(theirs, readable=False)
        process = self.context.Process(target=child.command, args=(arguments, folder, words, fault))
        process.start()
        words.close()
        return Child(process, ours)


@dataclass
class Job:
    """A command that is run again and again in one folder, which `fresh` empties."""

    forks: Forks
    arguments: list[str]
    folder: Path
    seconds: float = field(init=False)
    expected: dict[str, object] = field(init=False)

    def __post_init__(self) -> None:
        """The uninterrupted run; a copy of it stays for `begun`."""
        began = time.monotonic()
        whole = self.fresh().start()
        assert whole.wait() == 0, whole.said()
        self.seconds = time.monotonic() - began
        self.expected = remains(self.folder)
        shutil.copytree(self.folder, self.whole)

    @property
    def whole(self) -> Path:
        """Where the uninterrupted run is kept."""
        return self.folder.parent / f"{self.folder.name}-whole"

    def fresh(self) -> Job:
        """Nothing is left of the runs before."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        return self

    @cached_property
    def twin(self) -> Job:
        """The same in a folder beside it, for a second run at the same time; its bytes are its own: they hold its path."""
        return Job(self.forks, self.arguments, self.folder.with_name(f"{self.folder.name}-twin"))

    def begun(self, step: int) -> Job:
        """The run stands where it stood after `step`, if a checkpoint of that step was kept."""
        shutil.rmtree(self.folder)
        shutil.copytree(self.whole, self.folder)
        for path in checkpoint.listed(self.folder / "run" / "checkpoints"):
            if int(path.name.split("-")[1]) > step:
                path.unlink()
        for name in ("student", "model"):
            shutil.rmtree(self.folder / "run" / name, ignore_errors=True)
        (self.folder / "run" / "summary.json").unlink()
        assert self.standing() == step
        return self

    def start(self, fault: Callable[[], None] | None = None) -> Child:
        return self.forks.start(self.arguments, self.folder, fault)

    def standing(self) -> int | None:
        """The step of the newest checkpoint, of which none may be damaged; None without any."""
        found = checkpoint.newest(self.folder / "run" / "checkpoints")
        if found is None:
            return None
        assert not found[1], found[1]
        return found[0]["step"]

    def goes_on(self) -> None:
        """The same command, once more: it ends well, in the bytes of the uninterrupted run."""
        last = self.start()
        assert last.wait() == 0, last.said()
        self.ends_as_expected()

    def ends_as_expected(self, diary: bool = True) -> None:
        """The finished run has left what the uninterrupted one did; its diary may be left out."""
        found = remains(self.folder)
        names = (found.keys() | self.expected.keys()) - (set() if diary else {"diary"})
        different = {name for name in names if found.get(name) != self.expected.get(name)}
        assert not different, {name: (found.get(name), self.expected.get(name)) for name in different}


def job_of(forks: Forks, tiny: Tiny, name: str, folder: Path, *overrides: str) -> Job:
    """The job of a method, or of `teach`, in its smallest form."""
    recipe = folder.parent / f"{folder.name}.yaml"
    if name == "teach":
        recipe.write_text(TEACH.replace("ROOT", str(tiny.folder / "camvid")))
        return Job(forks, ["teach", str(recipe), "output=taught.safetensors", *overrides, "--quiet"], folder)
    recipe.write_text(tiny.recipe(name, "game.student_moves=1", *overrides, "run.dir=run").to_yaml())
    return Job(forks, ["distill", str(recipe), "--quiet"], folder)


UNCOMPARED = ("metrics.jsonl", "summary.json", "report.html", ".lock", "taught.md")
UNEQUAL = ("seconds", "peak_memory_mb")


def remains(folder: Path) -> dict[str, object]:
    """What a finished run left in its folder: hashes of the files, and what its logs say but for times and memory."""
    found: dict[str, object] = {}
    older = checkpoint.listed(folder / "run" / "checkpoints")[1:]  # a run that was stopped has saved other steps too
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path not in older and path.name not in UNCOMPARED:
            found[str(path.relative_to(folder))] = hashlib.sha256(path.read_bytes()).hexdigest()
    lines = read_lines(folder / "run" / "metrics.jsonl")
    found["diary"] = [{key: value for key, value in line.items() if key not in UNEQUAL} for line in lines]
    summary = json.loads((folder / "run" / "summary.json").read_text())
    found["summary"] = {key: value for key, value in summary.items() if key not in UNEQUAL}
    found["report"] = up_to_date(folder / "run")
    return found
