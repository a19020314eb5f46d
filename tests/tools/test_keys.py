"""The page of all recipe keys is what the code says."""

import importlib.util
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[2]


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("keys", ROOT / "tools" / "keys.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_current() -> None:
    tool = _load()
    text = tool.PAGE.read_text("utf-8")
    assert tool.render(text) == text, "python tools/keys.py"


def test_what_stands_around_the_tables_stays() -> None:
    tool = _load()
    made = tool.render(f"before\n{tool.BEGIN}former\n{tool.END}after\n")
    assert made.startswith(f"before\n{tool.BEGIN}") and made.endswith(f"{tool.END}after\n") and "former\n" not in made
    assert "| `synth.refine` | `0` |" in made and "### teacher" in made
