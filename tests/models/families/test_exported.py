"""Exported programs as teachers: what they give, the sizes and batches that they say they take, and what is refused."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

from segkd import builders
from segkd.cli.main import main
from segkd.foundation.errors import TeacherError
from segkd.models.families.exported import loaded
from segkd.models.family import Sizes
from segkd.models.teacher import Teacher
from segkd.models.trial import try_passes
from segkd.recipe import blocks
from tests.conftest import Tiny

HALF = [0.5] * 3
SIDES = {2: 2 * torch.export.Dim("h", min=4, max=64), 3: 2 * torch.export.Dim("w", min=4, max=64)}
KINDS = {
    "traced.pt": (Sizes(32), None),
    "scripted.pt": (Sizes(32), None),
    "static.pt2": (Sizes(fixed=(16, 32)), 2),
    "sides.pt2": (Sizes(2), 2),
    "dynamic.pt2": (Sizes(2), None),
}


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.3))
        self.up = nn.ConvTranspose2d(8, 4, 2, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.up(self.down(images))


def made() -> Small:
    torch.manual_seed(0)
    network = Small()
    network(torch.randn(4, 3, 16, 16))
    return network.eval()


def write(path: Path, network: nn.Module) -> Path:
    """The network as a program of the kind that the name says."""
    images, name = torch.randn(2, 3, 16, 32), path.name
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if name.endswith(".pt"):
            script = name.startswith("scripted")
            torch.jit.save(
                torch.jit.script(network) if script else torch.jit.trace(network, images, check_trace=False), path
            )
        else:
            shapes = {"sides": SIDES, "dynamic": {0: torch.export.Dim("n"), **SIDES}}.get(path.stem)
            torch.export.save(torch.export.export(network, (images,), dynamic_shapes=(shapes,)), path)
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_a_program_gives_what_its_network_gives(kind: str, tmp_path: Path) -> None:
    """Logits and the images' gradients, for any number of images; nothing of it learns."""
    network, (sizes, batch) = made(), KINDS[kind]
    program = loaded(write(tmp_path / kind, network))
    teacher = Teacher(program, "abcd", HALF, HALF)
    assert (teacher.sizes, program.batch) == (sizes, batch)
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    images = torch.randn(3, 3, *(sizes.fixed or (32, 64)), requires_grad=True)
    found = [(f(images), torch.autograd.grad(f(images).square().sum(), images)[0]) for f in (teacher, network)]
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs)
    assert teacher(torch.randn(1, 3, 10, 14)).shape == (1, 4, 10, 14)
    with pytest.raises(
        TeacherError, match="a term looks at features, and (no submodule|an image of 128x192 does not show)"
    ):
        teacher.features  # noqa: B018 - it is looked for


def test_sides_are_multiples_of_what_height_and_width_ask_for(tmp_path: Path) -> None:
    """Heights in 8s and widths in 12s: padded to 12s, a height of 12 would be refused."""
    sides = {2: 8 * torch.export.Dim("h", min=2), 3: 12 * torch.export.Dim("w", min=2)}
    program = torch.export.export(made(), (torch.randn(2, 3, 16, 36),), dynamic_shapes=(sides,))
    torch.export.save(program, tmp_path / "sides.pt2")
    teacher = Teacher(loaded(tmp_path / "sides.pt2"), "abcd", HALF, HALF)
    assert teacher.sizes == Sizes(24)
    assert teacher(torch.randn(2, 3, 26, 30)).shape == (2, 4, 26, 30)


@pytest.mark.parametrize("kind", ["traced.pt", "static.pt2"])
def test_what_was_exported_in_training_is_refused(kind: str, tmp_path: Path) -> None:
    """Its statistics would follow the synthetic images."""
    teacher = Teacher(loaded(write(tmp_path / kind, made().train())), "abcd", HALF, HALF)
    with pytest.raises(
        TeacherError, match="teacher: it changes its own numbers as it computes an image, as in training"
    ):
        try_passes(teacher, "teacher", "it", (32, 64), 2, torch.device("cpu"), False)


def test_a_program_is_run_for_those_only_who_trust_it(tmp_path: Path) -> None:
    path = write(tmp_path / "static.pt2", made())
    block = blocks.Teacher(arch="exported", classes=4, weights=str(path))
    with pytest.raises(
        TeacherError, match="static.pt2: a program, which may do anything: pass --trust-pickle if you trust"
    ):
        builders.teacher_of(block)
    assert builders.teacher_of(block, trust_pickle=True).sizes == Sizes(fixed=(16, 32))
    (tmp_path / "other").write_bytes(b"no program")
    for change, line in (
        ({"weights": str(tmp_path / "gone.pt")}, "gone.pt: no such file; teacher.arch: exported is a program in one"),
        (
            {"weights": str(tmp_path / "other")},
            "other: neither a TorchScript archive nor a .pt2 of torch.export: no archive",
        ),
        ({"weights_key": "ema"}, "teacher.weights_key: .*static.pt2 is a program, of which no entry can be taken"),
    ):
        with pytest.raises(TeacherError, match=line):
            builders.teacher_of(block.model_copy(update=change), trust_pickle=True)


def test_a_program_of_two_tensors_is_refused(tmp_path: Path) -> None:
    class Two(nn.Module):
        def forward(self, images: torch.Tensor, more: torch.Tensor) -> torch.Tensor:
            return images + more

    images = torch.randn(2, 3, 8, 8)
    torch.export.save(torch.export.export(Two(), (images, images)), tmp_path / "two.pt2")
    with pytest.raises(TeacherError, match="two.pt2: takes something else than one tensor of images"):
        loaded(tmp_path / "two.pt2")


@pytest.mark.parametrize("kind", ["scripted.pt", "dynamic.pt2"])
def test_a_program_is_distilled(kind: str, tmp_path: Path, tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    """Without its statistics, which the line about them says; it is looked at before, and said to be a program."""
    path = write(tmp_path / kind, made())
    values = ["teacher.arch=exported", "teacher.encoder=null", "teacher.options=null", f"teacher.weights={path}", "run.steps=1",
              "teacher.classes=[a, b, c, d]", "game.student_moves=1", "data=null", "synth.width=4", f"run.dir={tmp_path}/run"]  # fmt: skip
    command = ["distill", str(tiny.path), *values, "--trust-pickle", "--quiet"]
    assert main(command) == 3
    assert "no BatchNorm layer (in an exported program none is seen); set weights.bn=0" in capsys.readouterr().err
    assert main([*command, "weights.bn=0", "synth.refine=0"]) == 0
    assert "Distilled from an exported program" in (tmp_path / "run/student/README.md").read_text()
