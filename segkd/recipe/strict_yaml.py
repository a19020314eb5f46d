"""YAML for recipes: 1.2 scalars, no tags, no duplicate keys, bounded size; every value knows the line it stands on.

PyYAML only splits the text into events. Its own loaders follow YAML 1.1, where `1e-4` is text and `no` a boolean,
let duplicate keys pass, and expand aliases without a bound. Descriptions of data sets (`dataset.yaml`) are read so too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from segkd.foundation.errors import RecipeError

MAX_BYTES = 1_000_000
MAX_NODES = 10_000
MAX_DEPTH = 20
MAX_ERRORS = 100
"""As many mistakes are told; who has more will find them once these are mended."""

Scalar = str | int | float | bool | None

_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
}
_INTEGER = re.compile(r"[-+]?[0-9]+")
_OCTAL = re.compile(r"0o[0-7]+")
_HEXADECIMAL = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INFINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_NEVER = re.compile("[\0\ud800-\udfff]")
_MAX_DIGITS = 400  # more would not fit a float, and turning thousands of digits into an integer is slow


@dataclass(frozen=True)
class Node:
    """A value and where it was written (`recipe.yaml:6`): a scalar, a list of nodes, or nodes by key.

    `preset` is the name of the preset that says so; empty: none does.
    """

    value: Scalar | list[Node] | dict[str, Node]
    where: str
    preset: str = ""


def parse(text: str, locate: Callable[[int], str], *, number_keys: bool = False) -> tuple[Node, list[str]]:
    """Reads one YAML document.

    Args:
        text: the document.
        locate: turns a line number (from 1) into the place that error lines begin with.
        number_keys: a key may also be a whole number, and becomes its decimal digits.

    Returns:
        The tree (an empty document is null), and one line for each duplicate key, tag or odd key.

    Raises:
        RecipeError: no tree can be built: the syntax is wrong, or a bound on size, nodes or depth is passed.
    """
    if len(text.encode(errors="surrogatepass")) > MAX_BYTES:
        raise RecipeError(f"{locate(1)}: larger than {MAX_BYTES} bytes")
    composer = _Composer(text, locate, number_keys)
    root = composer.document()
    if _height(root) > MAX_DEPTH:
        raise RecipeError([*composer.errors, f"{locate(1)}: nested deeper than {MAX_DEPTH} levels"])
    return root, composer.errors


def resolve(text: str) -> Scalar:
    """The value of an unquoted scalar under the core schema of YAML 1.2.

    Raises:
        ValueError: a number with more digits than any recipe needs.
    """
    if text in _WORDS:
        return _WORDS[text]
    if _INFINITE.fullmatch(text):
        return float(text.lower().replace(".", ""))
    number: Callable[[str], int | float] | None = None
    if _INTEGER.fullmatch(text):
        number = int
    elif _OCTAL.fullmatch(text) or _HEXADECIMAL.fullmatch(text):
        number = _based
    elif _FLOAT.fullmatch(text):
        number = float
    if number is None:
        return text
    if len(text) > _MAX_DIGITS:
        raise ValueError(f"a number with more than {_MAX_DIGITS} digits")
    return number(text)


def _based(text: str) -> int:
    return int(text, 0)


def plain(node: Node) -> Any:
    """The tree as dicts, lists and scalars."""
    if isinstance(node.value, dict):
        return {key: plain(child) for key, child in node.value.items()}
    if isinstance(node.value, list):
        return [plain(child) for child in node.value]
    return node.value


def dump(data: dict[str, Any], width: float = 120) -> str:
    """YAML text that `parse` reads back as `data`; keys keep their order. Lines are folded after `width` characters."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=width)


def _height(node: Node) -> int:
    children = node.value.values() if isinstance(node.value, dict) else node.value
    if not isinstance(node.value, dict | list):
        return 1
    return 1 + max((_height(child) for child in children), default=0)


