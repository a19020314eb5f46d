"""The small mistakes that tools/mutate.py makes: what of a module can be changed, and into what."""

from __future__ import annotations

import ast
import copy
import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Node = ast.AST
OPPOSITE: dict[type, type] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult,
    ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.And: ast.Or, ast.Or: ast.And, ast.Lt: ast.LtE,
    ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Is: ast.IsNot,
    ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
STAY = ("property", "staticmethod", "classmethod", "contextmanager", "dataclass")
"""Decorators without which nothing runs at all."""

IDLE = ("strict", "non_blocking")
"""Arguments that change nothing: that zip would notice what never happens, and that a CPU need not wait for itself."""


@dataclass(frozen=True)
class Mutant:
    """One change: in `file`, within `place` (Class.function), `was` becomes `becomes`; the `nth` such change there.

    `lines` are the first and the last of what is changed.
    """

    file: str
    place: str
    was: str
    becomes: str
    nth: int
    lines: tuple[int, int]
    source: str
    """A hash of the function as it is: where it has changed, what was found of its mutants means nothing."""

    @property
    def name(self) -> str:
        return f"{self.file}::{self.place}: {self.was} -> {self.becomes}" + (f" #{self.nth}" if self.nth else "")


class Places(ast.NodeVisitor):
    """The places of a module where something can be changed: each with its parent's field, and the nodes to put there."""

    def __init__(self, tree: ast.Module) -> None:
        self.found: list[tuple[list[str], Node, str, int | None, Node, Node]] = []
        self.where: list[str] = []
        texts = [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
        self.names = sorted({text for text in texts if text.replace("-", "_").isidentifier()})
        self.visit(tree)

    def put(self, parent: Node, field: str, index: int | None, old: Node, *new: Node) -> None:
        self.found += [(self.where[:], parent, field, index, old, each) for each in new]

    def generic_visit(self, node: Node) -> None:
        for field, value in ast.iter_fields(node):
            if field in ("annotation", "returns", "type_comment") or isinstance(node, ast.Raise | ast.JoinedStr):
                continue  # types are for readers, and words of errors for users
            if isinstance(node, ast.keyword) and node.arg in IDLE:
                continue
            for index, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
                if isinstance(child, Node):
                    self.put(node, field, index, child, *self.changes(node, field, child))
                    self.visit(child)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self.where.append(node.name)
        self.generic_visit(node)
        self.where.pop()

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self.where.append(node.name)
        self.generic_visit(node)
        self.where.pop()

    def visit_If(self, node: ast.If) -> None:
        if "TYPE_CHECKING" not in ast.unparse(node.test):
            self.generic_visit(node)

    def changes(self, parent: Node, field: str, node: Node) -> Iterator[Node]:
        """What may stand in the place of a node."""
        if isinstance(node, ast.Constant):
            yield from self.constants(node)
        elif isinstance(node, ast.BinOp | ast.AugAssign | ast.BoolOp) and type(node.op) in OPPOSITE:
            yield changed(node, op=OPPOSITE[type(node.op)]())
        elif isinstance(node, ast.Compare):
            for at, operator in enumerate(node.ops):
                yield changed(node, ops=[*node.ops[:at], OPPOSITE[type(operator)](), *node.ops[at + 1 :]])
        elif isinstance(node, ast.UnaryOp):
            yield node.operand
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            yield ast.Pass()
        elif isinstance(node, ast.withitem) and node.optional_vars is None:
            yield ast.withitem(ast.parse("__import__('contextlib').nullcontext()", mode="eval").body)
        if field in ("test", "ifs"):
            yield ast.Constant(False)
            if not isinstance(parent, ast.While):
                yield ast.Constant(True)
        if field == "decorator_list" and ast.unparse(node).partition("(")[0] not in STAY:
            yield ast.parse("lambda function: function", mode="eval").body

    def constants(self, node: ast.Constant) -> Iterator[Node]:
        value = node.value
        if isinstance(value, bool):
            yield ast.Constant(not value)
        elif isinstance(value, int):
            yield ast.Constant(value + 1)
        elif isinstance(value, float):
            yield ast.Constant(value * 2 if value else 1.0)
        elif value in self.names:
            yield ast.Constant(
                self.names[(self.names.index(value) + 1) % len(self.names)] if self.names[1:] else "other"
            )


def changed(node: Node, **fields: Any) -> Node:
    new = copy.copy(node)
    for name, value in fields.items():
        setattr(new, name, value)
    return new


def mutants(root: Path, file: str) -> Iterator[tuple[Mutant, str]]:
    """Every mutant of a file below `root`, with the text of its module; each text once."""
    tree = ast.parse((root / file).read_text())
    sources = {
        ".".join(where): hashlib.sha256(ast.unparse(node).encode()).hexdigest()[:8] for where, node in defined(tree, [])
    }
    plain, seen = ast.unparse(tree), Counter()
    made = {plain}
    for where, parent, field, index, old, new in Places(tree).found:
        place = ".".join(where) or "module"
        words = short(old), short(new) if not isinstance(new, ast.Pass) else "nothing"
        set_in(parent, field, index, new)
        text = ast.unparse(ast.fix_missing_locations(tree))
        set_in(parent, field, index, old)
        if text in made:
            continue
        made.add(text)
        nth = seen[place, *words]
        seen[place, *words] += 1
        first = getattr(old, "lineno", getattr(parent, "lineno", 1))
        lines = first, getattr(old, "end_lineno", first)
        yield Mutant(file, place, *words, nth, lines, sources[".".join(where)]), text


def defined(node: Node, where: list[str]) -> Iterator[tuple[list[str], Node]]:
    """A module and all that is defined in it; of what is on top, the text without functions and classes."""
    yield where, node
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.ClassDef):
            yield from defined(child, [*where, child.name])


def set_in(parent: Node, field: str, index: int | None, node: Node) -> None:
    if index is None:
        setattr(parent, field, node)
    else:
        getattr(parent, field)[index] = node


def short(node: Node) -> str:
    text = " ".join(ast.unparse(node).split())
    if isinstance(node, ast.AugAssign | ast.BinOp | ast.BoolOp | ast.Compare | ast.Constant) or len(text) <= 60:
        return text if len(text) <= 90 else text[:87] + "..."
    return text[:57] + "..."
