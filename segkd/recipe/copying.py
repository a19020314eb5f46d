"""A recipe's text for another place, from where it still finds the files that it names."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from segkd.foundation.errors import RecipeError
from segkd.recipe.sources import named, no_file, read_text, shown_path
from segkd.recipe.strict_yaml import parse

_WEIGHTS = (("teacher", "weights"), ("student", "weights"), ("model", "weights"))


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
    events = yaml.parse(text, Loader=yaml.SafeLoader)
    next(events), next(events)  # the starts of the stream and of the document
    parts: list[str] = []
    done = 0
    for key, event in _scalars(next(events), events, ()):
        path = event.value
        block = key[2:] if key[:1] == ("presets",) else key
        if not (key == ("extends",) or block in _WEIGHTS) or no_file(block, path) or path.startswith(("/", "~", "${")):
            continue
        whole = os.path.abspath(source.parent / path)
        if key == ("extends",) and not os.path.isfile(whole) and named(path):
            continue
        anchor = f"&{event.anchor} " if event.anchor else ""
        parts += [text[done : event.start_mark.index], anchor, _scalar(whole)]
        done = event.end_mark.index
    return "".join([*parts, text[done:]])


def _scalars(event: Any, events: Iterator[Any], key: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The scalars of the node that begins at `event`, in the order of the text, with their keys."""
    if isinstance(event, yaml.ScalarEvent):
        yield key, event
    elif isinstance(event, yaml.SequenceStartEvent):
        while not isinstance(item := next(events), yaml.SequenceEndEvent):
            yield from _scalars(item, events, (*key, "[]"))
    elif isinstance(event, yaml.MappingStartEvent):
        while not isinstance(name := next(events), yaml.MappingEndEvent):
            yield from _scalars(next(events), events, (*key, getattr(name, "value", "")))


def _scalar(path: str) -> str:
    """A path as YAML, in quotes where it needs them."""
    return path if re.fullmatch(r"[\w./-]+", path) else json.dumps(path, ensure_ascii=not path.isprintable())
