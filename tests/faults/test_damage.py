"""Checkpoints and other files of a run after bits have flipped, tails are cut, or the power went out."""

from __future__ import annotations

import os
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from segkd.foundation.errors import StorageError
from segkd.recipe import differences
from segkd.training import checkpoint, resume
from tests.conftest import hash_of
from tests.faults.harness import PLAIN

PAGE = 4096


@pytest.fixture(scope="module")
def saved(tiny, tmp_path_factory) -> Path:
    """A checkpoint of a real game."""
    game = tiny.game("noise")
    game.play(0)
    return checkpoint.save(tmp_path_factory.mktemp("saved"), 1, {"step": 1, "game": game.state()}, 1)


def refused(path: Path) -> bool:
    with pytest.raises(StorageError, match="damaged .its bytes do not match the hash in its name") as caught:
        checkpoint.load(path)
    return str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.row("C1-2", 400)
def test_one_flipped_bit(row, saved):
    places, size = random.Random("bit"), saved.stat().st_size
    with saved.open("r+b", buffering=0) as file:
        for _ in row:
            place, bit = places.randrange(size), 1 << places.randrange(8)
            was = os.pread(file.fileno(), 1, place)
            os.pwrite(file.fileno(), bytes([was[0] ^ bit]), place)
            assert refused(saved), place
            os.pwrite(file.fileno(), was, place)
    assert checkpoint.load(saved)["step"] == 1


@pytest.mark.row("C1-2", 200)
def test_truncation(row, saved):
    data, lengths = saved.read_bytes(), random.Random("cut")
    for index in row:
        length = lengths.randrange(len(data)) if index else 0
        os.truncate(saved, length)
        assert refused(saved), length
        with saved.open("r+b") as file:
            file.seek(length)
            file.write(data[length:])
    assert checkpoint.load(saved)["step"] == 1


def zero_pages(path: Path, dice: random.Random) -> None:
    """Some pages were never written: the file has its length, and zeros in their place."""
    data = bytearray(path.read_bytes())
    pages = [page for page in range(0, len(data), PAGE) if any(data[page : page + PAGE])]
    for page in dice.sample(pages, dice.randint(1, len(pages))):
        data[page : page + PAGE] = bytes(len(data[page : page + PAGE]))
    path.write_bytes(data)


def cut_tail(path: Path, dice: random.Random) -> None:
    """The length itself was not written in full; often it is a whole number of pages, and 0 most of all."""
    length = dice.choice([0, dice.randrange(path.stat().st_size), dice.randrange(path.stat().st_size) // PAGE * PAGE])
    os.truncate(path, length)


def another_files_pages(path: Path, dice: random.Random) -> None:
    """The tail holds what lay on the disk before."""
    data = path.read_bytes()
    length = dice.randrange(len(data))
    path.write_bytes(data[:length] + dice.randbytes(len(data) - length))


def missing_rename(path: Path, dice: random.Random) -> None:
    """The bytes are there (or a part of them), under the name that they were written to."""
    temporary = path.with_name(f".tmp-{path.name}-123")
    path.rename(temporary)
    os.truncate(temporary, dice.choice([temporary.stat().st_size, dice.randrange(temporary.stat().st_size)]))


CUTS: list[Callable[[Path, random.Random], None]] = [zero_pages, cut_tail, another_files_pages, missing_rename]


@pytest.mark.faults
@pytest.mark.row("W5", 200)
def test_power_cut_in_a_save(row, tiny, job, tmp_path):
    """The one or two newest checkpoints suffer; the one before them is used, and each damaged one is named."""
    it, dice, game = job("noise", *PLAIN, "run.keep=4"), random.Random("W5"), tiny.game("noise")
    whole = it.begun(2).folder / "run" / "checkpoints"
    found = [checkpoint.load(path) for path in checkpoint.listed(whole)]
    expected, recipe = {state["step"]: hash_of(state["game"]) for state in found}, found[0]["recipe"]
    for index in row:
        folder = tmp_path / "run"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(whole, folder / "checkpoints")
        hit = checkpoint.listed(folder / "checkpoints")[: 1 + index % 2]
        cut = CUTS[index % len(CUTS)]
        for path in hit:
            cut(path, dice)
        said: list[str] = []
        left = 2 - len(hit)
        start = resume.restore(game, folder, recipe, differences, "auto", (), said.append)
        assert start.step == left, (index, cut.__name__)
        assert hash_of(game.state()) == expected[left]
        named = [path for path in hit if any(str(path) in line and "damaged" in line for line in said)]
        assert named == ([] if cut is missing_rename else hit), said


MADE = {"noise": "student", "teach": "model"}
"""What a finished run of each verb leaves, beside what all leave."""


@pytest.mark.faults
@pytest.mark.row("W5", 20)
def test_power_cut_and_the_command_again(row, job):
    """The whole run folder as the cut left it: the same command ends in the same bytes, whichever file has suffered."""
    jobs, dice = [(job(name, *PLAIN, "run.keep=4"), made) for name, made in MADE.items()], random.Random("again")
    for index in row:
        it, made = jobs[index // 5 % 2]
        files = ["checkpoints", "recipe.yaml", "metrics.jsonl", "summary.json", f"{made}/model.safetensors"]
        it.begun(2)
        name = files[index % len(files)]
        if name == "checkpoints":
            path = checkpoint.listed(it.folder / "run" / "checkpoints")[0]
        else:
            path = it.folder / "run" / name
            shutil.copytree(it.whole / "run", it.folder / "run", dirs_exist_ok=True)  # the run was a finished one
        CUTS[index % 3](path, dice)
        if name.startswith(made):
            (it.folder / "run" / "summary.json").unlink()  # written after the student had been synced
        last = it.start()
        assert last.wait() == 0, last.said()
        told = [line for line in last.said() if line.startswith("warning:")]
        assert all(re.search(rf"{path.name}: .*damaged", line) for line in told) and len(told) <= 1, told
        # The last line of a diary may be cut without a word, as a kill leaves it.
        owed = name in ("checkpoints", "recipe.yaml", "summary.json")
        assert bool(told) == owed or name == "metrics.jsonl", (name, told)
        it.ends_as_expected(diary=name != "metrics.jsonl")
