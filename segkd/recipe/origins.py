"""A whole recipe as YAML, with a comment on each value: where it was written, or that nobody wrote it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from segkd.recipe import pretrained
from segkd.recipe.blocks import DistillRecipe, Teacher
from segkd.recipe.loading import Loaded, expand_root, read
from segkd.recipe.messages import key_name
from segkd.recipe.sources import find, shown_path, tell
from segkd.recipe.strict_yaml import dump

COLUMN = 44


def annotated(
    source: str | Path, overrides: Sequence[str] = (), method_file: Path | None = None, own_teacher: str | None = None
) -> str:
    """The recipe as it would run, as YAML that `load` reads back as an equal recipe.

    Raises:
        RecipeError: as `load`.
    """
    found = read(source, overrides, method_file=method_file, own_teacher=own_teacher)
    for line in found.notes:
        tell(line)
    head = f"# {shown_path(find(source))}, as it would run, and where each value was written"
    return "\n".join([head, *_lines(found, found.recipe.as_dict())]) + "\n"


_OF_WEIGHTS = (("teacher", "mean"), ("teacher", "std"))


def _lines(found: Loaded, tree: dict[str, Any], above: tuple[str, ...] = ()) -> Iterator[str]:
    """A block's keys, and those of the blocks in it; what is a value has its comment at the end."""
    indent = "  " * len(above)
    for name, value in tree.items():
        key = (*above, name)
        if isinstance(value, dict) and value:
            yield f"{indent}{name}:"
            yield from _lines(found, value, key)
        else:
            *before, last = dump({name: value}, width=float("inf")).rstrip("\n").split("\n")  # an odd key has its own
            yield from (indent + line for line in before)
            yield f"{indent + last:<{COLUMN}}  # {_origin(found, key, value)}"


def _beside(recipe: DistillRecipe) -> str:
    """The file that says how the teacher's images were normalised."""
    file = pretrained.file_of(expand_root(recipe.teacher.weights))
    return pretrained.FILE if file is None else file.name


def _origin(found: Loaded, key: tuple[str, ...], value: Any) -> str:
    node = found.tree
    for part in key:
        if not isinstance(node.value, dict) or part not in node.value:
            if key in _OF_WEIGHTS and tuple(value) != Teacher.model_fields[key[1]].default:
                return f"{_beside(found.recipe)} beside its weights"  # type: ignore[arg-type]
            of_method = key[0] in ("weights", "options") and len(key) == 2
            return f"default of {found.recipe.method}" if of_method else "default"  # type: ignore[union-attr]
        node = node.value[part]
    if node.value is None and value is not None:
        return f"default (null at {node.where})"
    return f"preset {key_name((node.preset,))}, {node.where}" if node.preset else node.where
