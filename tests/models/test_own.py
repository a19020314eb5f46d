"""Networks of one's own: as the page of docs says, and whatever a file or a function of one's own does wrong."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import nn

from segkd.cli.main import main
from segkd.foundation.errors import TeacherError
from segkd.models.own import OwnNetwork, digest

PAGE = (
    (Path(__file__).parents[2] / "docs" / "own_teacher.md")
    .read_text("utf-8")
    .partition("## Any other network")[2]
    .partition("\n## ")[0]
)
[CODE] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
[RECIPE] = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = re.search(r"```sh\n(.*?)```", PAGE, re.DOTALL)[1].splitlines()
QUICK = ["run.steps=2", "run.batch=2", "run.device=cpu", "synth.size=[32, 32]", "synth.width=4", "synth.replay=2",
         "game.student_moves=1", "student.options={channels: [8, 8, 8, 8], stem_width: 8, decoder_channels: 8}"]  # fmt: skip


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def page(here: Path) -> nn.Module:
    """What the page asks for: the file, the recipe, the weights of a network that has seen images."""
    (here / "my.py").write_text(CODE)
    (here / "mine.yaml").write_text(RECIPE)
    torch.manual_seed(0)
    network = OwnNetwork.in_file("my.py").built()
    with torch.no_grad():
        network(torch.randn(2, 3, 32, 32))
    torch.save({"state_dict": network.state_dict()}, here / "my_weights.pt")
    return network


def test_the_page_is_what_happens(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One file and one recipe: validated, distilled, finished, compared; nothing but the flag brings its code."""
    page(here)
    validate, distill, compared, _ = (command.split()[1:] for command in COMMANDS)
    assert main(validate) == 0
    assert main([*distill, *QUICK, "--quiet"]) == 0
    run = here / "runs/mine-s0"
    assert (run / "teacher/my.py").read_text() == CODE and "arch: module" in (run / "recipe.yaml").read_text()
    assert main([*distill, *QUICK, "--quiet"]) == 0, "a finished run only tells its summary"
    (here / "photos").mkdir()
    sample = next((run / "samples").iterdir())
    (here / "photos" / sample.name).write_bytes(sample.read_bytes())
    assert main([*compared, "--device", "cpu"]) == 0
    (here / "my.py").write_text(CODE + "\n")
    capsys.readouterr()
    more = [*distill, *QUICK, "run.steps=3", "--accept", "run.steps", "--quiet"]
    assert main(more) == 2 and "run on" not in capsys.readouterr().out
    [step] = (run / "checkpoints").glob("step-00000002-*")
    assert main([*distill, *QUICK, "--resume", str(step), "--quiet"]) == 2
    assert "runs/mine-s0: teacher: another file than the run has begun with (sha256 " in capsys.readouterr().err
    assert main([*more, "--accept", "teacher"]) == 0
    assert main([*distill[:2], *QUICK]) == 2
    assert "teacher.arch: missing: name one, or bring a network of your own" in capsys.readouterr().err
    assert main([*validate[:3], "--teacher-file", "gone.py:build"]) == 2
    assert "gone.py: no such file with a teacher" in capsys.readouterr().err
    assert main(["eval", "runs/mine-s0", "--teacher-file", "my.py"]) == 2
    assert "my.py: no teacher is asked for here" in capsys.readouterr().err


