"""YAML for recipes: the core schema of 1.2, no tags, no duplicate keys, bounded size; every value knows its line.

ruamel.yaml reads the text and writes it. Its own schema of 1.2 takes `1_000` for a number and `2001-01-01` for a date,
and it expands aliases without a bound. Descriptions of data sets (`dataset.yaml`) are read so too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import StringIO
from typing import Any, ClassVar, NoReturn

from ruamel.yaml import YAML, MappingNode, SafeLoader, SafeRepresenter, ScalarNode, SequenceNode, VersionedResolver
from ruamel.yaml.docinfo import DocInfo
from ruamel.yaml.emitter import Emitter
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.events import AliasEvent, MappingEndEvent
from ruamel.yaml.reader import ReaderError

from segkd.foundation.errors import RecipeError

MAX_BYTES = 1_000_000
MAX_NODES = 10_000
MAX_DEPTH = 20
MAX_ERRORS = 100
"""As many mistakes are told; who has more will find them once these are mended."""

Scalar = str | int | float | bool | None

_NEVER = re.compile("[\0\ud800-\udfff]")
_TEXT = "tag:yaml.org,2002:str"
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
    loader = _Loader(locate, number_keys)
    try:
        root = loader.tree(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        loader.fail(mark.line if mark else 0, f"not valid YAML: {error.problem or error.context}")
    except ReaderError as error:
        character = f"character U+{ord(text[error.position]):04X}"
        loader.fail(text.count("\n", 0, error.position), f"not valid YAML: {character} is not allowed")
    except (ValueError, OverflowError):  # of an escape beyond Unicode, such as "\UFFFFFFFF"
        loader.fail(0, "not valid YAML: an escape sequence stands for no character")
    if _height(root) > MAX_DEPTH:
        loader.fail(0, f"nested deeper than {MAX_DEPTH} levels")
    return root, loader.errors


def plain(node: Node) -> Any:
    """The tree as dicts, lists and scalars."""
    if isinstance(node.value, dict):
        return {key: plain(child) for key, child in node.value.items()}
    if isinstance(node.value, list):
        return [plain(child) for child in node.value]
    return node.value


def dump(data: dict[str, Any], width: float = 120) -> str:
    """YAML text that `parse` reads back as `data`; keys keep their order. Lines are folded after `width` characters."""
    yaml = YAML(typ="safe", pure=True)
    yaml.Resolver, yaml.Representer, yaml.width, yaml.default_flow_style = _Core, _Representer, width, False
    yaml.Emitter, yaml.sort_base_mapping_type_on_output = _Emitter, False
    text = StringIO()
    yaml.dump(data, text)
    return text.getvalue()


def in_flow(value: Any) -> str:
    """A value as YAML has it within braces: a scalar, a list, or a mapping of these."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{in_flow(key)}: {in_flow(each)}' for key, each in value.items())}}}"
    return dump({"": [value]}, width=float("inf")).strip().partition("[")[2][:-1]


class _Emitter(Emitter):
    def write_plain(self, text: Any, split: Any = True) -> None:
        """Without breaks in a key, which ruamel folds before a long word all the same, and could not read again."""
        width, self.best_width = self.best_width, self.best_width if split else float("inf")
        super().write_plain(text, split)
        self.best_width = width


def _height(node: Node) -> int:
    children = node.value.values() if isinstance(node.value, dict) else node.value
    if not isinstance(node.value, dict | list):
        return 1
    return 1 + max((_height(child) for child in children), default=0)


class _Core(VersionedResolver):
    """What an unquoted scalar is under the core schema of YAML 1.2, whatever the document says of its version."""

    processing_version = (1, 2)
    versioned_resolver: ClassVar[dict[str, list[tuple[str, re.Pattern[str]]]]] = {
        first: [(f"tag:yaml.org,2002:{name}", re.compile(rf"({pattern})\Z")) for name, pattern in kinds]
        for firsts, kinds in (
            (["", "~", "n", "N"], [("null", "|~|null|Null|NULL")]),
            ("tTfF", [("bool", "true|True|TRUE|false|False|FALSE")]),
            ("-+.0123456789", [
                ("int", "[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+"),
                ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"),
            ]),
        )
        for first in firsts
    }  # fmt: skip


