"""What the methods and the further student terms say of themselves, read with `ast`: a recipe is checked without torch.

A method is one file in `segkd/methods/`, named after it. Its class says `student = ("kd",)`, `source = ("adv", "bn")`,
`weights = {"kd": 1.0, ...}` and `options = dict(log=True)` as literals, or inherits them from a class in one of the other
files; `allowed` bounds its options (see `Option`), and a docstring's section `Options:` says what each is. A further
student term is one file in `segkd/methods/terms/`, whose class may state options too.
"""

from __future__ import annotations

import ast
import re
from collections import ChainMap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segkd.foundation.errors import UsageError, one_line
from segkd.recipe.own_options import Option, Options

if TYPE_CHECKING:
    from segkd.recipe.blocks import DistillRecipe

METHODS = Path(__file__).parents[1] / "methods"
TERMS = METHODS / "terms"
MOST_BYTES, MOST_CLASSES = 1_000_000, 200
"""Of a method's file: more than anybody writes, and little enough to be read at once."""
_NAMES = ("student", "source", "pixels", "variants")
_ATTRIBUTES = (*_NAMES, "weights", "options", "allowed")
_NOT_METHODS = ("__init__", "base", "finding")


@dataclass(frozen=True)
class Terms:
    """A method's loss terms by name, for the student, the source and its pixels.

    `weights` and `options` hold unless a recipe changes them; `variants` are forms of it that presets describe; `docs` holds the first line that each term's function says
    of itself.
    """

    student: tuple[str, ...]
    source: tuple[str, ...]
    weights: dict[str, float]
    pixels: tuple[str, ...] = ()
    docs: dict[str, str] = field(default_factory=dict, compare=False)
    options: Options = field(default_factory=dict)
    variants: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """All terms, the student's first, each once."""
        return tuple(dict.fromkeys((*self.student, *self.source, *self.pixels)))


@dataclass(frozen=True)
class Further:
    """A further student term: what it is, and its options."""

    doc: str
    options: Options


@dataclass
class _Class:
    line: int
    bases: list[str]
    values: dict[str, Any]
    docs: dict[str, str]
    option_docs: dict[str, str]
    doc: str


def method_terms(folder: Path = METHODS, extra: Sequence[Path] = ()) -> dict[str, Terms]:
    """The terms of every method in `folder` and of the method files `extra` (`--method-file`), by method name.

    Raises:
        UsageError: a file is not Python, holds no method or several, is called as one of segkd's, or states its terms by
            anything but literals.
    """
    if folder == METHODS and not extra:
        return {**_shipped_methods()}
    files, own = sorted(folder.glob("*.py")), [Path(path) for path in extra]
    for path in own:
        if path.stem in {file.stem for file in files}:
            raise UsageError(f"{path}: segkd has a {path.stem} of its own; give the file another name")
    return read_terms([*files, *own])


@cache
def _shipped_methods() -> dict[str, Terms]:
    """Those of segkd: files that do not change while it runs."""
    return read_terms(sorted(METHODS.glob("*.py")))


def read_terms(files: Iterable[Path]) -> dict[str, Terms]:
    """The terms of the methods in `files`, which may inherit from one another; `base.py` holds no method.

    The method of a file is its class that has student terms and that none of its other classes inherits from. Raises
    UsageError as `method_terms` does.
    """
    by_file = {path: _read_classes(path) for path in files}
    known = {name: found for classes in by_file.values() for name, found in classes.items()}
    methods: dict[str, Terms] = {}
    for path, classes in by_file.items():
        if path.stem in _NOT_METHODS:
            continue
        nearby = ChainMap(classes, known)
        found = {name: terms for name in _last(classes) if (terms := _terms(name, nearby, path)).student}
        if not found:
            raise UsageError(f"{path}: holds no method: no class with a tuple `student` of term names")
        methods[path.stem] = found[_only(found, classes, path, "method")]
    return methods


