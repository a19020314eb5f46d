"""Which networks of segmentation-models-pytorch segkd takes, each built and shown images, forwards and back. Writes docs/networks.md.

    python tools/networks.py [ENCODER ...]

What became of each is kept in docs/networks.json; encoders that are named, or that are not there yet, are tried, and all with other
versions of the libraries. Each has a process of its own: a network can end it.
"""

import json
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path

import click
import segmentation_models_pytorch as smp
import timm
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from segkd.foundation import terminal
from segkd.foundation.errors import RecipeError, SegkdError
from segkd.foundation.files import atomic_write
from segkd.models.adapters import Adapter
from segkd.models.building import create_network
from segkd.models.taps import batchnorm_layers, normalisations
from segkd.models.teacher import Teacher
from segkd.models.trial import try_passes
from segkd.recipe import networks

ROOT = Path(__file__).resolve().parents[1]
FOUND, PAGE = ROOT / "docs/networks.json", ROOT / "docs/networks.md"
OF_TIMM = (
    "tu-convnext_atto", "tu-efficientvit_b0", "tu-fastvit_t8", "tu-mobilenetv3_small_100", "tu-mobilenetv4_conv_small",
    "tu-regnety_002", "tu-resnet10t", "tu-swin_tiny_patch4_window7_224", "tu-tiny_vit_5m_224", "tu-vit_tiny_patch16_224",
)  # fmt: skip
"""Some of more than a thousand, one of a kind."""
SIZES = ((64, 96), (192, 256))
"""The second where the first is too small."""
TRY = """\
import os, sys
sys.path.insert(0, sys.argv[1])
from tools.networks import outcome
for arch in sys.argv[3:]:
    os.write(1, f"{arch}\\n".encode())
    os.write(1, f"{outcome(arch, sys.argv[2])}\\n".encode())
"""
HEAD = f"""\
# Networks of segmentation-models-pytorch

Made by `python tools/networks.py` with smp {{smp}} and timm {{timm}}: each network was built with random weights and shown two images
of {SIZES[0][0]}x{SIZES[0][1]} pixels, forwards and back, as a teacher and as a student are before step 1.

- **yes**: it can be teacher and student.
- **no**: smp itself does not build it, and segkd says in smp's words why.
- **from {SIZES[1][0]}x{SIZES[1][1]}**: smaller images are too small for it; segkd says so before step 1.
- **224x224**: made for images of this size alone; segkd says so, and what to set: `synth.size`, or its option `img_size`.

BatchNorm: how many of an encoder's normalisation layers have statistics that a method can follow. Where they are few or none, see
[statistics of your own images](own_teacher.md#statistics-of-your-own-images). Of timm's encoders (`tu-NAME`) there is one of some kinds.
"""


def architectures() -> list[str]:
    """Those of smp."""
    return [name for name in networks.architectures() if name not in networks.without_encoder()]


def outcome(arch: str, encoder: str) -> str:
    """`yes`, `from HxW` or `HxW`, and its BatchNorm layers among its normalisation layers; else `no`, and why."""
    torch.manual_seed(0)
    try:
        network = create_network(arch, encoder, 3, {})
    except SegkdError as error:
        return f"no: {error}"
    teacher = Teacher(network, "abc", (0.5,) * 3, (0.5,) * 3)
    fixed = teacher.family.made_for(network)
    first, second = (fixed, None) if fixed else SIZES
    size = "x".join(map(str, fixed)) if fixed else "yes"
    try:
        _passes(teacher, first, f"{arch} with {encoder}")
    except RecipeError:
        if second is None:
            raise
        _passes(teacher, second, f"{arch} with {encoder}")
        size = "from " + "x".join(map(str, second))
    return f"{size}: {len(batchnorm_layers(network.encoder))} of {len(normalisations(network.encoder))}"


