"""Checkpoints that survive a kill, a full disk and a flipped bit: hashed, atomic, rotated."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch

from segkd.foundation.errors import NumbersError, StorageError, one_line
from segkd.foundation.files import atomic_stream, sha256
from segkd.models.tensors import load_pickled

NAME = re.compile(r"step-(\d+)-([0-9a-f]{64})\.ckpt")


def save(folder: Path, step: int, state: dict, keep: int) -> Path:
    """Write `state` (tensors, str, int, float, list, dict only) as `step-STEP-SHA.ckpt`; then keep the `keep` newest.

    Equal states are equal bytes, however they came about.

    Raises:
        NumbersError: a tensor is not finite; what is on the disk stays as it is.
        StorageError: the folder cannot be written; the checkpoints before this one are whole.
    """
    tensors = list(_tensors(state))
    bad = next((name for name, value in tensors if value.is_floating_point() and not torch.isfinite(value).all()), None)
    if bad is not None:
        raise NumbersError(
            f"step {step}: {bad} is not finite; the checkpoint is not written, the one before it is good"
        )
    size = sum(value.nbytes for _, value in tensors)
    path = atomic_stream(folder, f"step-{step:08d}-", ".ckpt", size, partial(torch.save, _plain(state)))
    others = [old for old in listed(folder) if old != path]
    # A run that was wound back plays these steps again: `newest` must not find the abandoned ones.
    abandoned = [old for old in others if int(NAME.fullmatch(old.name)[1]) >= step]
    for old in abandoned + others[len(abandoned) :][keep - 1 :]:
        try:
            old.unlink()
        except OSError as error:
            raise StorageError(f"{old}: cannot remove the old checkpoint: {error.strerror or error}") from error
    return path


def listed(folder: Path) -> list[Path]:
    """The checkpoints of a folder, newest step first. Raises StorageError where one may not look into it."""
    try:
        names = os.listdir(folder) if folder.is_dir() else []
    except OSError as error:
        raise StorageError(f"{folder}: cannot look for checkpoints: {error.strerror or error}") from error
    return [folder / name for name in sorted(names, reverse=True) if NAME.fullmatch(name)]


def check(path: Path) -> re.Match[str]:
    """The step and the hash in a checkpoint's name. Raises StorageError for another name, or a file that cannot be opened."""
    match = NAME.fullmatch(path.name)
    if match is None:
        raise StorageError(f"{path}: not named step-STEP-SHA.ckpt; name a checkpoint of a run folder")
    _read(path, 0)
    return match


def load(path: Path) -> dict:
    """One checkpoint, its bytes checked against the hash in its name.

    Raises:
        StorageError: missing, damaged, or no checkpoint of segkd.
    """
    match, data = check(path), _read(path)
    if sha256(data) != match[2]:
        raise StorageError(f"{path}: damaged (its bytes do not match the hash in its name)")
    try:
        state = load_pickled(data)
    except ValueError as error:
        raise StorageError(f"{path}: no checkpoint of segkd ({one_line(error)})") from error
    if not isinstance(state, dict):
        raise StorageError(f"{path}: no checkpoint of segkd (it holds a {type(state).__name__})")
    return state


def _read(path: Path, most: int = -1) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(most)
    except OSError as error:
        raise StorageError(f"{path}: cannot read ({error.strerror or error})") from error


def newest(folder: Path) -> tuple[dict, list[str]] | None:
    """The newest whole checkpoint and a line for each damaged one passed over; None where there is none at all.

    Raises:
        StorageError: there are checkpoints and all are damaged, or one may not be read: it is not damaged for that.
    """
    damaged: list[str] = []
    for path in listed(folder):
        try:
            return load(path), damaged
        except StorageError as error:
            if isinstance(error.__cause__, PermissionError):
                raise
            damaged.append(str(error))
    if damaged:
        raise StorageError(f"{damaged[0]}; no older one is whole: start again with --resume never")
    return None


def _plain(value: object) -> object:
    """The same in plain dicts and lists, each text one object: pickle writes twice what is equal but not the same."""
    if isinstance(value, dict):
        return {_plain(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return sys.intern(str(value)) if isinstance(value, str) else value


def _tensors(value: object, name: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of a state, each with the path that leads to it."""
    if isinstance(value, torch.Tensor):
        yield name, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _tensors(inner, f"{name}.{key}".lstrip("."))
    elif isinstance(value, (list, tuple)):
        for index, inner in enumerate(value):
            yield from _tensors(inner, f"{name}[{index}]")
