"""Options that methods and further terms state, and what a recipe may say to them."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from segkd.foundation.errors import RecipeError, UsageError
from segkd.recipe import differences, filled, further_terms, load, method_terms, recalled, sources
from segkd.recipe.own_options import Option
from segkd.recipe.strict_yaml import dump

Write = Callable[..., Path]
STATED = '''
class Mine(Method):
    """A method.

    Options:
        kind: of its
            distance.
        share: of the run.
    """

    student, weights = ("kd",), {"kd": 1.0}
    options = dict(kind="l1", share=0.5, turns=2, sure=True, name="a", sides=[1, 2], seed=None)
    allowed = dict(kind=("l1", "kl"), share=">= 0, <= 1", turns="> 0")
'''


@pytest.fixture
def mine(tmp_path: Path) -> dict[str, Any]:
    """The methods that exist, and one with an option of each kind."""
    (tmp_path / "mine.py").write_text(STATED)
    return method_terms(extra=[tmp_path / "mine.py"])


def test_options_are_read_without_torch(mine: dict[str, Any]) -> None:
    options = mine["mine"].options
    assert options["kind"] == Option("l1", ("l1", "kl")) and options["kind"].doc == "of its distance"
    assert {name: option.default for name, option in options.items()} == {
        "kind": "l1", "share": 0.5, "turns": 2, "sure": True, "name": "a", "sides": [1, 2], "seed": None,
    }  # fmt: skip
    assert mine["dfad"].options.keys() == mine["ddad"].options.keys() - {"bn"}
    assert further_terms()["cwd"].options == {"temperature": Option(4.0, "> 0")}


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (
            "knd: l1",
            "knd: unknown option of mine, did you mean 'kind'? (known: kind, share, turns, sure, name, sides, seed)",
        ),
        ("kind: k", "kind: unknown value \"k\", did you mean 'kl'? (known: l1, kl)"),
        ("kind: 1", "kind: expected one of l1, kl, got 1"),
        ("share: 1.5", "share: must be at most 1.0, got 1.5"),
        ("share: half", 'share: expected a number, got "half"'),
        ("share: .inf", "share: expected a finite number, got Infinity"),
        ("turns: 0", "turns: must be more than 0, got 0"),
        ("turns: 1.0", "turns: expected a whole number, got 1.0"),
        ("turns: true", "turns: expected a whole number, got true"),
        ("sure: 1", "sure: expected true or false, got 1"),
        ("name: 3", "name: expected text, got 3"),
        ("sides: 3", "sides: expected a list, got 3"),
        ("sides: [[3]]", "sides[0]: expected a scalar; got [3]"),
        ("seed: {a: 1}", "seed: expected a scalar or a list of scalars; got a mapping"),
    ],
)
def test_what_an_option_cannot_be(
    write: Write, distill: dict[str, Any], mine: dict[str, Any], given: str, line: str
) -> None:
    del distill["weights"], distill["options"]
    with pytest.raises(RecipeError) as caught:
        load(write(dump(distill | {"method": "mine"}) + f"options: {{{given}}}\n"), methods=mine)
    [told] = caught.value.errors
    assert told.partition(": options.")[2] == line


def test_what_an_option_may_be(write: Write, distill: dict[str, Any], mine: dict[str, Any]) -> None:
    del distill["weights"]
    given = {"kind": "kl", "share": 1, "sides": [], "seed": [1, "a"], "name": None}
    recipe = load(write(distill | {"method": "mine", "options": given}), methods=mine)
    assert recipe.options == {
        "kind": "kl", "share": 1.0, "turns": 2, "sure": True, "name": "a", "sides": [], "seed": [1, "a"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("body", "line"),
    [
        ("options = {'a': 1.0}\n    allowed = {'a': '> 2'}", "options: a: its default 1.0 is not what it may be"),
        (
            "options = {'a': 1.0}\n    allowed = {'a': 'many'}",
            "options: a: expected a tuple of words for a text, or bounds",
        ),
        ("options = {'a': 1.0}\n    allowed = {'b': '> 2'}", "allowed: b: no option of the class is called so"),
        ("options = {'a': (1,)}", "options: a: expected true, false, a number, text, a list or None, not a tuple"),
        ("options = {1: 2}", "options: must be a dict by the names of options"),
        ("options = dict(a=x)", "options: must be a literal"),
    ],
)
def test_options_that_make_no_sense(tmp_path: Path, body: str, line: str) -> None:
    (tmp_path / "m.py").write_text(f"class M:\n    student = ('kd',)\n    {body}\n")
    with pytest.raises(UsageError) as caught:
        method_terms(tmp_path)
    assert str(caught.value).startswith(str(tmp_path / "m.py:")) and line in str(caught.value)


OLD = {"discrepancy": "kl", "temperature": 2.0, "log": False, "bn": "sum", "ramp": 0.25}


def test_options_by_their_old_names_mean_the_same_with_a_line(
    write: Write, distill: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    del distill["options"]
    sources.tell.cache_clear()
    new = load(write(distill | {"options": OLD}, "new.yaml"))
    write(distill | {"game": {**distill["game"], **OLD, "log": True}}, "base.yaml")
    old = load(write("extends: base.yaml\npresets: {ddad: {game: {log: null}}}\n"), ["game.log=false"])
    assert old.options == new.options == OLD and not hasattr(old.game, "log")
    assert capsys.readouterr().err.splitlines() == [
        "base.yaml:7: game.discrepancy, game.temperature, game.log, game.bn, game.ramp: called options.discrepancy,"
        " options.temperature, options.log, options.bn, options.ramp now",
        "recipe.yaml:2: game.log: called options.log now",
        "command line: game.log: called options.log now",
    ]  # fmt: skip
    assert load({**distill, "game": {"log": False}}).options["log"] is False
    assert load(new.as_dict(), ["game.bn=mean"]).options == {**OLD, "bn": "mean"}


def test_an_old_name_that_does_nothing_is_left_out_with_a_line(
    write: Write, distill: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """As in the resolved recipe of a run of another method."""
    del distill["options"], distill["weights"]
    sources.tell.cache_clear()
    recipe = load(write(distill | {"method": "dfad", "game": OLD}))
    assert recipe.options == {key: value for key, value in OLD.items() if key != "bn"}
    assert capsys.readouterr().err.endswith("options.ramp now; bn left out, since dfad has no such option\n")


def test_old_and_new_name_together_are_a_mistake(errors_of: Callable[..., list[str]], distill: dict[str, Any]) -> None:
    line = "game.log: is options.log now, and that is given too: leave one of them out"
    [told] = errors_of(distill | {"game": {"log": False}})
    assert told.endswith(line)
    del distill["options"]
    assert errors_of(distill, "game.log=false", "options.log=true") == [f"command line: {line}"]


def test_an_option_of_another_method_is_left_out_where_a_nearer_layer_chooses(
    write: Write, distill: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    sources.tell.cache_clear()
    del distill["weights"]
    path = write(distill)
    assert load(path, ["method=noise"]).options == {"discrepancy": "l1", "temperature": 2.0}
    assert "options.log: left out, since noise has no such option (it has disc" in capsys.readouterr().err
    with pytest.raises(RecipeError, match=r"options\.log: unknown option of noise"):
        load(path, ["method=noise", "options.log=true"])


def test_a_checkpoint_of_before_has_the_same_recipe(write: Write, distill: dict[str, Any]) -> None:
    del distill["options"]
    now = load(write(distill | {"options": OLD, "terms": {"cwd": 2.0}})).as_dict()
    before = deepcopy(now)
    before["game"] |= before.pop("options")
    before["terms"] = {"cwd": 2.0}
    recipe, unknown = recalled(before, "x")
    assert recipe.as_dict() == now == filled(before) and not unknown and not differences(filled(before), now)
    noise = {**before, "method": "noise"}
    assert recalled(noise, "x")[0].options == {"discrepancy": "kl", "temperature": 2.0}
    now["options"]["later"], now["terms"]["cwd"]["later"] = 1, 2
    assert recalled(now, "x")[1] == ["options.later", "terms.cwd.later"]
    now["options"]["bn"] = "median"
    with pytest.raises(RecipeError, match=r"x: of another version of segkd: options\.bn: unknown value"):
        recalled(now, "x")


def test_a_weight_of_a_further_term_or_a_weight_and_its_options(write: Write, distill: dict[str, Any]) -> None:
    path = write(distill | {"terms": {"cwd": 1.0}})
    assert load(path).terms == {"cwd": {"weight": 1.0, "temperature": 4.0}}
    assert load(path, ["terms.cwd.temperature=2"]).terms == {"cwd": {"weight": 1.0, "temperature": 2.0}}
    assert load(path, ["terms.cwd=0"]).terms["cwd"]["weight"] == 0.0
    assert load(path, ["terms.cwd=null"]).terms == {}


@pytest.mark.parametrize(
    ("terms", "line"),
    [
        (
            {"cwdd": 1.0},
            "terms.cwdd: unknown further term, did you mean 'cwd'? (known: {})".format(", ".join(further_terms())),
        ),
        ({"cwd": -1}, "terms.cwd.weight: must be at least 0.0, got -1"),
        ({"cwd": {"temperature": 2.0}}, "terms.cwd: missing: terms.cwd.weight"),
        ({"cwd": {"weight": 1.0, "temperature": 0}}, "terms.cwd.temperature: must be more than 0.0, got 0"),
        ({"cwd": {"weight": 1.0, "temp": 0}}, "terms.cwd.temp: unknown option of cwd (known: weight, temperature)"),
        (3, "terms: expected a mapping, got 3"),
    ],
)
def test_wrong_terms(errors_of: Callable[..., list[str]], distill: dict[str, Any], terms: Any, line: str) -> None:
    [told] = errors_of(distill | {"terms": terms})
    assert told.partition(": ")[2] == line
