"""The files of a recipe and the files that they extend, and what the command line says: every value with its place."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from segkd.foundation import terminal
from segkd.foundation.errors import RecipeError
from segkd.recipe import hub
from segkd.recipe.given import RECIPE, tree_of
from segkd.recipe.messages import nearest, shown
from segkd.recipe.strict_yaml import MAX_BYTES, MAX_DEPTH, Node, parse, plain

PACKAGED = Path(__file__).parents[1] / "recipes"
CHECKOUT = Path(__file__).parents[2] / "recipes"
RENAMED = {"camvid_cpu": "camvid_deeplab", "nyuv2_cpu": "nyuv2_deeplab"}
"""What shipped recipes were called in earlier versions, and their names now: the old ones go on, with a line."""
COMMAND_LINE = "command line"
VALUES = "overrides"
"""Where the values of a dict of overrides stand, in error lines."""
Overrides = Sequence[str] | Mapping[str, Any]

_SUFFIXES = (".yaml", ".yml")
_PARTIAL = "base"  # recipes that others extend, incomplete on their own
READ = (("teacher", "weights"), ("teacher", "statistics"), ("student", "weights"), ("model", "weights"))
"""The keys of the files that a recipe's run reads."""
_PATHS = (*READ, ("output",))


def find(name: str | Path) -> Path:
    """The file of a recipe: a path, or the name of a shipped one (`quickstart`, `teachers/scenes`).

    A former name is taken too, and stderr told the new one.

    Raises:
        RecipeError: there is no such file and no such name.
    """
    path = Path(name)
    if os.path.isfile(path):  # no error for names that no file can have, as Path's own has
        return path
    found = _shipped_file(path)
    if found is not None:
        _tell_new_name(path, found, "segkd")
        return found
    if why := _unusable(path):
        raise RecipeError(f"{shown(str(name))}: {why}")
    names = shipped()
    near = nearest(str(name), names)
    hint = f"did you mean {near!r}?" if near else f"shipped: {', '.join(names) or 'none'}"
    raise RecipeError(f"{shown(str(name))}: no such recipe, neither a file nor a shipped name; {hint}")


def _unusable(path: Path) -> str | None:
    """Why what lies at a path is no recipe; None: nothing is there."""
    try:
        path.stat()
    except PermissionError as error:
        return f"cannot read: {error.strerror}"
    except (OSError, ValueError):  # also names that no file can have
        return "a link to nothing" if os.path.lexists(path) else None
    if not path.is_dir():
        return "no regular file"
    return "a folder" + (
        "; its recipe is recipe.yaml in it" if (path / "recipe.yaml").is_file() else ", and no recipe file"
    )


def is_shipped(path: Path) -> bool:
    """Whether a file lies among the shipped recipes."""
    return any(path.resolve().is_relative_to(folder.resolve()) for folder in (PACKAGED, CHECKOUT))


def named(name: str | Path) -> bool:
    """Whether a shipped recipe has, or once had, this name."""
    return _shipped_file(name) is not None


def _shipped_file(name: str | Path) -> Path | None:
    """The shipped file of a name such as `quickstart` or `base/ddad.yaml`, if there is one; of a former name too."""
    path = Path(name)
    new = RENAMED.get(path.name.removesuffix(".yaml"))
    names = [path, f"{path}.yaml"]
    if new and (path.parent == Path() or any(_same_folder(path.parent, folder) for folder in (PACKAGED, CHECKOUT))):
        names.append(f"{new}.yaml")
    candidates = (folder / text for folder in (PACKAGED, CHECKOUT) for text in names)
    return next((path for path in candidates if os.path.isfile(path)), None)


def _same_folder(a: Path, b: Path) -> bool:
    return os.path.isdir(a) and os.path.isdir(b) and os.path.samefile(a, b)


def _tell_new_name(name: Path, found: Path, where: str) -> None:
    if name.name.removesuffix(".yaml") in RENAMED and found.stem != name.stem:
        tell(f"{where}: {name.stem} is called {found.stem} now")


@cache
def tell(line: str) -> None:
    """A line for the user on stderr, once a process."""
    if terminal.speaks():
        terminal.say(line)


def recipe_name(source: str | Path | Mapping[str, Any]) -> str:
    """What a run's summary calls its recipe: the name of a shipped one, which any command takes, or the file's stem."""
    if isinstance(source, Mapping):
        return RECIPE
    path = find(source).resolve()
    for folder in (PACKAGED, CHECKOUT):
        if path.is_relative_to(folder.resolve()):
            return path.relative_to(folder.resolve()).with_suffix("").as_posix()
    return path.stem


def shipped() -> list[str]:
    """The names of the shipped recipes that are complete, sorted: all but those in `base/`."""
    names: set[str] = set()
    for folder in (PACKAGED, CHECKOUT):
        files = (path.relative_to(folder) for path in folder.rglob("*.yaml"))
        names |= {path.with_suffix("").as_posix() for path in files if path.parts[0] != _PARTIAL}
    return sorted(names)


