"""What the tools take from segkd is there: most of them are too long to be run by each commit's tests."""

import ast
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

TOOLS = sorted((Path(__file__).parents[2] / "tools").glob("*.py"))


def taken(text: str) -> dict[str, set[str]]:
    """The names that a program takes from each module of segkd: by import, or as an attribute of a module that it imports."""
    tree, found = ast.parse(text), {}
    modules: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "segkd":
            found.setdefault(node.module, set()).update(alias.name for alias in node.names)
            modules |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    own = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id in modules.keys() - own
        ):
            found.setdefault(modules[node.value.id], set()).add(node.attr)
    return found


def missing(text: str) -> list[str]:
    lacks = []
    for path, names in taken(text).items():
        outer, _, inner = path.rpartition(".")
        try:
            home: object = import_module(path)
        except ModuleNotFoundError:
            home = getattr(import_module(outer), inner)
        if isinstance(home, ModuleType):
            lacks += [f"{path}.{name}" for name in names if not hasattr(home, name) and not _submodule(path, name)]
    return lacks


def _submodule(path: str, name: str) -> bool:
    try:
        return bool(import_module(f"{path}.{name}"))
    except ModuleNotFoundError:
        return False


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.stem)
def test_what_a_tool_takes_is_there(tool: Path) -> None:
    assert not missing(tool.read_text("utf-8"))


@pytest.mark.parametrize(
    ("text", "lacks"),
    [
        ("from segkd.training import loop\nloop.environment", ["segkd.training.loop.environment"]),
        ("from segkd.training.loop import nothing", ["segkd.training.loop.nothing"]),
        ("from segkd import builders\nbuilders.teacher_of\nfrom segkd.recipe import load\nload.anything", []),
    ],
)
def test_what_is_not_there_is_seen(text: str, lacks: list[str]) -> None:
    assert missing(text) == lacks
