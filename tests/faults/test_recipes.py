"""Rows Y1 and Y3: malformed recipes are told by file, line and key; every shipped one is valid and plays."""

import os
import random
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from segkd.cli.main import main
from segkd.recipe.strict_yaml import dump
from tests.recipe.conftest import DISTILL, TEACH
from tests.recipe.test_strict_yaml import HOSTILE, SYNTAX
from tests.work import work_below

ROOT = Path(__file__).parents[2]
Recipe = dict[str, Any]
RECIPES: dict[str, Recipe] = {"distill": DISTILL, "teach": TEACH}


@dataclass(frozen=True)
class Fault:
    """A malformed recipe for one of the commands: the key that its error line must name, and words that stand in it."""

    kind: str
    text: str | bytes
    key: str = ""
    words: str = ""
    verb: str = "distill"


def put(recipe: Recipe, dotted: str, value: Any) -> Recipe:
    """A copy of the recipe with one key set; `...` leaves it out."""
    recipe = deepcopy(recipe)
    *blocks, key = dotted.split(".")
    block = recipe
    for name in blocks:
        block = block[name]
    block[key] = value
    if value is ...:
        del block[key]
    return recipe


def all_keys(block: Recipe, prefix: str = "") -> Iterator[str]:
    for key, value in block.items():
        yield prefix + key
        if isinstance(value, dict) and key != "options":
            yield from all_keys(value, f"{prefix}{key}.")


def slip(word: str, chance: random.Random) -> str:
    """One typing error: a letter dropped, doubled, changed or swapped with the next; never another valid key."""
    while (typo := _slip(word, chance)) in (word, "size", "sizes", "log", "lr"):
        pass
    return typo


def _slip(word: str, chance: random.Random) -> str:
    at = chance.randrange(len(word))
    kind = chance.choice(["drop", "double", "change", "swap"])
    if kind == "drop" and len(word) > 2:
        return word[:at] + word[at + 1 :]
    if kind == "double":
        return word[:at] + word[at] + word[at:]
    if kind == "swap" and at + 1 < len(word) and word[at] != word[at + 1]:
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    return word[:at] + chance.choice("qxzjk") + word[at + 1 :]


def rename(recipe: Recipe, dotted: str, new: str) -> Recipe:
    """A copy of the recipe with another name for one key, in its place."""
    recipe = deepcopy(recipe)
    *blocks, key = dotted.split(".")
    block = recipe
    for name in blocks:
        block = block[name]
    items = list(block.items())
    block.clear()
    block.update({new if name == key else name: value for name, value in items})
    return recipe


def typos() -> Iterator[Fault]:
    """Every key, terms among them, and values of a known set four times."""
    chance = random.Random(7)
    for verb, recipe in RECIPES.items():
        for dotted in all_keys(recipe):
            prefix, dot, key = dotted.rpartition(".")
            typo = slip(key, chance)
            yield Fault("typo", dump(rename(recipe, dotted, typo)), prefix + dot + typo, f"did you mean {key!r}?", verb)
    for dotted in ("method", "options.discrepancy", "student.schedule.name", "synth.kind", "data.name", "run.headline"):
        value = DISTILL
        for part in dotted.split("."):
            value = value[part]
        for _ in range(4):
            text = dump(put(DISTILL, dotted, slip(value, chance)))
            yield Fault("typo", text, dotted, f"did you mean {value!r}?")


