"""`segkd compare`: the runs of a comparison, one after another, and beside other processes that share the folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segkd.data import catalogue
from segkd.foundation import terminal
from segkd.foundation.errors import DataError, Stopped, StorageError, UsageError
from segkd.foundation.files import atomic_write, in_use, make_folder
from segkd.models.own import OwnNetwork
from segkd.recipe import TeachRecipe
from segkd.recipe.comparison import Cell
from segkd.runs.finished import finished
from segkd.runs.labelled import model_of
from segkd.runs.options import Options
from segkd.training.log import SCORES, read_lines
from segkd.training.signals import StopFlag

LOOK = 0.1
"""Seconds between two looks whether a run has ended, or a signal has come."""
IN_USE = StorageError.exit_code


@dataclass
class Result:
    """What is known of a cell: the summary of its run, or why there is none."""

    cell: Cell
    summary: dict[str, Any] | None = None
    why: str = ""
    exit_code: int = 0
    looks: list[dict[str, Any]] = field(default_factory=list)
    """The lines of its log that hold an evaluation, in order."""


@dataclass(frozen=True)
class Flags:
    """What each run's command is given beside its recipe."""

    trust_pickle: bool = False
    method_file: Path | None = None
    teacher_file: str | None = None
    quiet: bool = False

    def of(self, cell: Cell) -> list[str]:
        """Those of a cell's command."""
        given = ["--quiet"] if self.quiet else []
        if self.trust_pickle:
            given.append("--trust-pickle")
        if (file := self.method_file_of(cell)) is not None:
            given += ["--method-file", str(file)]
        if self.teacher_file is not None and cell.method is not None:
            given += ["--teacher-file", self.teacher_file]
        return given

    def method_file_of(self, cell: Cell) -> Path | None:
        """The user's own method, where a cell plays it."""
        played = self.method_file is not None and cell.method == self.method_file.stem
        return self.method_file if played else None


def with_labelled_images(cells: Sequence[Cell]) -> tuple[list[Cell], list[str]]:
    """The cells without those that train on labelled images which are not there, and a line about each."""
    kept: list[Cell] = []
    lines: dict[str, None] = {}
    for cell in cells:
        try:
            _find_images(cell)
            kept.append(cell)
        except DataError as error:
            lines[f"{cell.recipe}: {cell.row} left out: {error}"] = None
    return kept, [*lines]


def _find_images(cell: Cell) -> None:
    """Raises DataError where a run trains on a data set's images and they are not found."""
    recipe, data = cell.resolved, cell.resolved.data
    trains = isinstance(recipe, TeachRecipe) or recipe.synth.shows_set
    if trains and data.name is not None:
        split = data.train if isinstance(recipe, TeachRecipe) else recipe.synth.split
        catalogue.dataset(data.name, data.root, split, catalogue.class_map(*model_of(recipe).mapped_classes).teacher)


def results(cells: Sequence[Cell], flags: Flags) -> list[Result]:
    """What is known of each cell.

    Raises:
        UsageError: its folder holds the finished run of another recipe.
    """
    own = None if flags.teacher_file is None else OwnNetwork.in_file(flags.teacher_file)
    found = []
    for cell in cells:
        options = Options(
            trust_pickle=flags.trust_pickle, teacher=own if cell.method else None,
            method_file=flags.method_file_of(cell),
        )  # fmt: skip
        try:
            summary = finished(cell.folder, cell.resolved, options)
        except UsageError as error:
            said = re.sub(
                r"; to (train it on|make its student again) with (another [^:]*):.*", r"; asked for with \2", str(error)
            )
            raise UsageError(f"{said.partition('; name ')[0]}; name another folder: --out DIR") from error
        found.append(Result(cell, summary, "" if summary else "not run yet", looks=_looks(cell.folder)))
    return found


def play(cells: Sequence[Cell], flags: Flags, after: Callable[[list[Result]], object]) -> list[Result]:
    """Run what is not finished and nobody else is running; `after` is told the results whenever one has come.

    A run that fails leaves its reason, and the others go on.

    Raises:
        UsageError: as `results`, or torchrun has started several of them.
        Stopped: a signal came; the run that it met has saved what it had.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError(
            "segkd compare starts each run itself: without torchrun, and as often as you like with one --out"
        )
    known = results(cells, flags)
    with StopFlag().listening() as stop:
        for at, cell in enumerate(cells):
            if known[at].summary is not None:
                continue
            if not in_use(cell.folder):
                if not flags.quiet:
                    terminal.say("", f"{at + 1} of {len(cells)}: {cell.recipe}: {cell.row}, seed {cell.seed}")
                code = run_cell(cell, flags, stop)
                if stop.signum is not None:
                    raise Stopped(stop.signum, f"stopped by signal {stop.signum}: the same command goes on")
                known[at] = results([cell], flags)[0]
                if known[at].summary is None and not (code == IN_USE and in_use(cell.folder)):
                    known[at].why, known[at].exit_code = _failure(code), code if code > 0 else 128 - code
            _look_again(known, flags)
            after(known)
    _look_again(known, flags)
    after(known)
    return known


def _look_again(known: list[Result], flags: Flags) -> None:
    """Take in what other processes have done since the last look."""
    for at, result in enumerate(known):
        if result.summary is None and not result.exit_code:
            [known[at]] = results([result.cell], flags)
            if known[at].summary is None and in_use(result.cell.folder):
                known[at].why = "another process runs it"


def command(cell: Cell, flags: Flags) -> list[str]:
    """What runs a cell, as anybody could."""
    return [sys.executable, "-m", "segkd", cell.verb, cell.source, *cell.values, *flags.of(cell)]


def run_cell(cell: Cell, flags: Flags, stop: StopFlag) -> int:
    """Run a cell in a process of its own, so that its memory is its own; returns its exit code, or minus a signal's number."""
    if isinstance(cell.resolved, TeachRecipe):
        make_folder(Path(cell.source).parent)
        atomic_write(Path(cell.source), cell.resolved.to_yaml())
    # A session of its own: signals of the terminal come to it through this process alone, and once.
    run = subprocess.Popen(command(cell, flags), stdout=subprocess.DEVNULL, start_new_session=True)
    told = None
    try:
        while True:
            try:
                return run.wait(LOOK)
            except subprocess.TimeoutExpired:
                if stop.signum is not None and told is None:
                    told = stop.signum
                    run.send_signal(told)
    finally:
        if run.poll() is None:  # this process ends by something unforeseen
            run.terminate()


def _failure(code: int) -> str:
    return f"failed: exit code {code}" if code >= 0 else f"failed: ended by signal {-code}"


def _looks(folder: Path) -> list[dict[str, Any]]:
    """The evaluations in a run's log."""
    return [line for line in read_lines(folder / "metrics.jsonl") if line.keys() & {"agreement", *SCORES}]
