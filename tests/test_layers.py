"""Imports point downwards: what each room may import, and no circle among the files."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "segkd"
FLOORS = (
    {"foundation"},
    {"machine", "procedural", "recipe"},
    {"losses", "players"},
    {"models", "data"},
    {"synthesis"},
    {"methods", "evaluation"},
    {"training", "delivery"},
    {"build"},
    {"runs"},
    {"benchmark", "reporting"},
    {"api"},
    {"cli"},
    {"__main__"},
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
BLIND = {"training": "recipe"}
"""Rooms that must not know what lies below them: the game reads no recipe."""


def imports() -> dict[str, set[str]]:
    """Each module of the package with the modules of the package that it imports anywhere, the lazy ones included."""
    files = {".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path for path in PACKAGE.rglob("*.py")}
    files = {name.removesuffix(".__init__"): path for name, path in files.items()}
    found: dict[str, set[str]] = {name: set() for name in files if name != "segkd"}  # the front door imports on demand
    for name in found:
        for node in ast.walk(ast.parse(files[name].read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{name}: relative import"
                inner = [f"{node.module}.{alias.name}" for alias in node.names]
                found[name] |= {module if module in files else str(node.module) for module in inner}
            elif isinstance(node, ast.Import):
                found[name] |= {alias.name for alias in node.names}
    return {name: (modules & set(files)) - {"segkd"} for name, modules in found.items()}


def wrong(source: str, target: str) -> bool:
    here, there = source.split(".")[1], target.split(".")[1]
    return here != there and (FLOOR[there] >= FLOOR[here] or BLIND.get(here) == there)


def test_imports_point_downwards() -> None:
    upward = [f"{a} imports {b}" for a, targets in imports().items() for b in sorted(targets) if wrong(a, b)]
    assert not upward


def test_no_circle() -> None:
    TopologicalSorter(imports()).prepare()


@pytest.mark.parametrize(
    ("source", "target", "refused"),
    [
        ("segkd.methods.ddad", "segkd.losses.priors", False),
        ("segkd.losses.priors", "segkd.methods.ddad", True),
        ("segkd.models.teacher", "segkd.data.classes", True),
        ("segkd.data.sets.scenes", "segkd.procedural.scenes", False),
        ("segkd.training.loop", "segkd.recipe.loading", True),
    ],
)
def test_the_rule_can_fail(source: str, target: str, refused: bool) -> None:
    assert wrong(source, target) is refused
