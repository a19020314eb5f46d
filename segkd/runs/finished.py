"""A finished run that is called again: its summary, its networks measured on something else, or more steps."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segkd.foundation.errors import StorageError, UsageError
from segkd.foundation.files import sha256
from segkd.machine import ranks
from segkd.models.own import OwnNetwork
from segkd.recipe import DistillRecipe, Recipe, TeachRecipe, differences, unset_root
from segkd.runs.folder import (
    EXIT_CODE,
    METHOD,
    TEACHER,
    TEACHER_FILE,
    about_run,
    check_folder,
    data_root,
    free_keys,
    read_recipe,
    teacher_hash,
)
from segkd.runs.options import Options
from segkd.training import checkpoint

MEASURING = ("data.name", "data.final", "data.size", "data.root")
"""What a finished run's networks were measured on; with another choice they are measured again."""
IDLE = ("run.sample_every",)
"""What means nothing to a run that is finished."""
AFTERWARDS = ("run.headline",)
"""What decides which of the trained weights are the result: a finished run can still be told."""


def finished(folder: Path, recipe: DistillRecipe | TeachRecipe, options: Options) -> dict | None:
    """The summary of a finished run; None for one that is not finished, not begun, or that is to go on.

    It goes on to be measured on something else, to be trained for more steps, or because a file of it is damaged or missing:
    its last checkpoint holds all that is needed. All but the first two cases are told.

    Raises:
        UsageError: the finished run had another recipe or teacher, or is not to be taken as it is.
        StorageError: the folder is not a run's; or damaged, and there is no checkpoint to go on from.
    """
    check_folder(folder)
    resume, accept = options.resume, options.accept
    summary = _summary_of(folder, recipe)
    if summary is None:
        return None
    if resume == "never":
        raise UsageError(f"{folder}: holds a finished run; name another run.dir, or take it with --resume auto")
    if resume != "auto":
        ranks.say(f"{folder}: finished, and played again from {resume}")
        return None
    change = _change_of(folder, recipe, options, summary)
    _refuse(folder, change, accept)
    if change.more or change.accepted(accept) or change.measuring:
        if not checkpoint.listed(folder / "checkpoints"):
            raise UsageError(
                f"{folder}: finished, and its checkpoints are gone: it can neither be trained on nor measured again by this"
                f" command; measure its {'model' if isinstance(recipe, TeachRecipe) else 'student'} with segkd eval {folder}"
            )
        if change.more:
            ranks.say(f"{folder}: finished after {change.done} steps, and trained on")
        elif change.keys:
            ranks.say(f"{folder}: finished, and made again with another {', '.join(change.keys)}")
        else:
            ranks.say(f"{folder}: finished, and measured again with another {', '.join(change.measuring)}")
        return None
    if idle := [key for key in accept if key not in change.keys]:
        ranks.say(f"{folder}: finished, with the same {', '.join(idle)}: nothing is left to do")
    return summary


def _summary_of(folder: Path, recipe: Recipe) -> dict[str, Any] | None:
    """What a finished run has said last, if all that it left is there and whole."""
    path, made = folder / "summary.json", folder / ("model" if isinstance(recipe, TeachRecipe) else "student")
    if not path.is_file():
        return None
    try:
        summary = json.loads(path.read_text("utf-8"))
        if not isinstance(summary, dict):
            raise ValueError("no summary of a run")
        if EXIT_CODE in summary:
            return None
        if not made.is_dir():
            raise StorageError(f"{made}: missing, though the run was finished")
        read_recipe(folder / "recipe.yaml")
        return summary
    except (OSError, ValueError, RecursionError, StorageError) as error:
        if isinstance(error, PermissionError):
            raise StorageError(f"{path}: cannot read: {error.strerror}") from error
        line = str(error) if isinstance(error, StorageError) else f"{path}: damaged ({error})"
        if not checkpoint.listed(folder / "checkpoints"):
            raise StorageError(f"{line}, and no checkpoint is there; name another run.dir") from error
        ranks.say(f"warning: {line}; made again from the last checkpoint")
        return None