class _Loader(_Core, SafeLoader):
    """ruamel's, with nodes that know their places; it notes mistakes, and gives up at the first bound that is passed."""

    max_depth = flow_level = 0
    reader = scanner = parser = resolver = None  # ruamel looks these up, and counts brackets, at every character

    def __init__(self, locate: Callable[[int], str], number_keys: bool) -> None:
        self.locate = locate
        self.number_keys = number_keys
        self.errors: list[str] = []
        self.nodes = self.characters = 0
        self.sizes: dict[str, tuple[int, int]] = {}

    def tree(self, text: str) -> Node:
        self.reader = self.scanner = self.parser = self.resolver = self
        self.doc_infos = [DocInfo()]
        super().__init__(text)
        self.warn_double_anchors = False
        root = self.get_node() if self.check_node() else Node(None, self.locate(1))
        if self.check_node():
            self.fail(self.peek_event().start_mark.line, "a second document begins here; a file is one")
        return root

    def fetch_flow_collection_start(self, *kind: Any, **pushed: Any) -> None:
        super().fetch_flow_collection_start(*kind, **pushed)
        self.flow_level = len(self.flow_context)

    def fetch_flow_collection_end(self, kind: Any) -> None:
        super().fetch_flow_collection_end(kind)
        self.flow_level = len(self.flow_context)

    def fail(self, line: int, message: str) -> NoReturn:
        raise RecipeError([*self.errors, f"{self.locate(line + 1)}: {message}"])

    def note(self, line: int, message: str) -> None:
        self.errors.append(f"{self.locate(line + 1)}: {message}")
        if len(self.errors) == MAX_ERRORS:
            self.fail(line, f"and no further than the first {MAX_ERRORS} mistakes")

    def compose_node(self, parent: Any, index: Any) -> Node:
        """The node that begins at the next event. `index` of a value is its key, whose place it has."""
        event = self.peek_event()
        line, nodes, characters = event.start_mark.line, self.nodes, self.characters
        if isinstance(event, AliasEvent):
            if event.anchor not in self.sizes:  # also an alias inside its own anchor
                self.fail(line, f"the alias {_short('*' + event.anchor)} has no anchor before it")
            self.grow(*self.sizes[event.anchor], line)
        else:
            self.sizes.pop(event.anchor, None)
            self.grow(1, len(getattr(event, "value", "")), line)
            if event.tag is not None:
                self.note(line, f"the tag {_short(event.tag)} is not allowed")
                event.ctag, event.implicit = None, (True, True)
        if self.depth == MAX_DEPTH:
            self.fail(line, f"nested deeper than {MAX_DEPTH} levels")
        made = super().compose_node(parent, index)
        if event.anchor is not None:
            self.sizes[event.anchor] = self.nodes - nodes, self.characters - characters
        value = made.value if isinstance(made, MappingNode | SequenceNode) else self.scalar(made, line)
        return Node(value, index.where if isinstance(index, Node) else self.locate(line + 1))

    def grow(self, nodes: int, characters: int, line: int) -> None:
        """Counts nodes, and the text in them, as if aliases were expanded: a short text cannot stand for a huge tree."""
        self.nodes += nodes
        self.characters += characters
        if self.nodes > MAX_NODES:
            self.fail(line, f"more than {MAX_NODES} values")
        if self.characters > MAX_BYTES:
            self.fail(line, f"more than {MAX_BYTES} characters, with aliases expanded")

    def compose_mapping_node(self, anchor: str | None) -> MappingNode:
        entries: dict[str, Node] = {}
        start = self.get_event()
        made = MappingNode(self.DEFAULT_MAPPING_TAG, entries, start.start_mark)
        if anchor is not None:
            self.anchors[anchor] = made
        while not self.check_event(MappingEndEvent):
            line = self.peek_event().start_mark.line
            key = self.compose_node(made, None)
            value = self.compose_node(made, key)
            name = str(key.value) if self.number_keys and type(key.value) is int else key.value
            if not isinstance(name, str):
                self.note(line, f"a key must be text, got {_short(name)}")
            elif name in entries:
                self.note(line, f"{_short(name)}: duplicate key, first given at {entries[name].where}")
            else:
                entries[name] = value
        self.get_event()
        return made

    def scalar(self, made: Any, line: int) -> Scalar:
        if _NEVER.search(made.value):
            self.fail(line, "text with a NUL or half a surrogate pair")
        number = str(made.tag).endswith((":int", ":float"))
        if number and len(made.value) > _MAX_DIGITS:
            self.fail(line, f"a number with more than {_MAX_DIGITS} digits")
        return self.construct_object(made)


def _short(value: object) -> str:
    """A value on one line, at most 60 characters."""
    kind = {dict: "a mapping", list: "a list"}.get(type(value))
    if isinstance(value, str):
        value = value[:61]  # a long text is not read to its end
    text = kind or (value if isinstance(value, str) and value.isprintable() else repr(value))
    return text if len(text) <= 60 else text[:57] + "..."


class _Representer(SafeRepresenter):
    """Lists on one line, no aliases, quotes and points that YAML 1.1 needs, escapes for what no terminal would show."""

    older = VersionedResolver((1, 1))

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_text(self, text: str) -> Any:
        # With other signs ruamel.yaml leaves text in brackets that nobody reads back, such as `[?0: 1]`.
        plain = re.fullmatch(r"[\w./ +-]*", text) and self.older.resolve(ScalarNode, text, (True, False)) == _TEXT
        return self.represent_scalar(_TEXT, text, style=None if plain else '"')

    def represent_float(self, number: float) -> ScalarNode:
        text = super().represent_float(number).value
        return self.represent_scalar("tag:yaml.org,2002:float", text if "." in text else text.replace("e", ".0e"))

    def represent_row(self, items: list[Any]) -> SequenceNode:
        return self.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=True)


_Representer.add_representer(str, _Representer.represent_text)
_Representer.add_representer(list, _Representer.represent_row)
_Representer.add_representer(float, _Representer.represent_float)
