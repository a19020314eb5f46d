"""Disks that are full, folders that are no folders, and two processes that want the same one."""

from __future__ import annotations

import ctypes
import math
import os
import random
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest

from segkd.cli.main import main
from segkd.foundation.errors import StorageError
from segkd.runs.folder import MARK, run_folder
from segkd.training import checkpoint
from segkd.training.distiller import Distiller
from segkd.training.teaching import Teaching
from tests.faults.child import Disk
from tests.faults.harness import PLAIN, TEACH

SHORT = ("run.threads=1", "run.steps=3", "run.save_every=1", "run.eval_every=9", "run.sample_every=1")


pytestmark = pytest.mark.usefixtures("own_threads")


def contents(folder: Path) -> dict[str, object]:
    """What lies in a folder: the bytes of files, the targets of links, the kinds of everything else. A lock names its holder."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        if path.name == ".lock" and not path.is_symlink():
            continue
        where = str(path.relative_to(folder))
        found[where] = (
            path.readlink() if path.is_symlink() else path.read_bytes() if path.is_file() else path.stat().st_mode
        )
    return found


@contextmanager
def plain_user() -> Iterator[None]:
    """Without root's right to write everywhere, where the tests run as root."""
    libc, overrides = ctypes.CDLL(None, use_errno=True), (1 << 1) | (1 << 2)  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    head, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    libc.capget(head, sets)
    before = sets[0]
    sets[0] = before & ~overrides
    libc.capset(head, sets)
    try:
        yield
    finally:
        sets[0] = before
        libc.capset(head, sets)


def replaced(run: Path, other: Path) -> None:
    run.rename(run.with_name("moved"))
    shutil.copytree(other, run)


def ours(run: Path) -> None:
    """A folder that a run had begun to use."""
    run.mkdir()
    (run / ".lock").write_text(f"1 {MARK}\n")


# What stands in the way before the run begins; `run` is its folder and `other` one that is not to be touched.
BEFORE: dict[str, Callable[[Path, Path], object]] = {
    "run folder read-only": lambda run, other: (run / "checkpoints").mkdir(parents=True) or run.chmod(0o555),
    "no right to make it": lambda run, other: run.parent.chmod(0o555),
    "no right to look": lambda run, other: run.mkdir() or run.chmod(0o333),
    "checkpoints read-only": lambda run, other: (run / "checkpoints").mkdir(parents=True) or (run / "checkpoints").chmod(0o555),
    "no right to list checkpoints": lambda run, other: ours(run) or (run / "checkpoints").mkdir() or (run / "checkpoints").chmod(0o333),
    "run folder is a file": lambda run, other: run.write_text("precious"),
    "checkpoints is a link": lambda run, other: run.mkdir() or (run / "checkpoints").symlink_to(other / "checkpoints"),
    "lock is a link": lambda run, other: run.mkdir() or (run / ".lock").symlink_to(other / "notes"),
    "recipe is a link": lambda run, other: ours(run) or (run / "recipe.yaml").symlink_to(other / "notes"),
    "diary is a fifo": lambda run, other: ours(run) or os.mkfifo(run / "metrics.jsonl"),
    "summary is a folder": lambda run, other: ours(run) or (run / "summary.json").mkdir(parents=True),
    "samples is a file": lambda run, other: ours(run) or (run / "samples").write_text("precious"),
    "student is a link": lambda run, other: ours(run) or (run / "student").symlink_to(other),
}  # fmt: skip
# What happens while the second step is played.
DURING: dict[str, Callable[[Path, Path], object]] = {
    "run folder removed": lambda run, other: shutil.rmtree(run),
    "checkpoints removed": lambda run, other: shutil.rmtree(run / "checkpoints"),
    "run folder replaced": replaced,
}


@pytest.mark.row("W2-3", 1)
@pytest.mark.parametrize("place", [*BEFORE, *DURING])
def test_a_place_that_cannot_be_written(row, tiny, tmp_path, monkeypatch, capsys, place):
    run, other, played = tmp_path / "here" / "run", tmp_path / "other", []
    run.parent.mkdir()
    (other / "checkpoints").mkdir(parents=True)
    (other / "notes").write_text("precious")
    (other / ".lock").touch()
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(tiny.recipe("noise", *SHORT, f"run.dir={run}").to_yaml())
    play = Distiller.play

    def watched(game, step):
        played.append(step)
        if step == 1 and place in DURING:
            DURING[place](run, other)
        return play(game, step)

    monkeypatch.setattr(Distiller, "play", watched)
    if place in BEFORE:
        BEFORE[place](run, other)
    here, there = contents(run.parent), contents(other)
    for _ in row:
        with plain_user() if os.geteuid() == 0 else nullcontext():
            code = main(["distill", str(recipe), "--quiet"])
        told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("segkd: ")]  # not its notes
        assert (code, len(told)) == (5, 1), told
        assert str(run) in told[0] or str(run.parent) in told[0]
        assert contents(other) == there
        assert played == ([] if place in BEFORE else [0, 1])
        if place in BEFORE:
            after = contents(run.parent)
            assert {name: after.get(name) for name in here} == here
        elif place == "run folder replaced":
            assert contents(run) == there
            assert checkpoint.newest(run.with_name("moved") / "checkpoints")[0]["step"] == 1
    for folder in (run.parent, run, run / "checkpoints"):
        if folder.is_dir() and not folder.is_symlink():
            folder.chmod(0o755)


