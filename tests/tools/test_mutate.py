"""The mutants of a small module, and that what was found of the package's own still means something."""

import ast
import json
from collections import Counter

import pytest
from ruamel.yaml import YAML

from tests.conftest import ROOT
from tools import mutate

MODULE = '''
"""A module, whose words are not changed."""
PACE = 0.5
def far(x: float = 1, *, kind: str = "near") -> float:
    """Nor are these."""
    if x > 2 and not kind:
        raise ValueError(f"{x} is 3 too many" + "!")
    with quiet(), open("far") as file:
        log(file)
    return -x * 2 if True else x ** 2
'''


@pytest.fixture
def found(tmp_path):
    (tmp_path / "m.py").write_text(MODULE)
    return list(mutate.mutants(tmp_path, "m.py"))


def test_everything_that_decides_is_changed_once_and_no_word_for_people(found):
    changes = Counter((mutant.place, mutant.was, mutant.becomes) for mutant, _ in found)
    assert changes == {
        ("module", "0.5", "1.0"): 1, ("far", "1", "2"): 1, ("far", "'near'", "'far'"): 1,
        ("far", "x > 2 and (not kind)", "x > 2 or not kind"): 1, ("far", "x > 2 and (not kind)", "False"): 1,
        ("far", "x > 2 and (not kind)", "True"): 1, ("far", "x > 2", "x >= 2"): 1, ("far", "2", "3"): 3,
        ("far", "not kind", "kind"): 1, ("far", "quiet()", "__import__('contextlib').nullcontext()"): 1,
        ("far", "'far'", "'near'"): 1, ("far", "log(file)", "nothing"): 1, ("far", "True", "False"): 1,
        ("far", "-x * 2", "-x / 2"): 1, ("far", "-x", "x"): 1, ("far", "x ** 2", "x * 2"): 1,
    }  # fmt: skip


def test_each_has_one_change_and_a_name_of_its_own(found):
    plain = ast.unparse(ast.parse(MODULE)).splitlines()
    assert len({mutant.name for mutant, _ in found}) == len(found)
    for _, text in found:
        lines = text.splitlines()
        assert sum(a != b for a, b in zip(plain, lines, strict=True)) == 1


def test_the_quickest_tests_that_run_a_line_come_first(found):
    mutant = next(mutant for mutant, _ in found if mutant.was == "-x * 2")
    assert mutant.lines == (10, 10)
    baseline = {
        "a::slow": {"seconds": 2.0, "lines": [6, 10], "setup": []}, "a::quick": {"seconds": 1.0, "lines": [10], "setup": []},
        "a::other": {"seconds": 0.1, "lines": [6], "setup": []}, "b::fixture": {"seconds": 0.5, "lines": [], "setup": [10]},
        "b::same": {"seconds": 0.7, "lines": [], "setup": []},
    }  # fmt: skip
    assert mutate.covering(baseline, mutant) == ["b::fixture", "b::same", "a::quick", "a::slow"]
    head = next(mutant for mutant, _ in found if mutant.was == "1")
    assert set(mutate.covering(baseline, head)) == set(baseline)  # the line of its `def` runs when it is imported


def test_what_was_found_of_the_package_is_told_and_explained():
    plan, known = YAML(typ="safe").load(mutate.PLAN), json.loads(mutate.FOUND.read_text())
    reasons = {item["mutant"]: item["why"] for item in plan["equivalent"]}
    assert len(reasons) == len(plan["equivalent"]) and all(len(why) > 20 for why in reasons.values())
    assert [name for name, (_, ends) in known.items() if ends in ("lives", "breaks") and name not in reasons] == []
    now = {mutant.name for file in plan["tests"] for mutant, _ in mutate.mutants(ROOT, file)}
    assert [name for name in reasons if name not in now] == []
    for file, tests in plan["tests"].items():
        assert (ROOT / file).exists() and all((ROOT / test.partition("::")[0]).exists() for test in tests)
