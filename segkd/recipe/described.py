"""The network that the `config.json` in a folder of weights describes, as values of a recipe that says nothing of it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segkd.recipe import networks
from segkd.recipe.options import NOT_OPTIONS, can_be_said
from segkd.recipe.pretrained import STUDENTS, folder_of
from segkd.recipe.sources import shown_path
from segkd.recipe.strict_yaml import Node, in_flow

FILE = "config.json"
MOST_BYTES = 1_000_000
"""Of a description that is read."""
_SEMANTIC = "ForSemanticSegmentation"
"""How transformers' classes for it are called."""
_UNNAMED = re.compile(r"LABEL_\d+")
"""What transformers calls a class that nobody named."""


def config_in(file: Path) -> dict[str, Any] | None:
    """What a `config.json` or a `preprocess.json` says; None: it is not there, too large, or damaged, which its reader tells."""
    try:
        if file.stat().st_size > MOST_BYTES:
            return None
        config = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return config if isinstance(config, dict) else None


@dataclass(frozen=True)
class _Description:
    """What is said of a network: None and nothing where it is not.

    Attributes:
        classes: what they are called, or how many there are.
    """

    arch: str | None = None
    encoder: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    classes: list[str] | int | None = None


def with_described(teacher: Mapping[str, Node], weights: Path) -> tuple[dict[str, Node], list[str]]:
    """The teacher's keys with those that a recipe leaves out and the folder of its weights says; what a recipe says stays.

    Args:
        teacher: a recipe's block.
        weights: that folder, or the file of weights in it.

    Returns:
        the block, and a line on what was taken.
    """
    folder = folder_of(weights)
    found = _description(folder)
    if found.arch is None or not _alike(_value(teacher, "arch"), found.arch):
        return dict(teacher), []  # of another network than is asked for: what is compared when it is built tells
    where = shown_path(folder / FILE)
    said = {key: getattr(found, key) for key in ("arch", "encoder", "classes")}
    new = {key: value for key, value in said.items() if value is not None and _value(teacher, key) is None}
    taken = {**teacher, **{key: _node(value, where) for key, value in new.items()}}
    block = teacher.get("options", Node({}, where))
    options = {} if block.value is None else block.value
    if _value(taken, "encoder") == found.encoder and isinstance(options, dict):  # of another encoder they say nothing
        more = {key: value for key, value in found.options.items() if key not in options}
        if more:
            taken["options"] = Node(
                {**options, **{key: _node(value, where) for key, value in more.items()}}, block.where
            )
            new["options"] = more
    values = (f"{key}: {in_flow(value)}" for key, value in new.items())
    return taken, [f"{where}: says what the recipe leaves out: teacher.{', '.join(values)}"] if new else []


def _alike(given: Any, found: str) -> bool:
    """Whether an architecture that a recipe names may be the one that is described; by one of transformers' it may stand for others."""
    general = {name.lower() for name in networks.from_folder()}
    return given is None or str(given).lower() == found.lower() or {str(given).lower(), found.lower()} <= general


def _node(value: Any, where: str) -> Node:
    return Node([Node(each, where) for each in value] if isinstance(value, list) else value, where)


def _value(teacher: Mapping[str, Node], key: str) -> Any:
    return teacher[key].value if key in teacher else None


def _description(folder: Path) -> _Description:
    """Of a folder of smp's, of a student of segkd, or of transformers."""
    config = config_in(folder / FILE)
    if config is None:
        return _Description()
    named = config.get("_model_class")
    of_transformers = config.get("architectures")
    if named is None and isinstance(of_transformers, list) and of_transformers:
        return _Description(_of_transformers(str(of_transformers[0])), classes=_labels(config))
    arch = networks.in_its_case(str(named))
    if arch is None:
        return _Description()
    encoder = config.get("encoder_name")
    about = config_in(folder / STUDENTS) or {}
    return _Description(
        arch, encoder if isinstance(encoder, str) else None, _options(arch, encoder, config),
        _names(about.get("classes")) or _number(config.get("classes")),
    )  # fmt: skip


def _of_transformers(named: str) -> str | None:
    """The name under which a class of transformers is built: its own, or that for any network which gives each pixel a class."""
    known = networks.from_folder()
    return named if named in known else known[-1] if named.endswith(_SEMANTIC) else None


def _options(arch: str, encoder: Any, config: Mapping[str, Any]) -> dict[str, Any]:
    """Those that are otherwise than such an architecture has them by itself, and that a recipe has words for."""
    defaults = networks.defaults_of(arch)
    of_encoder = arch in networks.without_encoder() or str(encoder).startswith("tu-")
    found: dict[str, Any] = {}
    for key, value in config.items():
        known = key in defaults or (of_encoder and not key.startswith(("_", "pretrained")))
        other = value is not None and value != defaults.get(key)
        if known and other and key not in NOT_OPTIONS and can_be_said(value):
            found[key] = value
    return found


def _labels(config: Mapping[str, Any]) -> list[str] | int | None:
    """The classes of transformers: their names in `id2label`, or their number where nobody named them."""
    named = config.get("id2label")
    if not isinstance(named, dict):
        return _number(config.get("num_labels"))
    names = _names([named.get(str(index)) for index in range(len(named))])
    return _number(len(named)) if not names or any(map(_UNNAMED.fullmatch, names)) else names


def _names(value: Any) -> list[str]:
    return value if isinstance(value, list) and all(isinstance(name, str) for name in value) else []


def _number(value: Any) -> int | None:
    """Of classes; one logit tells two apart."""
    return max(value, 2) if type(value) is int else None
