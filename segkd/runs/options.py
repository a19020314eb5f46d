"""What a caller may choose beside the recipe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from segkd.models.own import OwnNetwork
from segkd.training.game import Progress


@dataclass(frozen=True)
class Options:
    """What a caller may choose beside the recipe: `resume` is auto, never or a checkpoint's path.

    `name` is the recipe's name in the summary; empty: the run folder's name. `progress` is told each step. `method_file` is a
    user's own method, `teacher` a user's own teacher.
    """

    name: str = ""
    resume: str = "auto"
    accept: tuple[str, ...] = ()
    quiet: bool = False
    trust_pickle: bool = False
    progress: Callable[[Progress], object] | None = None
    method_file: Path | None = None
    teacher: OwnNetwork | None = None