def read_chain(source: Path | Mapping[str, Any]) -> tuple[list[Node], list[str]]:
    """A recipe and all that it extends, the farthest first, without the keys `extends`; and one line for each mistake.

    A recipe as a dict names files as if it lay in the working directory.

    Raises:
        RecipeError: a file cannot be read or is no mapping, is missing, or extends itself.
    """
    trees: list[Node] = []
    errors: list[str] = []
    seen: list[Path] = []
    here = Path(RECIPE) if isinstance(source, Mapping) else source
    while True:
        seen.append(here.resolve())
        given = isinstance(source, Mapping) and not trees
        tree, found = _read_dict(source) if given else _read_file(here)
        errors += found
        trees.insert(0, tree)
        parent = _entries(tree).pop("extends", None)
        if parent is None or parent.value is None:
            return trees, errors
        here = _extended(parent, here, seen, errors)


def _extended(parent: Node, child: Path, seen: list[Path], errors: list[str]) -> Path:
    """The file that `extends` names: beside the one that says so, or a shipped one."""
    if not isinstance(parent.value, str):
        raise RecipeError([*errors, f"{parent.where}: extends: expected the path of one recipe"])
    beside = child.parent / parent.value
    here = beside if os.path.isfile(beside) else _shipped_file(parent.value) or _shipped_file(beside) or beside
    if not os.path.isfile(here):
        why = _unusable(here) or "no such file"
        raise RecipeError([*errors, f"{parent.where}: extends: {why}: {shown(shown_path(here))}"])
    if here.suffix not in _SUFFIXES:
        # Its lines would stand in the errors, and a recipe may come from anybody.
        raise RecipeError([*errors, f"{parent.where}: extends: {shown(parent.value)} is no recipe (.yaml)"])
    if here.resolve() in seen:
        names = " -> ".join(file.name for file in [*seen, here])
        raise RecipeError([*errors, f"{parent.where}: extends: a circle: {names}"])
    if len(seen) == MAX_DEPTH:
        raise RecipeError([*errors, f"{parent.where}: extends: more than {MAX_DEPTH} files, one above the other"])
    _tell_new_name(beside, here, f"{parent.where}: extends")
    return here


def read_overrides(overrides: Overrides) -> tuple[Node, list[str]]:
    """The tree that `key.sub=value` arguments, or a dict, stand for (the last of two for one key wins), and its mistakes."""
    if isinstance(overrides, Mapping):
        return _read_values(overrides)
    merged = Node({}, COMMAND_LINE)
    errors: list[str] = []
    for override in [overrides] if isinstance(overrides, str) else overrides:
        if not isinstance(override, str):
            errors.append(f"{COMMAND_LINE}: {shown(override)}: expected the text key=value or key.sub=value")
            continue
        key, equals, text = override.partition("=")
        parts = key.strip().split(".")
        if not equals or not all(parts):
            errors.append(f"{COMMAND_LINE}: {shown(override)}: expected key=value or key.sub=value")
            continue
        if parts[0] in ("extends", "presets"):
            errors.append(f"{COMMAND_LINE}: {parts[0]}: belongs in a recipe file, not on the command line")
            continue
        try:
            node, found = parse(text, lambda line, key=key: f"{COMMAND_LINE}: {key}")  # type: ignore[misc]
        except RecipeError as error:
            errors += error.errors
            continue
        errors += found
        node = _rewhere(node)
        for part in reversed(parts):
            node = Node({part: node}, COMMAND_LINE)
        merged = merge(merged, whole_lists(node))
    return _absolute_paths(merged, Path.cwd()), errors


def _read_values(values: Mapping[str, Any]) -> tuple[Node, list[str]]:
    """The tree of a dict of values by their dotted keys, or by blocks."""
    tree, errors = tree_of(values, VALUES)
    merged = Node({}, VALUES)
    for key, node in _entries(tree).items():
        parts = key.split(".")
        if not all(parts) or parts[0] in ("extends", "presets"):
            why = "belongs in the recipe, not among its overrides" if all(parts) else "expected a key such as run.steps"
            errors.append(f"{VALUES}: {shown(key)}: {why}")
            continue
        for part in reversed(parts):
            node = Node({part: node}, VALUES)
        merged = merge(merged, whole_lists(node))
    return _absolute_paths(merged, Path.cwd()), errors


def _read_dict(data: Mapping[str, Any]) -> tuple[Node, list[str]]:
    tree, errors = tree_of(data, RECIPE)
    entries = _entries(tree)
    for key in [key for key in entries if "." in key]:
        errors.append(f"{RECIPE}: {shown(key)}: a key with a dot is one of overrides; in a recipe its block is a dict")
        del entries[key]
    return _absolute_paths(tree, Path.cwd()), errors