class _Composer:
    """Builds the tree from PyYAML's events, and gives up at the first bound that is passed."""

    def __init__(self, text: str, locate: Callable[[int], str], number_keys: bool) -> None:
        self.locate = locate
        self.number_keys = number_keys
        self.errors: list[str] = []
        self.nodes = self.characters = 0
        self.anchors: dict[str, tuple[Node, int, int]] = {}
        self.events = self._guarded(text)

    def _guarded(self, text: str) -> Iterator[Any]:
        try:
            yield from yaml.parse(text, Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            self.fail(line, f"not valid YAML: {error.problem or error.context}")
        except yaml.reader.ReaderError as error:
            line = text.count("\n", 0, error.position) + 1
            self.fail(line, f"not valid YAML: character U+{error.character:04X} is not allowed")
        except (ValueError, OverflowError):  # PyYAML on an escape beyond Unicode, such as "\UFFFFFFFF"
            self.fail(1, "not valid YAML: an escape sequence stands for no character")

    def fail(self, line: int, message: str) -> None:
        raise RecipeError([*self.errors, f"{self.locate(line)}: {message}"])

    def note(self, line: int, message: str) -> None:
        self.errors.append(f"{self.locate(line)}: {message}")
        if len(self.errors) == MAX_ERRORS:
            self.fail(line, f"and no further than the first {MAX_ERRORS} mistakes")

    def document(self) -> Node:
        next(self.events)  # the start of the stream
        if isinstance(next(self.events), yaml.StreamEndEvent):
            return Node(None, self.locate(1))
        root = self.node(next(self.events), 1, None)
        next(self.events)  # the end of the document
        after = next(self.events)
        if not isinstance(after, yaml.StreamEndEvent):
            self.fail(_line(after), "a second document begins here; a file is one")
        return root

    def node(self, event: Any, depth: int, line: int | None) -> Node:
        """The node that begins at `event`. `line` is that of its key; None: its own."""
        nodes, characters, own = self.nodes, self.characters, _line(event)
        where = self.locate(line or own)
        self.grow(1, 0, own)
        if depth > MAX_DEPTH:
            self.fail(own, f"nested deeper than {MAX_DEPTH} levels")
        if isinstance(event, yaml.AliasEvent):
            return self.alias(event, where)
        if event.tag is not None:
            self.note(own, f"the tag {_short(event.tag)} is not allowed")
        if isinstance(event, yaml.MappingStartEvent):
            node = Node(self.mapping(depth), where)
        elif isinstance(event, yaml.SequenceStartEvent):
            node = Node(self.sequence(depth), where)
        else:
            node = Node(self.scalar(event), where)
        if event.anchor is not None:
            self.anchors[event.anchor] = node, self.nodes - nodes, self.characters - characters
        return node

    def grow(self, nodes: int, characters: int, line: int) -> None:
        """Counts nodes, and the text in them, as if aliases were expanded: a short text cannot stand for a huge tree."""
        self.nodes += nodes
        self.characters += characters
        if self.nodes > MAX_NODES:
            self.fail(line, f"more than {MAX_NODES} values")
        if self.characters > MAX_BYTES:
            self.fail(line, f"more than {MAX_BYTES} characters, with aliases expanded")

    def alias(self, event: Any, where: str) -> Node:
        if event.anchor not in self.anchors:  # also an alias inside its own anchor
            self.fail(_line(event), f"the alias {_short('*' + event.anchor)} has no anchor before it")
        node, nodes, characters = self.anchors[event.anchor]
        self.grow(nodes - 1, characters, _line(event))
        return Node(node.value, where)

    def sequence(self, depth: int) -> list[Node]:
        items = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            items.append(self.node(event, depth + 1, None))
        return items

    def mapping(self, depth: int) -> dict[str, Node]:
        entries: dict[str, Node] = {}
        lines: dict[str, int] = {}
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            line = _line(event)
            key = self.node(event, depth + 1, None).value
            value = self.node(next(self.events), depth + 1, line)
            if self.number_keys and type(key) is int:
                key = str(key)
            if not isinstance(key, str):
                self.note(line, f"a key must be text, got {_short(key)}")
            elif key in entries:
                first = self.locate(lines[key])
                self.note(line, f"{_short(key)}: duplicate key, first given at {first}")
            else:
                entries[key], lines[key] = value, line
        return entries

    def scalar(self, event: Any) -> Scalar:
        text: str = event.value
        self.grow(0, len(text), _line(event))
        if _NEVER.search(text):
            self.fail(_line(event), "text with a NUL or half a surrogate pair")
        if event.style:
            return text
        try:
            return resolve(text)
        except ValueError as error:
            self.fail(_line(event), str(error))
            raise


def _line(event: Any) -> int:
    return event.start_mark.line + 1


def _short(value: object) -> str:
    """A value on one line, at most 60 characters."""
    kind = {dict: "a mapping", list: "a list"}.get(type(value))
    if isinstance(value, str):
        value = value[:61]  # a long text is not read to its end
    text = kind or (value if isinstance(value, str) and value.isprintable() else repr(value))
    return text if len(text) <= 60 else text[:57] + "..."


class _Dumper(yaml.SafeDumper):
    """PyYAML quotes what YAML 1.1 would misread; this one also quotes what only YAML 1.2 reads as a number."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def _looks_typed(text: str) -> bool:
    if _INTEGER.fullmatch(text) or _FLOAT.fullmatch(text):
        return True
    return len(text) > _MAX_DIGITS or not isinstance(resolve(text), str)


def _represent_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    # PyYAML leaves line separators of YAML 1.1, such as U+0085, as they are; quoted, they are escaped.
    needs_quotes = _looks_typed(text) or not text.isprintable()
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"' if needs_quotes else None)


def _represent_list(dumper: _Dumper, items: list[Any]) -> yaml.SequenceNode:
    return dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=True)


_Dumper.add_representer(str, _represent_text)
_Dumper.add_representer(list, _represent_list)