TYPES = {
    "method": [3, ["ddad"], {"a": 1}, True],
    "weights": [1, ["kd"], "kd"],
    "weights.kd": ["1", True, [1]],
    "game.student_moves": [1.5, "5", True, 5.0],
    "options.log": ["yes", 1, "on", "True "],
    "teacher": [3, "x", []],
    "teacher.arch": [1, 2.5],
    "teacher.weights": [3, ["x"]],
    "teacher.classes": [1.5, {"a": 1}, True, "mapillary", [1, 2], ["a"], ["a", "a"], [], 1, 256],
    "teacher.mean": [0.5, "0.5", [0.5, 0.5], [0.5] * 4, ["a", 0.5, 0.5], [True, 0.5, 0.5]],
    "teacher.options": [1, [1]],
    "student.ema": ["0.9", True],
    "student.optimizer": ["sgd", 0.1],
    "synth.size": [128, [128], [1, 2, 3], [1.5, 2], ["a", 2], "128x128"],
    "synth.sizes": [3, [3], [[1]], [[1, 2.5]]],
    "synth.augment": ["flip", [1], ["flop"]],
    "run.steps": ["100", 1.5, 1e3],
    "run.threads": ["2", 1.5],
    "run.budget": ["25", "m", "25 min", "-5m", [1], True, "1e9h"],
}
RANGES = {
    "weights.kd": [-0.1, float("inf"), float("nan")],
    "game.student_moves": [0, -1, 1001],
    "game.synth_moves": [-1, 1001],
    "game.keep_moves": [-1, 1001],
    "student.schedule.every": [0, 1e-310, 1.5],
    "run.dir": ["x" * 300, "a/" * 2000],
    "options.temperature": [0, -1.0, float("inf")],
    "options.ramp": [-0.1, 1.1],
    "student.ema": [1.0, -0.1, float("nan")],
    "student.optimizer.lr": [0, -0.1, float("inf")],
    "student.optimizer.momentum": [1, -0.5],
    "student.optimizer.weight_decay": [-1],
    "student.schedule.power": [0],
    "student.schedule.warmup": [-1],
    "synth.optimizer.betas": [[0.5, 1.0], [-0.1, 0.9]],
    "synth.optimizer.clip": [0, -1],
    "synth.latent": [0, 10**6],
    "synth.size": [[0, 128], [128, -1], [128, 100_000]],
    "synth.replay": [-1],
    "teacher.classes": [255, [f"c{i}" for i in range(255)]],
    "teacher.std": [[0, 0.5, 0.5], [0.5, -0.5, 0.5]],
    "run.steps": [0, -5, 10**12],
    "run.batch": [0, 10**9],
    "run.seed": [-1, 2**63, 2**200],
    "run.keep": [0],
    "run.save_every": [0, "0s", "often", 1.5, "3 weeks"],
    "run.threads": [0, 10**6],
    "run.device": ["gpu", "cuda:x", ""],
    "data.root": ["", "x" * 5000],
}
REQUIRED = {
    "distill": ["method", "teacher", "student", "synth", "run", "teacher.arch", "teacher.encoder", "teacher.classes",
                "teacher.weights", "student.arch", "student.encoder", "student.optimizer", "student.optimizer.name",
                "student.optimizer.lr", "synth.kind", "synth.size", "synth.optimizer", "run.steps", "run.batch"],
    "teach": ["model", "train", "data", "run", "model.arch", "model.encoder", "model.classes", "train.optimizer",
              "train.crop", "train.optimizer.lr", "data.name", "run.batch", "run.budget"],
}  # fmt: skip
SHAPES = [
    "a: @",
    "a:\n- b\n c",
    "%",
    "a: *b",
    "--- a\n--- b",
    "&a",
    "? ? ?",
    "a: |9x\n",
    "{a: 1}}",
    "a\n",
    "3",
    "[]",
    "'x'",
]
TAGS = (
    "!!python/object/apply:os.system",
    "!!python/object/new:os.system",
    "!!python/name:os.system",
    "!!python/module:os",
)


def values(kind: str, table: dict[str, list[Any]]) -> Iterator[Fault]:
    for key, wrong in table.items():
        for value in wrong:
            yield Fault(kind, dump(put(DISTILL, key, value)), key)


def missing() -> Iterator[Fault]:
    for verb, keys in REQUIRED.items():
        for key in keys:
            for nothing in (None, ...):
                named = "run.steps" if key == "run.budget" else key
                yield Fault("missing", dump(put(RECIPES[verb], key, nothing)), named, "missing", verb)


def duplicates() -> Iterator[Fault]:
    """Each line with a key once more, right before it; with a scalar, so that the rest stays as it was."""
    for verb, recipe in RECIPES.items():
        lines = dump(recipe).splitlines()
        for at, line in enumerate(lines):
            indent, key = re.match(r"( *)([a-z_]+):", line).groups()
            text = "\n".join([*lines[:at], f"{indent}{key}: 0", *lines[at:]])
            yield Fault("duplicate", text, key, f"duplicate key, first given at FILE:{at + 1}", verb)