@cache
def further_terms() -> Mapping[str, Further]:
    """The further student terms by name.

    Raises:
        UsageError: a file is not Python, holds no class or several, or states options by anything but literals.
    """
    found: dict[str, Further] = {}
    for path in sorted(TERMS.glob("[!_]*.py")):
        classes = _read_classes(path)
        name = _only(_last(classes), classes, path, "term")
        found[path.stem] = Further(classes[name].doc, _terms(name, classes, path).options)
    return found


def variant_of(recipe: DistillRecipe, own: Sequence[str] | None = None) -> str | None:
    """The form of its method that a recipe plays; None where its variant is one of other methods, which says nothing here.

    `own`: the variants that the method states; None: those of a method of segkd, and any of a user's own.
    """
    known = method_terms()
    if own is None:
        own = known[recipe.method].variants if recipe.method in known else (recipe.variant,)
    others = {variant for terms in known.values() for variant in terms.variants}
    return recipe.variant if recipe.variant in own or recipe.variant not in others else None


def _last(classes: Mapping[str, _Class]) -> list[str]:
    """The classes of a file that none of its other classes inherits from."""
    bases = {base for found in classes.values() for base in found.bases}
    return [name for name in classes if name not in bases] or list(classes)


def _only(names: Iterable[str], classes: Mapping[str, _Class], path: Path, what: str) -> str:
    names = list(names)
    if len(names) != 1:
        line = classes[names[1]].line if names else 1
        raise UsageError(
            f"{path}:{line}: holds {len(names)} classes of a {what} ({', '.join(names)}): one file, one {what}"
        )
    return names[0]


def _read_classes(path: Path) -> dict[str, _Class]:
    try:
        if not path.is_file():  # neither a folder nor a pipe, which nobody may ever write to
            raise OSError("no such file")
        with path.open("rb") as file:
            text = file.read(MOST_BYTES + 1)
        if len(text) > MOST_BYTES:
            raise ValueError(f"larger than {MOST_BYTES} bytes")
        tree = ast.parse(text, filename=str(path))
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = getattr(error, "strerror", None) or getattr(error, "msg", None) or str(error) or "nested too deeply"
        raise UsageError(f"{path}:{getattr(error, 'lineno', None) or 1}: cannot read the method: {reason}") from error
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    if len(classes) > MOST_CLASSES:
        raise UsageError(f"{path}:1: cannot read the method: more than {MOST_CLASSES} classes")
    return {
        node.name: _Class(
            node.lineno, [_last_name(base) for base in node.bases], _attributes(node, path), _docs(node),
            _option_docs(ast.get_docstring(node) or ""), (ast.get_docstring(node) or "").partition("\n")[0],
        )
        for node in classes
    }  # fmt: skip


def _docs(node: ast.ClassDef) -> dict[str, str]:
    """The first line of the docstring of each function in a class body."""
    functions = (statement for statement in node.body if isinstance(statement, ast.FunctionDef))
    return {function.name: (ast.get_docstring(function) or "").partition("\n")[0] for function in functions}


def _option_docs(docstring: str) -> dict[str, str]:
    """What the section `Options:` of a docstring says of each."""
    section = re.search(r"^Options:\n((?:[ ]+.*\n?|\n)*)", docstring, re.MULTILINE)
    entries = re.findall(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", section[1], re.MULTILINE) if section else []
    return {name: " ".join(text.split()).removesuffix(".") for name, text in entries}


def _last_name(base: ast.expr) -> str:
    """`DDAD` of `DDAD`, `ddad.DDAD` and `Method[int]`; empty for anything else."""
    if isinstance(base, ast.Subscript):
        return _last_name(base.value)
    if isinstance(base, ast.Attribute):
        return base.attr
    return base.id if isinstance(base, ast.Name) else ""


def _attributes(node: ast.ClassDef, path: Path) -> dict[str, Any]:
    """The attributes that a class body states: `a = x`, `a: T = x` and `a, b = x, y`."""
    values: dict[str, Any] = {}
    for statement in node.body:
        if isinstance(statement, ast.AnnAssign) and statement.value is not None:
            pairs = [(statement.target, statement.value)]
        elif isinstance(statement, ast.Assign):
            pairs = [pair for target in statement.targets for pair in _pairs(target, statement.value)]
        else:
            continue
        for target, value in pairs:
            if isinstance(target, ast.Name) and target.id in _ATTRIBUTES:
                values[target.id] = _literal(target.id, value, path)
    return values


def _pairs(target: ast.expr, value: ast.expr) -> list[tuple[ast.expr, ast.expr]]:
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts):
        return list(zip(target.elts, value.elts, strict=True))
    return [(target, value)]


