"""What is nearer to the user wins: command line, own recipe, preset, inherited block."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segkd.foundation.errors import RecipeError
from segkd.recipe import Terms, load, presets, shipped, sources
from segkd.recipe.loading import read
from segkd.recipe.strict_yaml import dump, parse, plain
from tests.recipe.conftest import DISTILL, METHODS

Write = Callable[..., Path]
Errors = Callable[..., list[str]]

OWN = """\
extends: base/ddad.yaml
teacher: {arch: Unet, encoder: resnet18, classes: [a, b], weights: x.safetensors}
student: {arch: Unet, encoder: resnet18, ema: 0.9, optimizer: {name: adamw, lr: 1.0e-4}}
weights: {bn: 0.0, adv: 2.0}
options: {discrepancy: kl}
game: {student_moves: 3}
synth: {size: [64, 64], replay: 8, augment: []}
data: {name: null}
run: {steps: 10, batch: 2}
"""


def test_a_recipe_of_ones_own_beats_the_presets_that_it_inherits(write: Write) -> None:
    recipe = load(write(OWN))
    assert (recipe.weights["bn"], recipe.weights["adv"]) == (0.0, 2.0)
    assert (recipe.game.student_moves, recipe.options["discrepancy"]) == (3, "kl")
    assert (recipe.synth.replay, recipe.synth.augment) == (8, ())
    assert (recipe.student.ema, recipe.student.optimizer.lr) == (0.9, 1e-4)
    assert recipe.student.schedule.name == "cosine", "what it does not say is the preset's"
    assert recipe.student.optimizer.weight_decay == 0.01


KEYS = {  # key: whether a number is a fraction, and what holds where nobody says anything
    "options.ramp": (True, 0.0), "student.ema": (True, 0.999), "synth.collage_until": (True, 1.0), "run.keep": (False, 2),
    "synth.replay": (False, 0),
}  # fmt: skip
PLACES = ("blocks", "ddad", "ddad.segkd", "ddad.paper", "dfad")
FILE = st.fixed_dictionaries(
    {}, optional={place: st.dictionaries(st.sampled_from(sorted(KEYS)), st.booleans(), max_size=4) for place in PLACES}
)
CHOICES = st.fixed_dictionaries({}, optional={"method": st.sampled_from(["ddad", "dfad"]),
                                              "variant": st.sampled_from(["segkd", "paper", None])})  # fmt: skip


def nested(values: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        block, name = key.split(".")
        found.setdefault(block, {})[name] = value
    return found


@settings(max_examples=120, deadline=None)
@given(files=st.lists(st.tuples(FILE, CHOICES), min_size=1, max_size=4), given_keys=st.sets(st.sampled_from(sorted(KEYS))),
       given_choice=CHOICES)  # fmt: skip
def test_the_nearest_of_all_that_say_it_wins(
    files: list[tuple[Any, Any]], given_keys: set[str], given_choice: dict[str, Any]
) -> None:
    """Against a plain ranking of everything that was written, by file and place. False stands for a null."""
    complete = {block: dict(DISTILL[block]) for block in ("teacher", "student", "synth", "run")}
    del complete["student"]["ema"], complete["synth"]["replay"], complete["run"]["keep"]
    choice = {"method": "ddad", "variant": None}
    written: dict[str, list[tuple[tuple[int, int], str, Any]]] = {key: [] for key in KEYS}
    number = 0
    with tempfile.TemporaryDirectory() as folder:
        for at, (places, chosen) in enumerate(files):
            tree: dict[str, Any] = {"method": "ddad", **complete} if at == 0 else {"extends": f"{at - 1}.yaml"}
            tree |= chosen
            choice |= chosen
            for rank, place in enumerate(PLACES):
                values: dict[str, Any] = {}
                for key, real in places.get(place, {}).items():
                    number += 1
                    values[key] = (number / 1000 if KEYS[key][0] else number) if real else None
                    written[key].append(((at, rank if rank < 3 else 2), place, values[key]))
                target = tree if place == "blocks" else tree.setdefault("presets", {}).setdefault(place, {})
                for block, inner in nested(values).items():
                    target[block] = {**target.get(block, {}), **inner}
            (Path(folder) / f"{at}.yaml").write_text(dump(tree))
        overrides = [f"{key}={'null' if value is None else value}" for key, value in given_choice.items()]
        choice |= given_choice
        for key in sorted(given_keys):
            number += 1
            value = number / 1000 if KEYS[key][0] else number
            overrides.append(f"{key}={value}")
            written[key].append(((len(files), 0), "blocks", value))
        loaded = read(Path(folder) / f"{len(files) - 1}.yaml", overrides, methods=METHODS).recipe.as_dict()
    holding = {"blocks", choice["method"], f"{choice['method']}.{choice['variant']}"}
    for key, (_, default) in KEYS.items():
        said = [(rank, value) for rank, place, value in written[key] if place in holding]
        value = max(said, key=lambda item: item[0])[1] if said else None
        block, name = key.split(".")
        assert loaded[block][name] == (default if value is None else value), key


def test_a_preset_beside_a_block_beats_it_and_a_nearer_preset_all_that_is_farther(
    write: Write, distill: dict[str, Any], methods: dict[str, Terms]
) -> None:
    write(distill | {"presets": {"ddad.segkd": {"game": {"student_moves": 9, "synth_moves": 2}}}}, "far.yaml")
    write("extends: far.yaml\ngame: {student_moves: 4}\n", "block.yaml")
    write("extends: block.yaml\npresets: {ddad: {game: {student_moves: 7}}}\n", "preset.yaml")
    moves = {name: load(f"{name}.yaml", methods=methods).game.student_moves for name in ("far", "block", "preset")}
    assert moves == {"far": 9, "block": 4, "preset": 7}
    assert load("preset.yaml", methods=methods).game.synth_moves == 2


def test_whoever_chooses_another_method_is_told_what_holds(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(OWN)
    sources.tell.cache_clear()
    assert load(path).method == "ddad" and not capsys.readouterr().err
    recipe = load(path, ["method=dfad"])
    assert recipe.weights == {"kd": 1.0, "adv": 2.0}, "and its own values still win"
    assert (recipe.game.student_moves, recipe.synth.kind) == (3, "dcgan")
    assert capsys.readouterr().err.splitlines() == [
        "recipe.yaml:4: weights.adv: 2.0 holds, where preset dfad would say 1.0",
        'recipe.yaml:5: options.discrepancy: "kl" holds, where preset dfad would say "l1"',
        "recipe.yaml:6: game.student_moves: 3 holds, where preset dfad would say 5",
        "recipe.yaml:7: synth.replay: 8 holds, where preset dfad would say 0",
    ], "a weight of nothing needs no word"
    write(OWN.replace("bn: 0.0", "bn: 0.5"))
    assert load(path, ["method=dfad", "game.student_moves=5"]).game.student_moves == 5
    told = capsys.readouterr().err.splitlines()
    assert told == ["recipe.yaml:4: weights.bn: left out, since dfad has no such term (it has kd, adv)"]


def test_a_weight_of_another_method_beside_the_choice_is_a_mistake(write: Write) -> None:
    def error(text: str, *overrides: str) -> str:
        with pytest.raises(RecipeError) as caught:
            load(write(text), overrides)
        return str(caught.value)

    unknown = "weights.bn: unknown term of dfad (known: kd, adv)"
    assert error(OWN.replace("extends", "method: dfad\nextends")) == f"recipe.yaml:5: {unknown}"
    assert error(OWN, "method=dfad", "weights.bn=1") == f"command line: {unknown}"
    write(OWN.replace("bn: 0.0", "bnn: 1.0"), "parent.yaml")
    told = error("extends: parent.yaml\nmethod: dfad\n")
    assert told == "parent.yaml:4: weights.bnn: unknown term of dfad (known: kd, adv)", "no method has it"


PANEL = [pytest.param(name, marks=pytest.mark.slow) if name.startswith("panel/") else name for name in shipped()]


@pytest.mark.parametrize("name", PANEL)
def test_the_shipped_recipes_take_every_preset_without_a_word(name: str) -> None:
    for preset in presets(name):
        method, _, variant = preset.partition(".")
        assert not read(name, [f"method={method}", f"variant={variant or 'null'}"]).notes, preset


MEASURED = json.loads((Path(__file__).parent / "measured.json").read_text("utf-8"))


@pytest.mark.parametrize("case", [case for case in MEASURED if case != "all"])
def test_the_shipped_recipes_are_what_was_measured(case: str) -> None:
    """`measured.json` holds the settings of the logs in recipes/logs: what all have, and what each has otherwise."""
    name, _, choice = case.partition(" ")
    method, _, variant = choice.partition(".")
    chosen = [f"method={method}", f"variant={variant or 'null'}"] if choice else []
    found = read(name, chosen).recipe.as_dict()
    for key, value in {**MEASURED["all"], **MEASURED[case]}.items():
        at: Any = found
        for part in key.split("."):
            at = at.get(part) if isinstance(at, dict) else None
        assert at == value, key


def test_validate_does_not_judge_a_recipe_by_other_methods(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    from segkd.cli.main import main

    write(OWN)
    assert main(["recipes", "validate", "recipe.yaml"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("recipe.yaml: valid (distill, ddad.segkd") and not err
    assert main(["recipes", "validate", "quickstart", "method=dfad"]) == 0
    assert capsys.readouterr().out == "quickstart: valid (distill, dfad)\n", "variants are ddad's alone"


def test_a_preset_of_ones_own_is_checked(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    from segkd.cli.main import main

    more = "presets: {dfad: {options: {ramp: 2}}, ddad: {run: {keep: 0}}, ddad.quick: {run: {sed: 1}}}\n"
    write(OWN.replace("steps: 10", "stepz: 10") + more)
    assert main(["recipes", "validate", "recipe.yaml"]) == 2
    err = capsys.readouterr().err
    assert "recipe.yaml:9: run.stepz: unknown key, did you mean 'steps'?" in err
    assert (
        "recipe.yaml:10: options.ramp: must be at most 1.0, got 2" in err
        and "run.sed: unknown key" in err
        and "run.keep: must be" in err
    )
    write(OWN + "presets: {ddad: {run: {keep: 3}}}\n")
    assert main(["recipes", "validate", "recipe.yaml"]) == 0
    assert "also with ddad.paper, ddad.pictures; teacher not there yet: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("below", "above", "given", "length"),
    [
        ("steps: 10", "budget: 5m", [], (None, 300.0)),
        ("budget: 5m", "steps: 10", [], (10, None)),
        ("budget: 5m", "batch: 3", ["run.steps=20"], (20, None)),
        ("steps: 10", "batch: 3", ["run.budget=1m"], (None, 60.0)),
        ("steps: 10", "steps: 20", [], (20, None)),
        ("steps: 10", "steps: 20, budget: 5m", [], (20, 300.0)),  # as the run's own file says it once it is decided
        ("steps: 10", "budget: null", [], (10, None)),
    ],
)
def test_a_length_in_steps_takes_back_one_in_time_and_the_other_way_round(write: Write, distill, methods, below, above, given, length):  # fmt: skip
    distill["run"] = plain(parse(f"{{batch: 8, {below}}}", str)[0])
    base = write(distill, "base.yaml")
    recipe = load(write(f"extends: {base.name}\nrun: {{{above}}}\n", "own.yaml"), given, methods=methods)
    assert (recipe.run.steps, recipe.run.budget) == length


@pytest.mark.parametrize(
    ("more", "values", "wanted"),
    [
        ("presets: {ddda: {weights: {kd: 1.0}}}\n", [], ["recipe.yaml:10: presets.ddda: unknown method, did you mean 'ddad'?"]),
        ("", ["variant=fast"], ['command line: variant: unknown variant "fast"']),
        ("", ["method=ddda"], ['command line: method: unknown method "ddda", did you mean \'ddad\'?']),
        ("", ["variant=null"], ["command line: variant: none is chosen; ddad has paper, segkd, pictures", "recipe.yaml:7: synth.kind: missing"]),
        ("presets: {ddad.segkd: {extends: quickstart}}\n", [], ["recipe.yaml:10: presets.ddad.segkd.extends: a preset cannot"]),
        ("presets: {ddad.segkd: {method: dfad}}\n", [], ["recipe.yaml:10: presets.ddad.segkd.method: a preset cannot"]),
    ],
)  # fmt: skip
def test_a_choice_that_misses_its_preset_is_the_only_mistake_told(write: Write, capsys, more, values, wanted) -> None:
    from segkd.cli.main import main

    write(OWN + more)
    assert main(["recipes", "validate", "recipe.yaml", *values]) == 2
    told = capsys.readouterr().err.splitlines()
    assert len(told) == len(wanted) and all(one.startswith(want) for one, want in zip(told, wanted, strict=True)), told


def test_a_variant_of_the_command_line_that_changes_nothing_is_told(write: Write) -> None:
    path = write(OWN)
    for values in (["variant=paper"], ["method=dfad", "variant=null"], ["method=dfad"]):
        assert not any("changes nothing" in note for note in read(path, values).notes)
    for values, name in (
        (["method=dfad", "variant=segkd"], "dfad.segkd"),
        (["method=kd", "variant=paper"], "kd.paper"),
    ):
        variant = name.partition(".")[2]
        line = f"command line: variant: {variant} changes nothing, since there is no preset {name}"
        assert line in read(path, values).notes
