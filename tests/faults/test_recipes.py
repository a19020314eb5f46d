"""Row Y1: 200 malformed recipes. Each is refused with a line that names the place, and no traceback."""

import random
import re
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import pytest

from segkd.recipe.strict_yaml import dump

Errors = Callable[..., list[str]]
Recipe = dict[str, Any]


def put(recipe: Recipe, dotted: str, value: Any) -> Recipe:
    """A copy of the recipe with one key set."""
    recipe = deepcopy(recipe)
    *blocks, key = dotted.split(".")
    block = recipe
    for name in blocks:
        block = block[name]
    block[key] = value
    return recipe


def only_line(errors: list[str], dotted: str) -> str:
    """The one error line, which stands at a line of the file and begins with the key (or an item of its list)."""
    [line] = errors
    assert re.match(rf"recipe\.yaml:\d+: {re.escape(dotted)}(\[\d\])*: ", line), line
    return line


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
    recipe = deepcopy(recipe)
    *blocks, key = dotted.split(".")
    block = recipe
    for name in blocks:
        block = block[name]
    items = list(block.items())
    block.clear()
    block.update({new if name == key else name: value for name, value in items})
    return recipe


def test_typos_get_the_right_suggestion(errors_of: Errors, distill: Recipe, teach: Recipe) -> None:
    chance = random.Random(7)
    right, wrong = 0, []
    for recipe in (distill, teach):
        keys = [key for key in all_keys(recipe) if not key.startswith("weights.")]
        for dotted in keys * 2:
            key = dotted.rpartition(".")[2]
            typo = slip(key, chance)
            prefix = dotted[: len(dotted) - len(key)]
            lines = [line for line in errors_of(rename(recipe, dotted, typo)) if f": {prefix}{typo}: " in line]
            assert len(lines) == 1, (dotted, typo)
            assert re.match(r"recipe\.yaml:\d+: ", lines[0])
            assert "unknown key" in lines[0]
            if f"did you mean {key!r}?" in lines[0]:
                right += 1
            else:
                wrong.append((dotted, typo))
    assert right + len(wrong) >= 60
    assert right / (right + len(wrong)) >= 0.97, wrong


def test_typos_in_terms_methods_and_values(errors_of: Errors, distill: Recipe) -> None:
    chance = random.Random(3)
    right, total = 0, 0
    for dotted, key in [("weights.adv", "adv"), ("weights.bn", "bn"), ("weights.kd", "kd")]:
        for _ in range(4):
            typo = slip(key, chance)
            [line] = errors_of(rename(distill, dotted, typo))
            assert "(known: kd, adv, bn, balance)" in line
            right += f"did you mean {key!r}?" in line
            total += 1
    for dotted in ("method", "game.discrepancy", "student.schedule.name", "synth.kind", "data.name", "run.headline"):
        value = distill
        for part in dotted.split("."):
            value = value[part]
        for _ in range(4):
            line = only_line(errors_of(put(distill, dotted, slip(value, chance))), dotted)
            right += f"did you mean {value!r}?" in line
            total += 1
    assert right / total >= 0.9


TYPES = [
    (key, value)
    for key, values in {
        "method": [3, ["ddad"], {"a": 1}, True],
        "weights": [1, ["kd"], "kd"],
        "weights.kd": ["1", True, [1]],
        "game.student_moves": [1.5, "5", True, 5.0],
        "game.log": ["yes", 1, "on", "True "],
        "game.temperature": ["1", [1.0], False],
        "game.bn": [3, ["mean"]],
        "teacher": [3, "x", []],
        "teacher.arch": [1, 2.5],
        "teacher.weights": [3, ["x"]],
        "teacher.classes": [1.5, {"a": 1}, True, "cityscapes", [1, 2], ["a"], ["a", "a"], [], 1, 256],
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
    }.items()
    for value in values
]


@pytest.mark.parametrize(("key", "value"), TYPES)
def test_wrong_types(errors_of: Errors, distill: Recipe, key: str, value: Any) -> None:
    only_line(errors_of(put(distill, key, value)), key)


