"""The plan of the package in figures: those that were aimed at and reached are kept, and the tool can tell others."""

import ast

import pytest

from tools import plan

pytestmark = pytest.mark.usefixtures("own_threads")


def test_a_recipe_enters_builders_three_times_and_few_files_carry_it():
    run = plan.run_of_ddad()
    assert run.build == ["teacher_of", "check_classes", "distiller_of"]
    carried = {file for file in run.recipe if not file.startswith("recipe/")}
    assert all(file.startswith(("runs/", "builders/")) for file in carried) and len(carried) <= 14


@pytest.mark.parametrize("room", ["training", "runs", "methods", "synthesis"])
def test_nothing_is_made_from_more_than_eight_arguments(room):
    assert not plan.long_constructors(room)


@pytest.mark.parametrize(
    ("text", "count"),
    [("class A:\n  def __init__(self, a, /, b, *, c): ...", 3), ("@dataclass(frozen=True)\nclass A:\n  a: int\n  b: int = 2", 2), ("class A:\n  a: int", 0)],
)  # fmt: skip
def test_arguments_of_constructors_are_counted(text, count):
    assert plan.arguments(ast.parse(text).body[0]) == count


def test_the_page_says_what_was_counted(capsys):
    rooms = plan.lines()
    assert rooms["(top)"] < sum(rooms.values()) and rooms["training"] > 100
    page = plan.render([("files", 2, None, "a.py, b.py"), ("lines", 2000, 3000, ""), ("more", 11, 10, "")])
    assert page.endswith(
        "- files: 2 (a.py, b.py)\n- lines: 2,000 of 3,000\n- more: 11, **missed: at most 10 was aimed at**\n"
    )
