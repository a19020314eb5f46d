"""What runs a folder holds, and how far each is, as their files tell; nothing is loaded."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from segkd.foundation.errors import SegkdError, StorageError
from segkd.foundation.files import in_use
from segkd.foundation.terminal import aligned, spoken
from segkd.recipe.strict_yaml import parse, plain
from segkd.recipe.terms import Terms, method_terms
from segkd.training.log import SCORES, read_lines

DEEPEST = 4
"""Folders within folders that are looked into."""
MOST_BYTES = 1_000_000
"""Of a recipe or a summary."""


@dataclass(frozen=True)
class Listed:
    """A run.

    Attributes:
        state: finished, running, stopped (it goes on with its command), or damaged.
        step, steps: done, and in all; `seconds` are what is left at the pace so far, while it runs.
        agreement, miou: at its end, or when it was looked at last; None: not measured.
    """

    folder: str
    what: str
    state: str
    step: int
    steps: int | None
    seconds: float | None
    agreement: float | None
    miou: float | None


def runs(root: Path) -> list[Listed]:
    """All runs below a folder, by name; those of a comparison lie deeper.

    Raises:
        StorageError: there is no such folder.
    """
    if not root.is_dir():
        raise StorageError(f"{root}: no such folder; name the one that holds your runs")
    methods = method_terms()
    return [_listed(folder, methods) for folder in _folders(root, DEEPEST)]


def _folders(root: Path, depth: int) -> Iterator[Path]:
    if (root / "recipe.yaml").is_file() and ((root / "checkpoints").is_dir() or (root / "summary.json").is_file()):
        yield root
        return
    try:
        inner = sorted(entry.path for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith("."))
    except OSError:
        return  # one that may not be looked into holds no run of this user's
    for path in inner if depth else ():
        yield from _folders(Path(path), depth - 1)


def _listed(folder: Path, methods: Mapping[str, Terms]) -> Listed:
    recipe, summary, lines = (
        _recipe(folder / "recipe.yaml"),
        as_object(folder / "summary.json"),
        logged(folder),
    )
    if recipe is None:
        return Listed(str(folder), "?", "damaged", 0, None, None, None, None)
    steps = recipe.get("run", {}).get("steps")
    what, variant = recipe.get("method") or "labels", recipe.get("variant")
    if variant and (what not in methods or variant in methods[what].variants):
        what += f".{variant}"
    if summary is not None and "seconds" in summary:
        return Listed(
            str(folder),
            what,
            "finished",
            summary.get("steps", steps),
            steps,
            None,
            summary.get("agreement"),
            summary.get("student_miou"),
        )
    running = in_use(folder)
    step = saved_step(folder)
    last = lines[-1] if lines else {}
    step = max(step, last.get("step", 0)) if running else step
    left = None
    if running and steps and last.get("step"):
        left = last["seconds"] / last["step"] * max(steps - last["step"], 0)
    found = {key: _latest(lines, keys) for key, keys in (("agreement", ("agreement",)), ("miou", SCORES))}
    return Listed(str(folder), what, "running" if running else "stopped", step, steps, left, **found)


def _latest(lines: list[dict[str, Any]], keys: tuple[str, ...]) -> float | None:
    return next((line[key] for line in reversed(lines) for key in keys if isinstance(line.get(key), float)), None)


def saved_step(folder: Path) -> int:
    """The newest step that a run has saved, as far as the names of its checkpoints tell; 0: none."""
    steps = [path.name.split("-")[1] for path in folder.glob("checkpoints/step-*-*.ckpt")]
    return max((int(step) for step in steps if step.isdigit()), default=0)


def _recipe(path: Path) -> dict[str, Any] | None:
    try:
        if path.stat().st_size > MOST_BYTES:
            return None
        found = plain(parse(path.read_text("utf-8"), lambda line: f"{path}:{line}")[0])
    except (OSError, ValueError, SegkdError):
        return None
    return found if isinstance(found, dict) and isinstance(found.get("run"), dict) else None


def as_object(path: Path) -> dict[str, Any] | None:
    """What a file of JSON holds; None where none is there, or it is damaged."""
    try:
        found = json.loads(path.read_text("utf-8")) if path.stat().st_size <= MOST_BYTES else None
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def logged(folder: Path) -> list[dict[str, Any]]:
    """The whole lines of a run's log; nothing where it may not be read."""
    try:
        return read_lines(folder / "metrics.jsonl")
    except StorageError:
        return []


def table(found: list[Listed]) -> list[str]:
    """A line for each run, under headings."""
    rows = [("run", "method", "state", "step", "left", "agreement", "mIoU")]
    for run in found:
        step = f"{run.step:,}" if run.steps is None or run.step == run.steps else f"{run.step:,}/{run.steps:,}"
        scores = ("" if value is None else f"{value:.3f}" for value in (run.agreement, run.miou))
        rows.append(
            (run.folder, run.what, run.state, step, "" if run.seconds is None else spoken(run.seconds), *scores)
        )
    return aligned(rows, texts=3)


def as_json(found: list[Listed]) -> str:
    """The same for programs."""
    return json.dumps([asdict(run) for run in found], indent=2)
