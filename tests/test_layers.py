"""Imports point downwards: what each room may import, and no circle among the files."""

import pytest

from tools.plan import cycle, imports

FLOORS = (
    {"foundation"},
    {"machine", "procedural", "recipe"},
    {"losses", "players"},
    {"models", "data"},
    {"synthesis"},
    {"methods", "evaluation"},
    {"training", "delivery"},
    {"builders"},
    {"runs"},
    {"benchmark", "reporting"},
    {"api"},
    {"cli"},
    {"__main__"},
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
BLIND = {"training": "recipe"}
"""Rooms that must not know what lies below them: the game reads no recipe."""


def wrong(source: str, target: str) -> bool:
    here, there = source.split(".")[1], target.split(".")[1]
    return here != there and (FLOOR[there] >= FLOOR[here] or BLIND.get(here) == there)


def test_imports_point_downwards() -> None:
    upward = [f"{a} imports {b}" for a, targets in imports().items() for b in sorted(targets) if wrong(a, b)]
    assert not upward


def test_no_circle() -> None:
    assert not cycle(imports())
    assert cycle({"a": {"b"}, "b": {"a"}})


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
