"""`segkd doctor`: what of this machine and this environment makes runs slower, or go wrong, and what to do."""

from __future__ import annotations

import os
import platform
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

import torch
from packaging.requirements import InvalidRequirement, Requirement

from segkd import __version__
from segkd.machine.device import machine, vector_units
from segkd.machine.memory import available_mb
from segkd.machine.precision import quicker_in_bf16

State = Literal["ok", "note", "wrong"]
LEAST_GB, LEAST_MB = 5, 4000
"""Of disk, for checkpoints and samples of a few runs, and of memory, for the shipped recipes."""
OPENCV = ("opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless")
COPYLEFT = {"albumentationsx": "AGPL-3.0: pip uninstall albumentationsx, and pip install albumentations==2.0.8"}
EXTRAS = ("hf", "export", "tb")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: `note` is worth knowing, `wrong` has to be mended; `words` say how."""

    name: str
    state: State
    words: str


def findings(folder: Path) -> list[Finding]:
    """All of them; `folder` is where runs would be written."""
    looks: list[Callable[[], Iterator[Finding]]] = [
        _versions,
        _packages,
        _extras,
        _opencv,
        _licences,
        _device,
        _memory,
        lambda: _disk(folder),
        _data,
    ]
    return [finding for look in looks for finding in look()]


def _versions() -> Iterator[Finding]:
    system = f"{platform.system()} {platform.machine()}"
    yield Finding(
        "versions",
        "ok",
        f"segkd {__version__}, Python {platform.python_version()}, torch {torch.__version__}, {system}",
    )


def _packages() -> Iterator[Finding]:
    """What segkd needs, by its own metadata."""
    wrong = [line for line in (_unmet(text) for text in _required() if "extra ==" not in text) if line]
    if not _required():
        yield Finding(
            "packages", "note", "segkd itself is not installed here, so what it needs is not known: pip install -e ."
        )
    elif wrong:
        yield Finding("packages", "wrong", f"{'; '.join(wrong)}: pip install --upgrade segkd in this environment")
    else:
        yield Finding("packages", "ok", "all that segkd needs is installed")


def _required() -> list[str]:
    """What segkd says that it needs; nothing where it is not installed, but run from its checkout."""
    try:
        return metadata.requires("segkd") or []
    except metadata.PackageNotFoundError:
        return []


def _unmet(text: str) -> str | None:
    """How a requirement is not met, in words."""
    try:
        needed = Requirement(text)
        found = metadata.version(needed.name)
    except InvalidRequirement:
        return None
    except metadata.PackageNotFoundError:
        return f"{Requirement(text).name} is missing"
    met = needed.specifier.contains(found.partition("+")[0], prereleases=True)
    return None if met else f"{needed.name} {found}, needed {needed.specifier}"


def _extras() -> Iterator[Finding]:
    for extra in EXTRAS:
        needed = [text for text in _required() if re.search(rf"extra == ['\"]{extra}['\"]", text)]
        missing = [line for line in (_unmet(text.partition(";")[0]) for text in needed) if line]
        words = f"{'; '.join(missing)}: pip install 'segkd[{extra}]' for it" if missing else "installed"
        yield Finding(f"extra {extra}", "note" if missing else "ok", words)


def _opencv() -> Iterator[Finding]:
    found = [name for name in OPENCV if _installed(name)]
    if len(found) > 1:
        words = f"{', '.join(found)} lie over one another as cv2: pip uninstall {' '.join(found)}, then pip install opencv-python-headless"
        yield Finding("OpenCV", "wrong", words)
    else:
        yield Finding("OpenCV", "ok", f"{found[0] if found else 'cv2'} alone")


def _licences() -> Iterator[Finding]:
    for name, words in COPYLEFT.items():
        if _installed(name):
            yield Finding("licences", "wrong", f"{name} is {words}")


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _device() -> Iterator[Finding]:
    yield Finding("machine", "ok", f"{machine()}, {torch.get_num_threads()} threads of torch")
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            about = torch.cuda.get_device_properties(index)
            bf16 = "bf16" if torch.cuda.is_bf16_supported() else "no bf16: fp32 is taken"
            yield Finding(f"GPU {index}", "ok", f"{about.name}, {about.total_memory / 1e9:.0f} GB, {bf16}")
    else:
        built = torch.version.cuda
        words = (
            f"none is seen, though torch is built for CUDA {built}: where there is one, look at its driver"
            if built
            else "none: this torch is built for CPUs"
        )
        yield Finding("GPU", "note", f"{words}; runs take the CPU")
    quicker = "bf16 is the quicker one" if quicker_in_bf16() else "fp32 is the quicker one"
    yield Finding("CPU", "ok", f"{vector_units() or 'no vector units known'}; convolutions: {quicker}")


def _memory() -> Iterator[Finding]:
    free = available_mb()
    if free is None:
        yield Finding("memory", "note", "how much is free is not told here")
    elif free < LEAST_MB:
        yield Finding(
            "memory",
            "wrong",
            f"{free:,.0f} MB are free, and the shipped recipes take up to {LEAST_MB:,}: lower run.batch, or close programs",
        )
    else:
        yield Finding("memory", "ok", f"{free:,.0f} MB are free")


def _disk(folder: Path) -> Iterator[Finding]:
    there = next((each for each in (folder, *folder.absolute().parents) if each.is_dir()), Path("/"))
    if not os.access(there, os.W_OK):
        yield Finding("disk", "wrong", f"{there}: may not be written; choose another run.dir")
        return
    free = shutil.disk_usage(there).free / 1e9
    words = f"{free:,.0f} GB are free in {there}"
    yield Finding(
        "disk",
        "wrong" if free < LEAST_GB else "ok",
        words + ("; a run may need more: free some, or choose another run.dir" if free < LEAST_GB else ""),
    )


def _data() -> Iterator[Finding]:
    named = os.environ.get("SEGKD_DATA", "")
    if not named:
        yield Finding(
            "SEGKD_DATA",
            "note",
            "not set: recipes of CamVid and NYUv2 run, and are not measured; it names the folder of the data sets",
        )
    elif not Path(named).is_dir():
        yield Finding("SEGKD_DATA", "wrong", f"{named}: no such folder")
    else:
        yield Finding(
            "SEGKD_DATA",
            "ok",
            f"{named}: {', '.join(sorted(path.name for path in Path(named).iterdir() if path.is_dir())[:6]) or 'empty'}",
        )
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache/huggingface")
    yield Finding("hub", "ok", f"{home}: {'there' if home.is_dir() else 'not there yet'}; weights of hf:// lie in it")
