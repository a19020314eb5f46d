"""Weights on Hugging Face's hub: `hf://OWNER/NAME`, or `hf://OWNER/NAME@REVISION`."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

from segkd.foundation import terminal
from segkd.foundation.errors import StorageError, UsageError, one_line
from segkd.recipe.pretrained import FILE, STUDENTS, WEIGHTS

SCHEME = "hf://"
_DESCRIPTIONS = ("config.json", FILE, STUDENTS)
"""What is taken beside one file of weights; no code, and no other form of the same weights."""


def on_hub(weights: str) -> bool:
    """Whether weights are named by their place on the hub."""
    return weights.startswith(SCHEME)


def wrong_name(weights: str) -> str | None:
    """What is wrong with such a name; None: nothing."""
    part = r"[A-Za-z0-9][\w.-]{0,95}"
    if re.fullmatch(rf"{SCHEME}{part}/{part}(@[\w./-]{{1,200}})?", weights):
        return None
    return f"expected {SCHEME}OWNER/NAME, or {SCHEME}OWNER/NAME@REVISION"


def cached(weights: str) -> Path | None:
    """The folder of weights that were downloaded before; None: they were not, or not all of them. Asks no network."""
    with contextlib.suppress(OSError, ValueError):  # both: the hub's own errors
        return _snapshot(weights, local_files_only=True)
    return None


def located(weights: str) -> Path:
    """The folder of such weights, which are downloaded unless they are there: a description, and one file of tensors.

    Raises:
        UsageError: it is no such name.
        StorageError: they cannot be downloaded.
    """
    if wrong := wrong_name(weights):
        raise UsageError(f"{weights}: {wrong}")
    return cached(weights) or _downloaded(weights)


def _downloaded(weights: str) -> Path:
    terminal.say(f"{weights}: downloading it from the hub")
    try:
        folder = _snapshot(weights)
    except Exception as error:  # the hub's own, those of its http client, and of the file system
        advice = "check its name and the network, or download it elsewhere and name its folder"
        raise StorageError(f"{weights}: cannot be downloaded ({one_line(error)}); {advice}") from error
    if folder is None:
        raise StorageError(f"{weights}: holds no {' or '.join(WEIGHTS)} on the hub; name other weights")
    return folder


def _snapshot(weights: str, **options: bool) -> Path | None:
    """The folder of what is taken; None: there are no weights among it. Raises whatever the hub does."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    name, _, revision = weights.removeprefix(SCHEME).partition("@")
    shown = not are_progress_bars_disabled()
    disable_progress_bars()
    try:
        for file in WEIGHTS:
            taken = [*_DESCRIPTIONS, file]
            folder = Path(snapshot_download(name, revision=revision or None, allow_patterns=taken, **options))
            if (folder / file).is_file():
                return folder
    finally:
        if shown:
            enable_progress_bars()
    return None
