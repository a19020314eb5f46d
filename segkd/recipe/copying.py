"""A recipe's text for another place, from where it still finds the files that it names."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML, MappingNode, ScalarNode

from segkd.foundation.errors import RecipeError
from segkd.recipe import hub
from segkd.recipe.sources import READ, named, no_file, read_text, shown_path
from segkd.recipe.strict_yaml import parse


def anchored(source: Path) -> str:
    """The text of a recipe, comments and all, in which the files that it reads are named by their whole paths.

    A shipped recipe that it extends by name, and what it writes (`output`), stay as they are.

    Raises:
        RecipeError: it cannot be read.
    """
    text = read_text(source)
    errors = parse(text, lambda line: f"{shown_path(source)}:{line}")[1]
    if errors:
        raise RecipeError(errors)
    yaml = YAML(typ="safe", pure=True)
    yaml.composer.warn_double_anchors = False
    named_whole: dict[tuple[int, int], str] = {}  # an alias stands for the text at its anchor
    for key, node in _scalars(yaml.compose(text), ()):
        path = node.value
        block = key[2:] if key[:1] == ("presets",) else key
        if (
            not (key == ("extends",) or block in READ)
            or node.tag.endswith(":null")
            or no_file(block, path)
            or path.startswith(("/", "~", "${", hub.SCHEME))
        ):
            continue
        whole = os.path.abspath(source.parent / path)
        if key == ("extends",) and not os.path.isfile(whole) and named(path):
            continue
        anchor = f"&{node.anchor} " if node.anchor else ""
        named_whole[node.start_mark.index, node.end_mark.index] = anchor + _scalar(whole)
    for (start, end), whole in sorted(named_whole.items(), reverse=True):
        text = text[:start] + whole + text[end:]
    return text


def _scalars(node: Any, key: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The scalars below a mapping's keys, in the order of the text."""
    if isinstance(node, ScalarNode):
        yield key, node
    elif isinstance(node, MappingNode):
        for name, value in node.value:
            yield from _scalars(value, (*key, name.value))


def _scalar(path: str) -> str:
    """A path as YAML, in quotes where it needs them."""
    return path if re.fullmatch(r"[\w./-]+", path) else json.dumps(path, ensure_ascii=not path.isprintable())