def syntax() -> Iterator[Fault]:
    for text, line in SYNTAX:
        yield Fault("syntax", text, words=f"FILE:{line}: not valid YAML")
    for text in SHAPES:
        yield Fault("syntax", text)


def hostile(canary: Path) -> Iterator[Fault]:
    for text, words in HOSTILE.values():
        yield Fault("hostile", text, words=words.replace("f.yaml", "FILE"))
    for tag in TAGS:
        yield Fault("hostile", f"method: {tag} ['touch {canary}']\n", words="tag")
    yield Fault("hostile", b"method: \xff\xfe", words="not UTF-8")
    yield Fault(
        "hostile",
        dump({**DISTILL, "a\nb": 1, "": 2, "k" * 5000: 3, "\u202e": 4, "teacher.arch": 5}),
        words="unknown key",
    )
    for parent in (
        "FILE",
        "/",
        ".",
        "/dev/zero",
        "/etc/passwd",
        "/proc/self/environ",
        "x" * 5000,
        "x" * 5000 + ".yaml",
    ):
        yield Fault("hostile", f'extends: "{parent}"\n' + dump(DISTILL), words="extends: ")


@pytest.fixture
def faults(tmp_path: Path) -> list[Fault]:
    """All of Y1; its harmful ones would leave a mark at `tmp_path/canary`."""
    return [
        *typos(), *values("type", TYPES), *values("range", RANGES), *missing(), *duplicates(), *syntax(),
        *hostile(tmp_path / "canary"),
    ]  # fmt: skip


OWED = {"typo": 60, "type": 40, "range": 40, "missing": 20, "duplicate": 15, "syntax": 15, "hostile": 10}


def lines_of(name: str, text: str) -> list[str]:
    """The lines of an error, all of which stand at a place in the file, or name it."""
    lines = text.splitlines()
    assert lines and "Traceback" not in text
    for line in lines:
        assert re.match(rf"{re.escape(name)}:(\d+: )?", line) and line.isprintable() and len(line) < 600, line
    return lines


@pytest.mark.row("Y1", 400)
def test_a_malformed_recipe_is_told_by_file_line_and_key(
    row, faults: list[Fault], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    right: Counter[bool] = Counter()
    for number, fault in enumerate(faults):
        file = Path("recipe.yaml")
        text = fault.text if isinstance(fault.text, bytes) else fault.text.replace("FILE", file.name).encode()
        file.write_bytes(text)
        with work_below(calls=3_000_000, megabytes=100) if fault.kind == "hostile" else nullcontext():
            code = main(["recipes", "validate", file.name] if number % 2 else [fault.verb, file.name])
        out, err = capsys.readouterr()
        assert code == 2 and not out, fault
        lines = lines_of(file.name, err)
        if fault.key:
            lines = [line for line in lines if re.match(rf"recipe\.yaml:\d+: {re.escape(fault.key)}(\[\d\])*: ", line)]
            assert lines, (fault, err)
        words = fault.words.replace("FILE", file.name)
        if fault.kind == "typo":
            right[words in lines[0]] += 1
        else:
            assert any(words in line for line in lines), (fault, lines)
        row.count()
    assert not (tmp_path / "canary").exists()
    counts = Counter(fault.kind for fault in faults)
    assert all(counts[kind] >= least for kind, least in OWED.items()), counts
    assert right[True] >= 0.97 * right.total(), right


def test_a_real_process_tells_many_of_them_at_once(faults: list[Fault], tmp_path: Path) -> None:
    faults = faults[::5]
    names = [f"{number:03}-{fault.kind}.yaml" for number, fault in enumerate(faults)]
    for name, fault in zip(names, faults, strict=True):
        text = fault.text if isinstance(fault.text, bytes) else fault.text.replace("FILE", name).encode()
        (tmp_path / name).write_bytes(text)
    done = subprocess.run(
        [sys.executable, "-m", "segkd", "recipes", "validate", *names], cwd=tmp_path, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False,
    )  # fmt: skip
    assert done.returncode == 2 and not done.stdout
    assert "Traceback" not in done.stderr and not (tmp_path / "canary").exists()
    told = {line.partition(":")[0] for line in done.stderr.splitlines()}
    assert told == set(names)
