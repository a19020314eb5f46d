"""Loading: the typed result, round trips, kinds, and the helpers beside `load`."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segkd.foundation.errors import RecipeError, UsageError
from segkd.recipe import (
    DistillRecipe,
    TeachRecipe,
    Terms,
    differences,
    expand_root,
    load,
    with_values,
)
from segkd.recipe.datasets import data_sets
from tests.waiting import PATIENCE

Write = Callable[..., Path]
Errors = Callable[..., list[str]]


def test_a_distil_recipe(write: Write, distill: dict[str, Any], methods: dict[str, Terms]) -> None:
    recipe = load(write(distill), methods=methods)
    assert isinstance(recipe, DistillRecipe)
    assert recipe.weights == {"kd": 1.0, "adv": 0.5, "bn": 1.0, "balance": 0.0}
    assert recipe.teacher.mean == (0.5, 0.5, 0.5)
    assert recipe.teacher.options == {"decoder_channels": [64, 32]}
    assert recipe.synth.size == (128, 160)
    assert recipe.synth.sizes == ((96, 96),)
    assert recipe.student.optimizer.betas == (0.9, 0.999)
    assert recipe.options["ramp"] == 0.0
    assert recipe.run.dir == "runs/recipe-s1"
    assert load(write(distill), kind="distill", methods=methods) == recipe


def test_a_teach_recipe(write: Write, teach: dict[str, Any], methods: dict[str, Terms]) -> None:
    recipe = load(write(teach), methods=methods)
    assert isinstance(recipe, TeachRecipe)
    assert recipe.run.budget == 1500.0
    assert recipe.run.steps is None
    assert recipe.train.scale == (0.5, 2.0)
    assert recipe.data.final == "test"


@pytest.mark.parametrize("name", data_sets())
def test_data_sets(write: Write, errors_of: Errors, distill: dict[str, Any], teach: dict[str, Any], methods: dict[str, Terms], name: str) -> None:  # fmt: skip
    for told in (distill, teach):
        told["data"] = {"name": name, "root": "d"}
        recipe = load(write(told), methods=methods)
        assert recipe.data.name == name and recipe.data.final == (
            "val" if name in ("ade20k", "cityscapes", "voc") else "test"
        )
        assert load(write(told), ["data.final=mine"], methods=methods).data.final == "mine"
        told["data"]["name"] = f"{name}s"
        [line] = errors_of(told)
        assert line.endswith(f"did you mean {name!r}? (known: {', '.join(data_sets())})")
        told["data"]["name"] = 7
        assert errors_of(told)[0].endswith(f"data.name: expected one of {', '.join(data_sets())}; got 7")


@pytest.mark.parametrize(
    ("text", "seconds"), [("1500s", 1500), ("25m", 1500), ("2h", 7200), ("0.5h", 1800), ("90", 90), ("1e3", 1000)]
)
def test_budgets(write: Write, teach: dict[str, Any], methods: dict[str, Terms], text: str, seconds: float) -> None:
    assert load(write(teach), [f"run.budget={text}"], methods=methods).run.budget == seconds


def test_recipes_are_immutable(write: Write, distill: dict[str, Any], methods: dict[str, Terms]) -> None:
    recipe = load(write(distill), methods=methods)
    with pytest.raises(ValueError, match="frozen"):
        recipe.run.seed = 3


@pytest.mark.parametrize("kind", ["distill", "teach"])
def test_round_trip(
    write: Write, distill: dict[str, Any], teach: dict[str, Any], methods: dict[str, Terms], kind: str
) -> None:
    recipe = load(write(distill if kind == "distill" else teach), methods=methods)
    again = load(write(recipe.to_yaml(), "elsewhere/other.yaml"), methods=methods)
    assert again == recipe
    assert again.to_yaml() == recipe.to_yaml()


FLOATS = st.floats(1e-300, 1e300, allow_nan=False)
SOME_TEXT = st.text(st.characters(min_codepoint=1, max_codepoint=127), min_size=1, max_size=20)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lr=FLOATS, decay=st.floats(0, 1, exclude_max=True), seed=st.integers(0, 2**63 - 1),
       root=SOME_TEXT,
       size=st.tuples(st.integers(1, 8192), st.integers(1, 8192)),
       option=SOME_TEXT | FLOATS | st.none() | st.booleans(), clip=st.none() | FLOATS,
       names=st.lists(SOME_TEXT, min_size=2, max_size=4, unique=True))  # fmt: skip
def test_round_trip_of_any_values(
    write: Write, distill: dict[str, Any], methods: dict[str, Terms], lr: float, decay: float, seed: int, root: str,
    size: tuple[int, int], option: Any, clip: float | None, names: list[str],
) -> None:  # fmt: skip
    distill["student"] |= {"ema": decay, "optimizer": {"name": "sgd", "lr": lr, "clip": clip}}
    # the options of timm's encoders are not known beforehand
    distill["teacher"] |= {"encoder": "tu-resnet18", "classes": names, "options": {"x": option, "y": [option]}}
    distill["run"]["seed"] = seed
    distill["data"]["root"] = root
    distill["synth"]["size"] = list(size)
    recipe = load(write(distill), methods=methods)
    assert (recipe.student.optimizer.lr, recipe.run.seed, recipe.data.root) == (lr, seed, root)
    assert recipe.teacher.classes == tuple(names)
    assert load(write(recipe.to_yaml()), methods=methods) == recipe


def test_kinds(errors_of: Errors, distill: dict[str, Any], teach: dict[str, Any]) -> None:
    [line] = errors_of(teach, kind="distill")
    assert line.startswith("recipe.yaml:1: this recipe is for the other command: segkd teach ")
    [line] = errors_of(distill, kind="teach")
    assert line.startswith("recipe.yaml:1: this recipe is for the other command: segkd distill ")
    assert any("not both" in line for line in errors_of({**teach, **distill}))
    del distill["method"], teach["model"]
    assert errors_of(distill) == ["recipe.yaml:1: method: missing"]
    assert errors_of(teach) == ["recipe.yaml:1: model: missing"]
    assert "recipe.yaml:1: method: missing" in errors_of("")


def test_a_misspelt_kind_key_gets_its_suggestion(errors_of: Errors, distill: dict[str, Any]) -> None:
    errors = errors_of({"metod" if key == "method" else key: value for key, value in distill.items()})
    assert "recipe.yaml:1: metod: unknown key, did you mean 'method'?" in errors


def test_all_mistakes_at_once(errors_of: Errors) -> None:
    errors = errors_of(
        """\
