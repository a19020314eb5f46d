"""Suggestions and the text of error lines."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segkd.recipe.messages import key_name, nearest, place, shown, slips, suggestion
from segkd.recipe.strict_yaml import Node

WORDS = st.text("abc", max_size=6)


@pytest.mark.parametrize(
    ("a", "b", "count"),
    [
        ("", "", 0),
        ("a", "", 1),
        ("classes", "clases", 1),
        ("lr", "rl", 1),
        ("abcd", "badc", 2),
        ("kitten", "sitting", 3),
    ],
)
def test_slips(a: str, b: str, count: int) -> None:
    assert slips(a, b) == count


@settings(deadline=None)
@given(WORDS, WORDS)
def test_slips_is_symmetric_and_bounded(a: str, b: str) -> None:
    assert slips(a, b) == slips(b, a)
    assert abs(len(a) - len(b)) <= slips(a, b) <= max(len(a), len(b))
    assert (slips(a, b) == 0) == (a == b)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("clases", "classes"), ("Classes", "classes"), ("weigths", "weights"), ("save-every", "save_every"),
        ("lrr", "lr"), ("l", "lr"), ("banana", None), ("", None), ("x", None),
    ],
)  # fmt: skip
def test_nearest(name: str, expected: str | None) -> None:
    assert nearest(name, ["classes", "weights", "save_every", "lr", "eval_every"]) == expected


def test_long_names_are_cheap() -> None:
    assert nearest("x" * 1_000_000, ["lr"]) is None


def test_suggestion() -> None:
    assert suggestion("adw", ["kd", "adv"]) == ", did you mean 'adv'? (known: kd, adv)"
    assert suggestion("zzz", ["kd", "adv"]) == " (known: kd, adv)"
    assert suggestion("zzz", []) == ""


@pytest.mark.parametrize(
    ("value", "text"),
    [("a", '"a"'), (1.0, "1.0"), (None, "null"), (True, "true"), ([1, "b"], '[1, "b"]'), ({"a": 1}, "a mapping"),
     ("a\nb", '"a\\nb"'), ("\u00e9", '"\u00e9"')],
)  # fmt: skip
def test_shown(value: object, text: str) -> None:
    assert shown(value) == text


@settings(deadline=None)
@given(st.text())
def test_shown_is_one_short_line(text: str) -> None:
    assert shown(text).isprintable()
    assert len(shown(text)) <= 60


def test_key_name() -> None:
    assert key_name(("synth", "sizes", 0, 1)) == "synth.sizes[0][1]"
    assert key_name(("a\nb", "")) == '"a\\nb".""'


def test_place_is_the_deepest_written_part() -> None:
    tree = Node({"a": Node({"b": Node([Node(1, "f:3")], "f:2")}, "f:1")}, "f:0")
    assert [place(tree, path) for path in ((), ("x",), ("a", "x"), ("a", "b"), ("a", "b", 0), ("a", "b", 7))] == [
        "f:0", "f:0", "f:1", "f:2", "f:3", "f:2",
    ]  # fmt: skip