def _literal(name: str, value: ast.expr, path: Path) -> Any:
    """The value of an attribute: a tuple of names, or a dict from names to numbers, to scalars and lists, or to bounds."""
    where = f"{path}:{value.lineno}: {name}"
    try:
        if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "dict":
            if value.args or any(keyword.arg is None for keyword in value.keywords):
                raise ValueError
            found: Any = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in value.keywords}
        else:
            found = ast.literal_eval(value)
    except (ValueError, TypeError, RecursionError, MemoryError) as error:
        raise UsageError(f"{where}: must be a literal, since recipes are checked without importing methods") from error
    if name in _NAMES:
        if not isinstance(found, tuple) or not all(isinstance(term, str) for term in found):
            raise UsageError(f"{where}: must be a tuple of names")
        return found
    if name != "weights":
        if not isinstance(found, dict) or not all(isinstance(option, str) for option in found):
            raise UsageError(f"{where}: must be a dict by the names of options")
        return found
    if not isinstance(found, dict) or not all(
        isinstance(term, str) and type(weight) in (int, float) for term, weight in found.items()
    ):
        raise UsageError(f"{where}: must be a dict from term names to numbers")
    return {term: float(weight) for term, weight in found.items()}


def _terms(name: str, classes: Mapping[str, _Class], path: Path) -> Terms:
    """The terms of a class: each attribute is that of the nearest of its ancestors which states it."""
    values: dict[str, Any] = {}
    docs: dict[str, str] = {}
    option_docs: dict[str, str] = {}
    for ancestor in _ancestry(name, classes, path):
        values = classes[ancestor].values | values
        docs = classes[ancestor].docs | docs
        option_docs = classes[ancestor].option_docs | option_docs
        said = classes[ancestor].values
        if idle := [key for key in said.get("allowed", ()) if key not in said.get("options", {})]:
            raise UsageError(
                f"{path}:{classes[ancestor].line}: allowed: {idle[0]}: no option of the class is called so"
            )
    allowed, options = values.get("allowed", {}), {}
    for key, default in values.get("options", {}).items():
        options[key] = Option(default, allowed.get(key), option_docs.get(key, ""))
        try:
            options[key].values  # noqa: B018 - are made, and the default tried
        except ValueError as error:
            raise UsageError(f"{path}:{classes[name].line}: options: {key}: {one_line(error)}") from error
    return Terms(
        values.get("student", ()), values.get("source", ()), dict(values.get("weights", {})), values.get("pixels", ()), docs,
        options, values.get("variants", ()),
    )  # fmt: skip


def _ancestry(name: str, classes: Mapping[str, _Class], path: Path) -> list[str]:
    """A class and all that it inherits from, each once, in the order in which its attributes are looked for."""
    found: dict[str, None] = {}
    within: set[str] = set()  # whose bases are being followed
    waiting = [(name, False)]
    while waiting:
        name, done = waiting.pop()
        if done:
            within.remove(name)
        elif name in within:
            raise UsageError(f"{path}: class {name} inherits from itself")
        elif name in classes and name not in found:  # torch's classes, for instance, are not known
            found[name] = None
            within.add(name)
            waiting += [(name, True), *((base, False) for base in reversed(classes[name].bases))]
    return list(found)