method: ddad
weights: {adw: 1}
teacher:
  arch: FPN
  clases: camvid
  weights: none
student: {arch: FPN, encoder: resnet18, optimizer: {name: sdg, lr: fast}}
student: {}
synth: {kind: dcgan, size: [64]}
data: {name: !!str camvid}
run: {steps: 0, batch: 1}
"""
    )
    assert sorted(errors) == [
        "recipe.yaml:10: the tag tag:yaml.org,2002:str is not allowed",
        "recipe.yaml:11: run.steps: must be at least 1, got 0",
        "recipe.yaml:2: weights.adw: unknown term of ddad, did you mean 'adv'? (known: kd, adv, bn, balance)",
        "recipe.yaml:3: teacher.classes: missing",
        "recipe.yaml:3: teacher.encoder: missing: FPN needs an encoder",
        "recipe.yaml:5: teacher.clases: unknown key, did you mean 'classes'?",
        'recipe.yaml:6: teacher.weights: a teacher needs trained weights: name their file; got "none"',
        'recipe.yaml:7: student.optimizer.lr: expected a number, got "fast"',
        "recipe.yaml:7: student.optimizer.name: unknown value \"sdg\", did you mean 'sgd'? (known: sgd, adam, adamw)",
        "recipe.yaml:8: student: duplicate key, first given at recipe.yaml:7",
        "recipe.yaml:9: synth.optimizer: missing: dcgan is trained, and needs one",
        "recipe.yaml:9: synth.size: too few values in [64]",
    ]


def test_segnet_needs_no_encoder_and_noise_no_optimizer(
    write: Write, distill: dict[str, Any], methods: dict[str, Terms]
) -> None:
    distill["student"] |= {"arch": "SegNet", "encoder": None}
    del distill["synth"]["optimizer"]
    distill["synth"]["kind"] = "noise"
    recipe = load(write(distill), methods=methods)
    assert recipe.student.encoder is None
    assert recipe.synth.optimizer is None


def test_with_values(write: Write, distill: dict[str, Any], methods: dict[str, Terms]) -> None:
    recipe = load(write(distill), methods=methods)
    changed = with_values(recipe, {"run.steps": 7, "run.threads": None, "student.optimizer.lr": 0.5})
    assert (changed.run.steps, changed.run.threads, changed.student.optimizer.lr) == (7, None, 0.5)
    assert differences(recipe.as_dict(), changed.as_dict()) == ["run.steps", "run.threads", "student.optimizer.lr"]
    assert recipe.run.steps == 100
    with pytest.raises(RecipeError, match=r"run\.steps: must be at least 1, got 0"):
        with_values(recipe, {"run.steps": 0})
    with pytest.raises(RecipeError, match=r"run\.stps: unknown key, did you mean 'steps'\?"):
        with_values(recipe, {"run.stps": 1})


@pytest.mark.parametrize(
    ("a", "b", "keys"),
    [
        ({}, {}, []),
        ({"a": 1, "b": {"c": 2, "d": [1]}}, {"a": 1, "b": {"c": 2, "d": [1]}}, []),
        ({"a": 1, "b": {"c": 2, "d": [1]}}, {"a": 2, "b": {"c": 3, "d": [2]}}, ["a", "b.c", "b.d"]),
        ({"a": None}, {}, ["a"]),
        ({"b": {"c": 1}}, {"b": None}, ["b"]),
        ({"b": {"c": 1}}, {"b": {"c": 1, "e": 2}}, ["b.e"]),
    ],
)
def test_differences(a: dict[str, Any], b: dict[str, Any], keys: list[str]) -> None:
    assert differences(a, b) == keys
    assert differences(b, a) == keys


def test_expand_root(monkeypatch: pytest.MonkeyPatch) -> None:
    assert expand_root("data/x") == Path("data/x")
    monkeypatch.setenv("SEGKD_DATA", "/d")
    assert expand_root("${SEGKD_DATA}/camvid") == Path("/d/camvid")
    for name in ("delete", "empty"):
        monkeypatch.delenv("SEGKD_DATA") if name == "delete" else monkeypatch.setenv("SEGKD_DATA", "")
        with pytest.raises(UsageError, match="environment variable SEGKD_DATA"):
            expand_root("${SEGKD_DATA}/camvid")


def test_an_unset_root_is_no_error_of_the_recipe(
    write: Write, distill: dict[str, Any], methods: dict[str, Terms], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SEGKD_DATA", raising=False)
    distill["data"]["root"] = "${SEGKD_DATA}/camvid"
    assert load(write(distill), methods=methods).data.root == "${SEGKD_DATA}/camvid"


def test_neither_torch_nor_numpy_is_imported(write: Write, teach: dict[str, Any]) -> None:
    code = (
        "import sys; from segkd.recipe import load; load(sys.argv[1]); heavy = {'torch', 'numpy', 'cv2'} & "
        "set(sys.modules); sys.exit(str(heavy) if heavy else 0)"
    )
    root = str(Path(__file__).parents[2])
    subprocess.run([sys.executable, "-c", code, write(teach)], check=True, env={"PYTHONPATH": root}, timeout=PATIENCE)


@pytest.mark.parametrize("key", ["save_every", "eval_every", "sample_every"])
def test_rhythms_are_steps_or_times_as_written(write: Write, distill, methods, key: str) -> None:
    path = write(distill)
    assert getattr(load(path, [f"run.{key}=7"], methods=methods).run, key) == 7
    assert getattr(load(path, [f"run.{key}=90s"], methods=methods).run, key) == "90s"
    for wrong in ("0", "0s", "100.0", "true", "often", "-3m", "[3]"):
        with pytest.raises(RecipeError, match=rf"run\.{key}: expected a number of steps, or a time such as 3m"):
            load(path, [f"run.{key}={wrong}"], methods=methods)


def test_a_step_that_overlaps_has_at_most_so_many_moves(write: Write, errors_of: Errors, distill: dict[str, Any], methods: dict[str, Terms]) -> None:  # fmt: skip
    """17, as CamVid's: whoever stops a run in the first of them waits for at most 16 others."""
    moves = {"student_moves": 15, "synth_moves": 1, "keep_moves": 1}
    distill["game"] |= moves
    assert load(write(distill), methods=methods).game.keep_moves == 1
    for more in ({"keep_moves": 15}, {"keep_moves": 2}, {"student_moves": 10, "synth_moves": 6, "keep_moves": 2}):
        assert load(write({**distill, "game": {**moves, **more}}), methods=methods).game.student_moves >= 10
        [line] = errors_of({**distill, "game": {**moves, **more, "overlap": True}})
        assert "game.overlap: more than 17 moves a step: where they overlap, a signal waits for its end" in line


