"""The log of a run: `metrics.jsonl` for machines, one live line for people."""

from __future__ import annotations

import importlib.util
import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, SupportsFloat

from segkd.foundation import terminal
from segkd.foundation.errors import StorageError, UsageError
from segkd.foundation.files import append, atomic_write
from segkd.machine.memory import largest_mb

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

PLAIN = 30.0
"""Seconds between two lines of progress where nothing can be written over."""
SCORES = ("val_miou_ema", "val_miou_last", "val_miou")
"""What an evaluation calls the mIoU on the watched split, the one to look at first."""


class RunLog:
    """Appends one JSON object a line to `metrics.jsonl`, and tells the terminal how the run goes.

    Args:
        path: the file; lines after `resumed_at` steps are dropped, since those steps are played again.
        steps: the run's length, for the ETA.
        quiet: say nothing on the terminal but warnings.
        mute: neither write nor say anything: another process of the run does.
        board: a folder for TensorBoard's events; None: none are written.
    """

    def __init__(
        self,
        path: Path,
        steps: int,
        resumed_at: int = 0,
        quiet: bool = False,
        mute: bool = False,
        board: Path | None = None,
    ) -> None:
        self._board = None if board is None or mute else _events(board, resumed_at)
        self.path, self.steps, self.quiet, self.mute = path, steps, quiet or mute, mute
        kept = self._kept(resumed_at)
        self.seconds_before = kept[-1]["seconds"] if kept else 0.0
        self.started = time.perf_counter()
        self.first_step = resumed_at
        self._said, self._note = -PLAIN, ""
        self._live = terminal.Live("starting", "steps", resumed_at, stays=True, quiet=self.quiet).begin()

    def _kept(self, step: int) -> list[dict]:
        """The lines up to a step, which alone stay in the file."""
        lines, damaged = _lines_of(self.path)
        if damaged:
            self.say(f"warning: {self.path}: {damaged}; left out", always=True)
        kept = [line for line in lines if line["step"] <= step]
        if not self.mute:
            atomic_write(self.path, "".join(json.dumps(line) + "\n" for line in kept))
        return kept

    def rewind(self, step: int, why: str) -> None:
        """The run goes back to `step`: the lines after it are dropped, and one tells why."""
        self._kept(step)
        if self._board is not None:
            self._board = _events(Path(self._board.log_dir), step)
        self.write(step, {"rolled_back": why})
        self.say(f"warning: rolled back to step {step}: {why}", always=True)

    @property
    def seconds(self) -> float:
        """Seconds of this run so far, the parts before a resume counted in."""
        return self.seconds_before + time.perf_counter() - self.started

    def write(self, step: int, values: dict[str, object]) -> None:
        """Append a line for `step` (steps finished)."""
        line = {"step": step, "seconds": round(self.seconds, 2), **{k: _short(v) for k, v in values.items()}}
        if not self.mute:
            append(self.path, json.dumps(line) + "\n")
        if self._board is not None:
            for name, value in values.items():
                if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
                    self._board.add_scalar(name, value, step)
            self._board.flush()

    def note(self, step: int, text: str) -> None:
        """A line of its own for a warning about `step`, in the file and on the terminal."""
        self.write(step, {"note": text})
        self.say(f"warning: {text}", always=True)

    def progress(self, step: int, values: Mapping[str, SupportsFloat]) -> None:
        """Refresh the live line on a terminal; elsewhere a plain line every half minute. Else no value is looked at."""
        now = time.perf_counter()
        every = terminal.EVERY if self._live.shown else PLAIN
        if self.quiet or (now - self._said < every and step < self.steps):
            return
        self._said = now
        terms = "  ".join(f"{name} {float(value):.3f}" for name, value in values.items())
        self._note = f"{terms}  {memory_mb():,} MB".strip()
        if self._live.shown:
            self.part(step)
            return
        speed = (step - self.first_step) / max(now - self.started, 1e-9)
        left = _clock((self.steps - step) / speed) if speed > 0 else "?"
        terminal.say(f"step {step}/{self.steps}  {speed:.2f} it/s  ETA {left}  {self._note}")

    def part(self, step: float) -> None:
        """Let the live line show a step of which only a part is done, with the values of the one before."""
        self._live.what = "step"
        self._live.update(step, self.steps, self._note)

    def say(self, text: str, always: bool = False) -> None:
        """One plain line for people, beside the live one."""
        if (always or not self.quiet) and not self.mute:
            terminal.say(text)


def check_board() -> None:
    """Raises UsageError where TensorBoard is not installed."""
    if importlib.util.find_spec("tensorboard") is None:
        raise UsageError("run.tensorboard: TensorBoard is not installed: pip install 'segkd[tb]', or leave it out")


def _events(folder: Path, step: int) -> SummaryWriter:
    """What writes events; those after `step`, which are played again, are no longer shown."""
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=step + 1 if step else None)


def read_lines(path: Path) -> list[dict]:
    """The whole lines of a `metrics.jsonl`; what a kill, a power cut or a flipped bit has spoilt is left out.

    Raises:
        StorageError: it cannot be read.
    """
    return _lines_of(path)[0]


def _lines_of(path: Path) -> tuple[list[dict], str]:
    """The whole lines of a `metrics.jsonl`, and which are damaged, in words; a last one that a kill has cut is not told."""
    try:
        texts = path.read_bytes().split(b"\n") if path.is_file() else []
    except OSError as error:
        raise StorageError(f"{path}: cannot read: {error.strerror or error}") from error
    cut = texts.pop() if texts else b""
    lines = [_line_of(text) for text in texts]
    damaged = [str(number) for number, line in enumerate(lines, 1) if line is None]
    if cut and not cut.startswith(b"{"):
        damaged.append(str(len(texts) + 1))
    more = f" and {len(damaged) - 5} more" if len(damaged) > 5 else ""
    words = f"damaged line{'s' * (len(damaged) > 1)} {', '.join(damaged[:5])}{more}" if damaged else ""
    return [line for line in lines if line is not None], words


def _line_of(text: bytes) -> dict | None:
    """One line of a log; None where it is not as `RunLog.write` wrote it."""
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):  # also what is no UTF-8, and digits without end
        return None
    if not isinstance(line, dict) or type(line.get("step")) is not int or line["step"] < 0:
        return None
    seconds = line.get("seconds")
    return line if type(seconds) in (int, float) and 0 <= seconds < 1e12 else None


def memory_mb() -> int:
    """Largest resident memory of this process so far, in MB (plus the largest CUDA allocation, where there is one)."""
    import torch

    return largest_mb() + (torch.cuda.max_memory_allocated() // 2**20 if torch.cuda.is_available() else 0)


def _short(value: object) -> object:
    if not isinstance(value, float):
        return value
    return float(f"{value:.6g}") if math.isfinite(value) else None  # JSON knows no NaN


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(min(seconds, 359_999)), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"