RANGES = [
    (key, value)
    for key, values in {
        "weights.kd": [-0.1, float("inf"), float("nan")],
        "game.student_moves": [0, -1, 16],
        "game.synth_moves": [-1, 16, 12],
        "game.temperature": [0, -1.0, float("inf")],
        "game.ramp": [-0.1, 1.1],
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
        "run.save_every": [0],
        "run.threads": [0, 10**6],
        "run.device": ["gpu", "cuda:x", ""],
        "data.root": ["", "x" * 5000],
    }.items()
    for value in values
]


@pytest.mark.parametrize(("key", "value"), RANGES)
def test_out_of_range(errors_of: Errors, distill: Recipe, key: str, value: Any) -> None:
    line = only_line(errors_of(put(distill, key, value)), key)
    assert "Traceback" not in line


REQUIRED = {
    "distill": ["method", "teacher", "student", "synth", "run", "teacher.arch", "teacher.encoder", "teacher.classes",
                "teacher.weights", "student.arch", "student.encoder", "student.optimizer", "student.optimizer.name",
                "student.optimizer.lr", "synth.kind", "synth.size", "synth.optimizer", "run.steps", "run.batch"],
    "teach": ["model", "train", "data", "run", "model.arch", "model.encoder", "model.classes", "train.optimizer",
              "train.crop", "train.optimizer.lr", "data.name", "run.batch", "run.budget"],
}  # fmt: skip


@pytest.mark.parametrize(("kind", "key"), [(kind, key) for kind, keys in REQUIRED.items() for key in keys])
@pytest.mark.parametrize("how", ["absent", "null"])
def test_missing(errors_of: Errors, distill: Recipe, teach: Recipe, kind: str, key: str, how: str) -> None:
    recipe = put(distill if kind == "distill" else teach, key, None)
    if how == "absent":
        *blocks, last = key.split(".")
        block = recipe
        for name in blocks:
            block = block[name]
        del block[last]
    named = "run.steps" if key == "run.budget" else key
    assert "missing" in only_line(errors_of(recipe, kind=kind), named)


@pytest.mark.parametrize("key", ["method", "game", "teacher", "run", "  arch", "  encoder", "  optimizer", "  lr"])
def test_duplicates(errors_of: Errors, distill: Recipe, key: str) -> None:
    lines = dump(distill).splitlines()
    at = next(number for number, line in enumerate(lines) if line.strip().startswith(f"{key.strip()}:"))
    indent = lines[at][: len(lines[at]) - len(lines[at].lstrip())]
    lines.insert(at, f"{indent}{key.strip()}: 0")
    errors = errors_of("\n".join(lines))
    assert f"recipe.yaml:{at + 2}: {key.strip()}: duplicate key, first given at recipe.yaml:{at + 1}" in errors


@pytest.mark.parametrize(
    "text",
    ["a: [", "a: {", "a: b: c", "a: 'x", "\ta: 1", "a: @", "a:\n- b\n c", "%", "a: *b", "--- a\n--- b", "&a", "? ? ?",
     "a: |9x\n", "- a\nb: 1", "{a: 1}}", "a: \x01", "!!python/object/apply:os.system [echo]", "a\n", "3", "[]", "'x'"],
)  # fmt: skip
def test_syntax_and_shape(errors_of: Errors, text: str) -> None:
    errors = errors_of(text)
    assert errors[0].startswith("recipe.yaml:")
    assert not any("Traceback" in line for line in errors)


def test_odd_keys_stay_on_one_line(errors_of: Errors, distill: Recipe) -> None:
    errors = errors_of({**distill, "a\nb": 1, "": 2, "k" * 5000: 3, "\u202e": 4, "teacher.arch": 5})
    assert len(errors) == 5


def test_no_code_is_run(errors_of: Errors, tmp_path: Any) -> None:
    canary = tmp_path / "canary"
    for tag in ("!!python/object/apply:os.system", "!!python/object/new:os.system", "!!python/name:os.system"):
        errors_of(f"method: {tag} ['touch {canary}']\n")
    assert not canary.exists()