def merge(base: Node, over: Node) -> Node:
    """`over` on top of `base`; both are left as they are."""
    if not isinstance(base.value, dict) or not isinstance(over.value, dict):
        return over
    merged = dict(base.value)
    for key, node in over.value.items():
        merged[key] = merge(merged[key], node) if key in merged else node
    return Node(merged, over.where)


def whole_lists(tree: Node) -> Node:
    """The tree with the mapping `teacher.student_classes` as a list of its entries: it holds as a whole, and in its order."""

    def listed(node: Node) -> Node:
        if not isinstance(node.value, dict):
            return node
        return Node([Node({name: entry}, entry.where) for name, entry in node.value.items()], node.where, node.preset)

    return _changed(tree, ("teacher", "student_classes"), listed)


def scalar(tree: Node, key: str) -> str | None:
    """The text of a top-level key; None where it is absent or anything else."""
    node = _entries(tree).get(key)
    return node.value if node is not None and isinstance(node.value, str) else None


def _entries(tree: Node) -> dict[str, Node]:
    assert isinstance(tree.value, dict)
    return tree.value


def read_text(path: Path) -> str:
    """The text of a recipe's file.

    Raises:
        RecipeError: it cannot be read, is larger than a recipe may be, or is no text.
    """
    name = shown_path(path)
    other = "" if path.suffix in (".yaml", ".yml") else "; a recipe is a text, and names weights as teacher.weights"
    try:
        if path.stat().st_size > MAX_BYTES:
            raise RecipeError(f"{name}:1: larger than {MAX_BYTES} bytes{other}")
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1).decode("utf-8-sig")
    except OSError as error:
        raise RecipeError(f"{name}: cannot read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise RecipeError(f"{name}:{line}: not UTF-8 text{other}") from error


def _read_file(path: Path) -> tuple[Node, list[str]]:
    name = shown_path(path)
    tree, errors = _parsed(read_text(path), name)
    if tree.value is None:
        return Node({}, tree.where), [*errors]
    if not isinstance(tree.value, dict):
        raise RecipeError([*errors, f"{name}:1: expected a mapping (key: value), got {shown(plain(tree))}"])
    return _absolute_paths(Node({**tree.value}, tree.where), path.parent), [*errors]


@functools.lru_cache(maxsize=32)  # base/ddad.yaml stands behind nearly every recipe
def _parsed(text: str, name: str) -> tuple[Node, list[str]]:
    return parse(text, lambda line: f"{name}:{line}")


def shown_path(path: Path) -> str:
    """The path from the working directory if it lies below, else the whole path; on one line."""
    absolute = os.path.abspath(path)
    relative = os.path.relpath(absolute)
    text = absolute if relative.startswith("..") else relative
    return text if text.isprintable() else repr(text)


def _rewhere(node: Node) -> Node:
    """The same values, all given on the command line."""
    if isinstance(node.value, dict):
        return Node({key: _rewhere(child) for key, child in node.value.items()}, COMMAND_LINE)
    if isinstance(node.value, list):
        return Node([_rewhere(child) for child in node.value], COMMAND_LINE)
    return Node(node.value, COMMAND_LINE)


def no_file(key: Sequence[str], value: str) -> bool:
    """Whether what a key that takes a file holds is no file's name, but a word."""
    return value in ("", "none") or (tuple(key) == ("student", "weights") and value == "teacher")


def _absolute_paths(tree: Node, folder: Path) -> Node:
    """File names made absolute: once files are merged, nobody knows which of them said it."""

    def absolute(path: Sequence[str], node: Node) -> Node:
        # ${SEGKD_DATA} stands for an absolute folder, known only where the file is used
        if not isinstance(node.value, str) or no_file(path, node.value) or node.value.startswith(("${", hub.SCHEME)):
            return node
        return Node(os.path.abspath(folder / os.path.expanduser(node.value)), node.where)

    for path in _PATHS:
        tree = _changed(tree, path, functools.partial(absolute, path))
    entries = _entries(tree)
    presets = entries.get("presets")
    if presets is None or not isinstance(presets.value, dict):
        return tree
    changed = {
        name: _absolute_paths(preset, folder) if isinstance(preset.value, dict) else preset
        for name, preset in presets.value.items()
    }
    return Node({**entries, "presets": Node(changed, presets.where)}, tree.where)


def _changed(tree: Node, path: Sequence[str], change: Callable[[Node], Node]) -> Node:
    """The tree with `change` applied to the node at `path`, if there is one."""
    if not path:
        return change(tree)
    if not isinstance(tree.value, dict) or path[0] not in tree.value:
        return tree
    child = _changed(tree.value[path[0]], path[1:], change)
    return Node({**tree.value, path[0]: child}, tree.where)
