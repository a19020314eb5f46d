"""YAML: scalars of 1.2, bounds, places, and the way back."""

import math
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from segkd.foundation.errors import RecipeError
from segkd.recipe.strict_yaml import dump, parse, plain
from tests.work import work_below


def locate(line: int) -> str:
    return f"f.yaml:{line}"


def read(text: str) -> Any:
    node, errors = parse(text, locate)
    assert errors == []
    return plain(node)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4), ("1E5", 1e5), ("1.0e-3", 1e-3), (".5", 0.5), ("5.", 5.0), ("-2.5e+3", -2500.0), ("+1.5", 1.5),
        ("0", 0), ("-7", -7), ("+7", 7), ("010", 10), ("0o17", 15), ("0x1F", 31), ("1_000", "1_000"), ("0b1", "0b1"),
        ("true", True), ("false", False), ("True", True), ("yes", "yes"), ("no", "no"), ("on", "on"), ("off", "off"),
        ("y", "y"), ("null", None), ("~", None), ("", None), ("nan", "nan"), ("inf", "inf"), (".inf", math.inf),
        ("-.INF", -math.inf), ("12:30:45", "12:30:45"), ("2001-01-01", "2001-01-01"), ("1.2.3", "1.2.3"), ("=", "="),
        ("'1e-4'", "1e-4"), ('"true"', "true"), ("'null'", "null"), ('""', ""), ("e5", "e5"), ("1e", "1e"), (".", "."),
        ("[1, 1e1, no]", [1, 10.0, "no"]), ("{a: 1e-1}", {"a": 0.1}), ("|\n  12\n", "12\n"), ("<<", "<<"),
    ],
)  # fmt: skip
def test_scalars_of_yaml_1_2(text: str, value: Any) -> None:
    found = read(f"a: {text}")["a"]
    assert found == value
    assert type(found) is type(value)


def test_not_a_number() -> None:
    assert math.isnan(read("a: .nan")["a"])


def test_every_value_knows_its_line() -> None:
    node, _ = parse("a: 1\nb:\n  c:\n    2\n  d: [3,\n   4]\n", locate)
    assert isinstance(node.value, dict)
    b = node.value["b"]
    assert isinstance(b.value, dict)
    assert [node.value["a"].where, b.where, b.value["c"].where] == ["f.yaml:1", "f.yaml:2", "f.yaml:3"]
    assert isinstance(b.value["d"].value, list)
    assert [item.where for item in b.value["d"].value] == ["f.yaml:5", "f.yaml:6"]


def test_anchors_and_aliases() -> None:
    assert read("a: &x {p: 1}\nb: *x\nc: [*x, *x]") == {"a": {"p": 1}, "b": {"p": 1}, "c": [{"p": 1}, {"p": 1}]}


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "null\n"])
def test_an_empty_document_is_null(text: str) -> None:
    assert read(text) is None


@pytest.mark.parametrize(
    ("text", "errors"),
    [
        ("a: 1\nb: 2\na: 3\n", ["f.yaml:3: a: duplicate key, first given at f.yaml:1"]),
        ("a: {b: 1, b: 1}\n", ["f.yaml:1: b: duplicate key, first given at f.yaml:1"]),
        ("a: 1\n'a': 2\n", ["f.yaml:2: a: duplicate key, first given at f.yaml:1"]),
        ("- {a: 1,\n   a: 2}\n- {b: 1}\n", ["f.yaml:2: a: duplicate key, first given at f.yaml:1"]),
        ("a: !!python/object:os.system x\n", ["f.yaml:1: the tag tag:yaml.org,2002:python/object:os.system is not "]),
        ("a: !!str 5\nb: !x y\n", ["f.yaml:1: the tag tag:yaml.org,2002:str", "f.yaml:2: the tag !x is not allowed"]),
        ("1: a\ntrue: b\n? [x]\n: c\n", ["f.yaml:1: a key must be text, got 1", "f.yaml:2: a key", "f.yaml:3: a key"]),
    ],
)
def test_mistakes_are_collected(text: str, errors: list[str]) -> None:
    found = parse(text, locate)[1]
    assert len(found) == len(errors)
    for line, expected in zip(found, errors, strict=True):
        assert line.startswith(expected)


def test_numbers_may_be_keys_where_asked() -> None:
    tree, errors = parse("7: a\n0x8: b\n'9': c\n", locate, number_keys=True)
    assert plain(tree) == {"7": "a", "8": "b", "9": "c"} and not errors
    assert parse("7: a\n'7': b\n", locate, number_keys=True)[1] == [
        "f.yaml:2: 7: duplicate key, first given at f.yaml:1"
    ]
    assert len(parse("true: a\n1.5: b\n", locate, number_keys=True)[1]) == 2


def laughs(levels: int) -> str:
    lines = ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, levels)]
    return "\n".join(lines)


