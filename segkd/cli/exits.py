"""How a command ends: the exit code of every error, and the one line (with `--debug` the traceback) that the user reads."""

from __future__ import annotations

import errno
import os
import traceback
from pathlib import Path

import click

from segkd.foundation.errors import OutputClosed, RecipeError, SegkdError
from segkd.machine.memory import largest_mb, out_of_memory

STORAGE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
UNUSABLE = (PermissionError, FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError)
UNUSABLE_NUMBERS = (
    errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTEMPTY, errno.ENXIO, errno.ENODEV, errno.ETXTBSY, errno.EMLINK,
)  # fmt: skip
"""What may be wrong with a file or folder of the user's."""


def explained(error: BaseException) -> tuple[int, list[str]]:
    """The exit code of an error and its lines for the user; what segkd did not foresee is a bug of segkd."""
    if isinstance(error, click.Abort):  # click's word for both ends of a terminal
        error = error.__cause__ or error
    if isinstance(error, SystemExit) and error.code == 0:  # what the shell asked for, to complete a line, was told
        return 0, []
    if isinstance(error, (OutputClosed, SystemExit)):  # nothing but click exits: its help could not be read on
        return OutputClosed.exit_code, []
    if isinstance(error, RecipeError):
        return error.exit_code, error.errors
    if isinstance(error, SegkdError):
        return error.exit_code, [f"segkd: {str(error).strip()}"]  # of one line, but for line ends in names
    if isinstance(error, click.ClickException):
        context = getattr(error, "ctx", None)
        see = f"; see {context.command_path} --help" if context is not None else ""
        return 2, [f"segkd: {' '.join(error.format_message().split()).rstrip('.')}{see}"]
    if isinstance(error, (KeyboardInterrupt, click.Abort)):
        return 130, ["segkd: stopped"]
    if out_of_memory(error):
        advice = (
            "lower run.batch, or the size of the images (synth.size, train.crop), or distil with run.checkpointing=true"
        )
        return 6, [f"segkd: out of memory at a peak of {largest_mb()} MB: {advice}; what was saved so far is good"]
    if isinstance(error, OSError) and error.errno in STORAGE:
        return 5, [f"segkd: {error.filename or 'disk'}: {error.strerror}; free space, and run the same command again"]
    if isinstance(error, UNUSABLE) or (isinstance(error, OSError) and error.errno in UNUSABLE_NUMBERS):
        named = error.filename is not None and error.strerror is not None
        what = (
            f"{os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else error.filename}: {error.strerror}"
            if named
            else _one_line(error)
        )
        return 5, [f"segkd: {what}; check the path, and who may read and write there"]
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return 1, [f"segkd: bug: {type(error).__name__}: {_one_line(error)}{where}; --debug shows the traceback"]


def _one_line(error: BaseException) -> str:
    return "; ".join(line.strip() for line in str(error).splitlines() if line.strip())
