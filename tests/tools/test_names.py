"""What the tools take from segkd is there: most of them are too long to be run by each commit's tests."""

import ast
from pathlib import Path
from pkgutil import resolve_name

import pytest

TOOLS = sorted((Path(__file__).parents[2] / "tools").glob("*.py"))


def taken(text: str) -> set[str]:
    """The dotted names that a program takes from segkd: by import, or as an attribute of what it imports."""
    nodes = list(ast.walk(ast.parse(text)))
    names = {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in nodes
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "segkd"
        for alias in node.names
    }
    stored = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    looked = [node for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)]
    attributes = {f"{names[node.value.id]}.{node.attr}" for node in looked if node.value.id in names.keys() - stored}
    return {*names.values(), *attributes}


def missing(text: str) -> list[str]:
    return [name for name in sorted(taken(text)) if not there(name)]


def there(name: str) -> bool:
    try:
        resolve_name(name)
    except (AttributeError, ImportError):
        return False
    return True


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.stem)
def test_what_a_tool_takes_is_there(tool: Path) -> None:
    assert not missing(tool.read_text("utf-8"))


@pytest.mark.parametrize(
    ("text", "lacks"),
    [
        ("from segkd.training import loop\nloop.environment", ["segkd.training.loop.environment"]),
        ("from segkd.training.loop import nothing", ["segkd.training.loop.nothing"]),
        ("from segkd import builders\nbuilders.teacher_of\nfrom segkd.recipe import load\nload", []),
        ("from segkd.recipe import load\nload.anything", ["segkd.recipe.load.anything"]),
    ],
)
def test_what_is_not_there_is_seen(text: str, lacks: list[str]) -> None:
    assert missing(text) == lacks