HOSTILE = {
    "billion laughs": (laughs(12), "more than 10000 values"),
    "laughs in mappings": ("a: &a {x: 1, y: 2}\n" + "\n".join(
        f"k{i}: &k{i} {{x: *{'a' if i == 0 else f'k{i - 1}'}, y: *{'a' if i == 0 else f'k{i - 1}'}}}"
        for i in range(40)), "more than 10000 values"),
    "alias of itself": ("a: &a [*a]", "no anchor before it"),
    "unknown alias": ("a: *b", "no anchor before it"),
    "deep flow": ("a: " + "[" * 200_000, "nested deeper than 20 levels"),
    "deep flow mapping": ("{a: " * 100_000, "nested deeper than 20 levels"),
    "deep blocks": ("\n".join("  " * i + "a:" for i in range(60)), "nested deeper than 20 levels"),
    "deep by aliases": ("\n".join(f"k{i}: &k{i} [{f'*k{i - 1}' if i else 1}]" for i in range(40)), "deeper than 20"),
    "deep keys": ("? " * 10_000, "nested deeper than 20 levels"),
    "large": ("a: " + "x" * 1_000_001, "larger than 1000000 bytes"),
    "large in bytes": ("a: " + "\u00e9" * 600_000, "larger than 1000000 bytes"),
    "many values": ("[" + "1," * 20_000 + "]", "more than 10000 values"),
    "many keys": ("\n".join(f"k{i}: 1" for i in range(6_000)), "more than 10000 values"),
    "long integer": ("a: " + "9" * 100_000, "more than 400 digits"),
    "long float": ("a: 0." + "9" * 100_000, "more than 400 digits"),
    "NUL": ("a: b\0c", "U+0000 is not allowed"),
    "escaped NUL": ('a: "b\\0c"', "NUL"),
    "half a surrogate": ('a: "\\uD800"', "surrogate"),
    "beyond Unicode": ('a: "\\UFFFFFFFF"', "no character"),
    "two documents": ("a: 1\n---\nb: 2\n", "f.yaml:2: a second document"),
    "odd version": ("%YAML 9.9\n---\na: 1", "not valid YAML"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_documents_are_refused_at_once(name: str) -> None:
    text, message = HOSTILE[name]
    with work_below(calls=3_000_000, megabytes=100), pytest.raises(RecipeError) as caught:
        parse(text, locate)
    assert message in str(caught.value)
    assert str(caught.value).startswith("f.yaml:")
    assert all(len(line) < 300 for line in caught.value.errors)


SYNTAX = [
    ("a: [1, 2\n", 2), ("a: {b: 1\n", 2), ("a: b: c\n", 1), ("a: 'x\n", 2), ('a: "x\n', 2), ("a:\n\t- 1\n", 2),
    ("a: 1\n b: 2\n", 2), ("- 1\na: 2\n", 2), ("a: @x\n", 1), ("a: `x\n", 1), ("a: %x\n", 1), ("a: 1\nb\nc: 2\n", 3),
    ("a: ]\n", 1), ("a: [1,,2]\n", 1), ("&a &b c: 1\n", 1), ('a: "\\q"\n', 1), ("%TAG x\n", 1), ("a: |x\n  y\n", 1),
]  # fmt: skip


@pytest.mark.parametrize(("text", "line"), SYNTAX)
def test_syntax_errors_name_the_line(text: str, line: int) -> None:
    with pytest.raises(RecipeError) as caught:
        parse(text, locate)
    assert caught.value.errors[-1].startswith(f"f.yaml:{line}: not valid YAML: ")
    assert caught.value.errors[-1].isprintable()


def test_mistakes_before_a_syntax_error_are_kept() -> None:
    with pytest.raises(RecipeError) as caught:
        parse("a: 1\na: 2\nb: [\n", locate)
    assert [line[:9] for line in caught.value.errors] == ["f.yaml:2:", "f.yaml:4:"]


SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=20)
    | st.sampled_from([1e-5, 2e20, "on", "1:30", "2001-01-01", "1e-4", "yes", "null", "~", "0x1", "010", ".5", "1_0", " a ", "a: b", "#x", "-", "?", "\n", "="])
)  # fmt: skip
TEXT_KEYS = st.sampled_from(["?0", "0?", ":b", "a:", ",c", "no", "1"]) | st.text(
    st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=8
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(TEXT_KEYS, st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3)
                       | st.dictionaries(TEXT_KEYS, inner, max_size=3), max_leaves=8), max_size=4))  # fmt: skip
@example({"a": [None, {"b" * 60: None, "c" * 39: None}, {"d" * 8: 0, "a word": None}]})  # a key where a line is full
def test_dump_and_parse_are_inverse(data: dict[str, Any]) -> None:
    text = dump(data)
    assert read(text) == data
    older = YAML(typ="safe", pure=True)
    older.version = "1.1"
    assert older.load(text) == data, "in programs that know no newer YAML too"


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="ab:-[]{}&*!|>'\"%@#?,\n \t\\0\x00\u00e9", max_size=40))
def test_any_text_is_a_tree_or_a_recipe_error(text: str) -> None:
    try:
        parse(text, locate)
    except RecipeError as error:
        assert all(line.startswith("f.yaml:") for line in error.errors)