def test_a_module_or_a_function_from_python(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The module stays as it is; another one is not taken for it in a finished run."""
    from segkd import SegkdError, distill

    network = page(here).train()
    before, values = digest(network), [*QUICK, "teacher.weights=null"]
    summary = distill("mine.yaml", values, teacher=network, quiet=True)
    assert digest(network) == before and network.training and next(network.parameters()).requires_grad
    assert distill("mine.yaml", values, teacher=lambda: network, quiet=True) == summary
    nn.init.zeros_(network.head.weight)
    with pytest.raises(SegkdError, match=r"finished run of another recipe \(teacher.weights\)"):
        distill("mine.yaml", values, teacher=network)
    with pytest.raises(
        SegkdError, match="teacher: expected a module or a function that builds one, got an object of type int"
    ):
        distill("mine.yaml", values, teacher=5)


def test_what_a_recipe_says_of_another_network_is_left_out_with_a_line(here, capsys) -> None:
    page(here)
    assert main(["distill", "quickstart", "--teacher-file", "my.py", "teacher.weights=null"]) == 2
    err = capsys.readouterr().err
    assert re.search(r"command line: teacher: missing: mean and std: of a network of your own they are not known", err)
    assert main(["recipes", "show", "quickstart", "--teacher-file", "my.py", "teacher.weights=null", "teacher.mean=[0, 0, 0]",
                 "teacher.std=[1, 1, 1]"]) == 0  # fmt: skip
    said = capsys.readouterr()
    assert "teacher.arch, encoder, options, recipe: left out, since my.py is the teacher" in said.err
    assert "arch: module" in said.out


WRONG = {
    "does not import": ("import nowhere\n" + CODE, r"my.py:1: ModuleNotFoundError: No module named 'nowhere'"),
    "no Python": ("def build(:", r"my.py:build: SyntaxError: invalid syntax"),
    "no such function": (CODE.replace("def build", "def make"), r"my.py: holds no function build; it has Net, make"),
    "raises": (CODE.replace("return Net", "return 1 / 0 or Net"), r"my.py:\d+: ZeroDivisionError: division by zero"),
    "leaves": (CODE.replace("return Net", "raise SystemExit(0)\n    Net"), r"my.py:\d+: SystemExit: 0"),
    "gives nothing": (CODE.replace("return Net", "Net"), r"my.py:build: gives None, and no torch.nn.Module"),
    "gives weights": (CODE.replace("Net(3)", "Net(3).state_dict()"), r"my.py:build: gives an object of type OrderedDict"),
    "meta": (CODE.replace("Net(3)", "Net(3).to('meta')"), r"my.py:build: down.0.weight is on the device meta, without"),
    "lazy": (CODE.replace("nn.Conv2d(16,", "nn.LazyConv2d(").replace("(classes, 1)", "(classes, 1)"), r"my.py:build: \S+ has no shape yet"),
    "not finite": (CODE.replace("return Net(3)", "n = Net(3)\n    n.head.weight.data[0] = float('nan')\n    return n"),
                   r"my.py:build: not finite: head.weight; train or fetch it again"),
}  # fmt: skip


@pytest.mark.parametrize("fault", WRONG)
def test_what_a_file_does_wrong_is_one_line(fault: str, here: Path) -> None:
    code, line = WRONG[fault]
    (here / "my.py").write_text(code)
    with pytest.raises(TeacherError, match=f"^{line}") as caught:
        OwnNetwork.in_file("my.py:build").built()
    assert "\n" not in str(caught.value)


def test_a_forward_that_fails_is_told_with_its_line(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page(here)
    (here / "my.py").write_text(CODE.replace("x, places", "assert images.shape[-1] > 64\n        x, places"))
    assert main(["distill", "mine.yaml", "--teacher-file", "my.py", *QUICK]) == 3
    err = capsys.readouterr().err
    assert re.search(r"segkd: my.py:\d+: teacher: module cannot compute images of 32x32", err) and "bug" not in err


def test_what_it_prints_and_sets_stays_its_own(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing on standard output, torch as before, and the same random weights each time."""
    (here / "my.py").write_text(
        CODE.replace("def build", "import torch\ntorch.set_grad_enabled(False)\ntorch.set_default_dtype(torch.float64)\n\n\ndef build")
        .replace("    return Net", "    print('made')\n    torch.manual_seed(5)\n    return Net")
    )  # fmt: skip
    torch.manual_seed(3)
    drawn = torch.rand(1)
    torch.manual_seed(3)
    network = OwnNetwork.in_file("my.py:build").built()
    assert torch.equal(torch.rand(1), drawn) and torch.is_grad_enabled() and torch.get_default_dtype() == torch.float32
    assert next(network.parameters()).dtype == torch.float32
    said = capsys.readouterr()
    assert not said.out and said.err == "my.py:build: made\n"
    assert digest(network) == digest(OwnNetwork.in_file("my.py").built())