# What stands in a teacher's way; `made` is the folder of its file.
OUTPUT: dict[str, Callable[[Path, Path, Path], object]] = {
    "model is a link": lambda run, made, other: ours(run) or (run / "model").symlink_to(other),
    "its file is a folder": lambda run, made, other: (made / "t.safetensors").mkdir(parents=True),
    "its file is a link": lambda run, made, other: made.mkdir() or (made / "t.safetensors").symlink_to(other / "notes"),
    "its card is a fifo": lambda run, made, other: made.mkdir() or os.mkfifo(made / "t.md"),
    "its folder is a file": lambda run, made, other: made.write_text("precious"),
    "its folder is read-only": lambda run, made, other: made.mkdir() or made.chmod(0o555),
}


@pytest.mark.row("W2-3", 1)
@pytest.mark.parametrize("place", OUTPUT)
def test_a_teacher_that_could_not_be_written_at_the_end(row, tiny, tmp_path, monkeypatch, capsys, place):
    run, made, other, played = tmp_path / "here" / "run", tmp_path / "here" / "made", tmp_path / "other", []
    run.parent.mkdir()
    other.mkdir()
    (other / "notes").write_text("precious")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(TEACH.replace("ROOT", str(tiny.folder / "camvid")))
    OUTPUT[place](run, made, other)
    here, there = contents(run.parent), contents(other)
    monkeypatch.setattr(Teaching, "play", lambda game, step: played.append(step))
    for _ in row:
        with plain_user() if os.geteuid() == 0 else nullcontext():
            code = main(
                ["teach", str(recipe), "--quiet", "run.steps=3", f"run.dir={run}", f"output={made}/t.safetensors"]
            )
        told = capsys.readouterr().err.splitlines()
        assert (code, len(told), played) == (5, 1, []), told
        assert str(run / "model" if "model" in place else made) in told[0]
        after = contents(run.parent)
        assert contents(other) == there and {name: after.get(name) for name in here} == here
    if made.is_dir():
        made.chmod(0o755)


@pytest.mark.faults
@pytest.mark.row("W1", 50)
@pytest.mark.parametrize("name", ["noise", "teach"])
def test_a_disk_that_is_full_at_any_byte(row, job, name):
    it, limits = job(name, *PLAIN).begun(1), random.Random(name)
    largest = max(path.stat().st_size for path in (it.folder / "run" / "checkpoints").iterdir())
    for _ in row:
        stopped = it.begun(1).start(Disk(int(math.exp(limits.uniform(0, math.log(largest))))))
        assert stopped.wait() == 5 and len(said := stopped.said()) == 1, said
        assert re.search(r"(run|taught)\S*: .*\(\d+ bytes needed, \d+ bytes free\)", said[0]), said
        assert it.standing() >= 1
        assert not list(it.folder.rglob(".tmp-*"))
    it.goes_on()


@pytest.mark.row("W4", 20)
def test_of_two_processes_one_goes_on(row, tiny, tmp_path):
    recipe = tiny.recipe("noise")
    for race in row:
        begun = recipe.model_copy(update={"run": recipe.run.model_copy(update={"dir": str(tmp_path / str(race))})})
        children, (ready, go), (heard, tell), (held, release) = [], os.pipe(), os.pipe(), os.pipe()
        for _ in range(2):
            pid = os.fork()  # it runs no torch operation
            if pid == 0:
                os.close(go)
                os.close(release)
                os.read(ready, 1)  # until both are there
                code = 1
                try:
                    with run_folder(begun):
                        os.write(tell, b".")
                        os.read(held, 1)  # until the other one has tried too, however busy the machine
                    code = 0
                except StorageError as error:
                    code = 5 if "in use by process" in str(error) and "\n" not in str(error) else 1
                finally:
                    os.write(tell, b".")
                    os._exit(code)
            children.append(pid)
        for end in (ready, go, tell):
            os.close(end)
        for _ in children:
            os.read(heard, 1)
        os.close(release)
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
        for end in (heard, held):
            os.close(end)
        assert sorted(codes) == [0, 5]


@pytest.mark.faults
@pytest.mark.row("W4", 3)
def test_of_two_commands_one_goes_on(row, job):
    it = job("noise", *PLAIN)
    for _ in row:
        racing = [it.fresh().start(), it.start()]
        codes = [child.wait() for child in racing]
        loser = racing[codes.index(5)]
        assert sorted(codes) == [0, 5] and re.fullmatch(
            r"segkd: run: in use by process \d+; .*run\.dir", loser.said()[0]
        )
        it.goes_on()