@pytest.mark.parametrize(
    ("folder", "message"),
    [("x" * 300, "a name of 300 bytes: at most 230"), ("runs/" + "\u00e9" * 150, "a name of 300 bytes"),
     ("a/" * 1990, "a path of more than 3800 bytes")],
)  # fmt: skip
def test_a_run_folder_that_no_file_system_takes(
    errors_of: Errors, distill: dict[str, Any], folder: str, message: str
) -> None:
    [line] = errors_of(distill, f"run.dir={folder}")
    assert line.startswith(f"command line: run.dir: {message}")


def test_a_recipe_whose_name_is_too_long_for_its_run(
    write: Write, distill: dict[str, Any], methods: dict[str, Terms]
) -> None:
    path = write(distill, "r" * 240 + ".yaml")
    with pytest.raises(RecipeError, match="run.dir: a name of 243 bytes: at most 230"):
        load(path, methods=methods)
    assert load(path, ["run.dir=out"], methods=methods).run.dir == "out"


def test_a_fall_of_the_learning_rate_at_every_moment(errors_of: Errors, distill: dict[str, Any]) -> None:
    [line] = errors_of(distill, "student.schedule={name: step, every: 1e-310}")
    assert line == "command line: student.schedule.every: must be at least 0.001, got 1e-310"