@dataclass(frozen=True)
class Change:
    """How a recipe differs from that of the finished run in its folder.

    Attributes:
        keys: what differs and would have mattered while it ran.
        measuring: what differs and says on what it is measured.
        before: the steps that it was to do; `done`: those that it has done, fewer where its patience ended it.
        more: whether it is to do more.
        fewer: the steps that are asked for, where those are fewer.
    """

    keys: list[str]
    measuring: list[str]
    before: int
    done: int
    more: bool
    fewer: int | None

    def accepted(self, accept: tuple[str, ...]) -> list[str]:
        return [key for key in self.keys if key in accept]


def _change_of(folder: Path, recipe: DistillRecipe | TeachRecipe, options: Options, summary: dict[str, Any]) -> Change:
    written = read_recipe(folder / "recipe.yaml")
    different, before = differences(written, recipe.as_dict()), int(written["run"]["steps"])
    in_time = recipe.run.budget is not None  # it has become steps, which are no change of the user's
    ignored = (*free_keys(recipe), *IDLE, "run.steps" if in_time else "run.budget")
    keys, asked = [key for key in different if not key.startswith(ignored)], None if in_time else recipe.run.steps
    if isinstance(recipe, DistillRecipe) and (other := _other_teacher(folder, recipe, options.teacher)) is not None:
        keys = [key for key in keys if key != "teacher.weights"] + ["teacher.weights"] * other
    given = {"method": options.method_file and sha256(options.method_file),
             "teacher": options.teacher and options.teacher.file and options.teacher.file.sha256}  # fmt: skip
    for kind, key in (("method", METHOD), ("teacher", TEACHER_FILE)):
        if given[kind] and given[kind] != about_run(folder).get(key) and kind not in keys:
            keys.append(kind)
    more = asked > before if asked is not None else "run.budget" in keys
    measuring = [key for key in different if key in MEASURING and key != "data.root"]
    same_set = recipe.data.final is not None and "data.name" not in measuring
    if same_set and _other_root(folder, recipe, "data.root" in different):
        measuring.append("data.root")
    done = int(summary.get("steps", before))
    return Change(keys, measuring, before, done, more, asked if asked is not None and asked < before else None)


def _refuse(folder: Path, change: Change, accept: tuple[str, ...]) -> None:
    """Raises UsageError where a change was not accepted, or comes too late."""
    of = "" if change.done == change.before else f" of {change.before}"
    done = f"{folder}: finished after {change.done}{of} steps"
    if change.fewer is not None:
        raise UsageError(f"{done}, which are more than run.steps {change.fewer}; name another run.dir")
    if missing := [key for key in change.keys if key not in accept]:
        flags = " ".join(f"--accept {key}" for key in missing[:5])
        if change.more:
            raise UsageError(
                f"{done}; to train it on with another {', '.join(missing[:5])}: {flags}; or name another run.dir"
            )
        if set(missing) <= set(AFTERWARDS):
            raise UsageError(f"{done}; to make its student again with another {missing[0]}: {flags}")
        raise UsageError(f"{folder}: a finished run of another recipe ({', '.join(missing[:5])}); name another run.dir")
    late = [key for key in change.keys if key not in AFTERWARDS]
    if late and not change.more:
        raise UsageError(
            f"{done}: no step is left that another {', '.join(late[:5])} could change; ask for more run.steps too"
            " (--accept run.steps), or name another run.dir"
        )


def _other_teacher(folder: Path, recipe: DistillRecipe, own: OwnNetwork | None) -> bool | None:
    """Whether the teacher's file is another one than the run had, wherever it lies; None: it is gone, and not missed.

    Of a user's own teacher without a file of weights, whether it now has others.
    """
    known, weights = about_run(folder).get(TEACHER), recipe.teacher.weights
    if known is None and weights is not None:
        return None
    found = teacher_hash(weights, None if own is None else own.built)
    return None if found is None else found != known


def _other_root(folder: Path, recipe: DistillRecipe | TeachRecipe, other_words: bool) -> bool:
    """Whether the labelled set is read from another folder than the finished run's was, as far as that can be known."""
    if recipe.data.name in (None, "scenes") or recipe.data.root is None or unset_root(recipe.data.root):
        return False
    known = about_run(folder).get("data root")
    return other_words if known is None else known != data_root(recipe)