def _passes(teacher: Teacher, size: tuple[int, int], what: str) -> None:
    """As teacher and as student."""
    device = torch.device("cpu")
    try_passes(teacher.eval().requires_grad_(False), "teacher", what, size, 2, device, bf16=False)
    student = Adapter(teacher.network, 3).train().requires_grad_()
    try_passes(student, "student", what, size, 2, device, bf16=False)


def tried(encoder: str) -> dict[str, str]:
    """What became of each architecture with an encoder."""
    left, found = architectures(), {}
    while left:
        command = [sys.executable, "-c", TRY, str(ROOT), encoder, *left]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        lines = ended.stdout.splitlines()
        found |= dict(zip(lines[::2], lines[1::2], strict=False))
        if ended.returncode and len(lines) % 2:
            why = "ends the process" if ended.returncode < 0 else ended.stderr.splitlines()[-1]
            found[lines[-1]] = f"fails: {why}"
        elif ended.returncode:
            raise click.ClickException(f"{encoder}: {ended.stderr}")
        left = [arch for arch in left if arch not in found]
    return found


def versions() -> dict[str, str]:
    """Of the libraries whose networks these are."""
    return {"smp": smp.__version__, "timm": timm.__version__}


def page(found: Mapping[str, Mapping[str, str]], of: Mapping[str, str]) -> str:
    """The table; encoders of which all is the same are of one kind, and share a row."""
    names = list(next(iter(found.values())))
    rows: dict[tuple[str, ...], list[str]] = {}
    for encoder, ends in found.items():
        rows.setdefault((_batchnorm(ends), *(ends[name].partition(": ")[0] for name in names)), []).append(encoder)
    lines = [f"| encoders | BatchNorm | {' | '.join(names)} |", f"| --- | --- |{' --- |' * len(names)}"]
    members = []
    for kind, (cells, encoders) in enumerate(rows.items(), 1):
        lines.append(f"| {kind} | {' | '.join(cells)} |")
        text = f"- {kind}: {', '.join(f'`{name}`' for name in encoders)}"
        members += textwrap.wrap(text, 128, subsequent_indent="  ", break_on_hyphens=False)
    built = [end for ends in found.values() for end in ends.values() if not end.startswith("no: ")]
    failed = [*_failed(found)]
    head = HEAD.format(**of)
    head += f"Of {len(found) * len(names):,} networks smp builds {len(built):,}, and segkd takes {len(built) - len(failed):,} of these.\n"
    return "\n".join([head, *lines, "", *members, *failed, ""])


def _batchnorm(ends: Mapping[str, str]) -> str:
    """In words, as of the first architecture that goes with an encoder."""
    told = (end.partition(": ")[2] for end in ends.values() if not end.startswith(("no: ", "fails: ")))
    said = next(told, "–")
    batchnorm, _, norms = said.partition(" of ")
    if norms == "0":
        return "no layers"
    return {norms: "all", "0": "none"}.get(batchnorm, said)


def _failed(found: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    """What smp builds and segkd does not take."""
    for encoder, ends in found.items():
        for arch, end in ends.items():
            if end.startswith("fails: "):
                yield f"- {arch} with `{encoder}` {end}"


@click.command(help=__doc__.split("\n")[0])
@click.argument("encoders", nargs=-1)
def main(encoders: tuple[str, ...]) -> None:
    known = json.loads(FOUND.read_text("utf-8")) if FOUND.exists() else {}
    found = known["found"] if known.get("versions") == versions() else {}
    every = [*networks.encoders(), *OF_TIMM]
    for encoder in encoders or [name for name in every if name not in found]:
        found[encoder] = tried(encoder)
        terminal.tell(f"{encoder}: {', '.join(end.partition(':')[0] for end in found[encoder].values())}")
        found = {name: found[name] for name in every if name in found}
        atomic_write(FOUND, json.dumps({"versions": versions(), "found": found}, indent=1) + "\n")
    atomic_write(PAGE, page(found, versions()))


if __name__ == "__main__":
    main()
