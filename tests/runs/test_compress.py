"""`segkd compress`: from a checkpoint of torchvision's training script to a file, each stage once, whatever comes between."""

import argparse
import json
import shutil
import signal
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torchvision.models import segmentation

from segkd import compress
from segkd.cli.main import main
from segkd.evaluation.inspection import scenes
from segkd.foundation.errors import NumbersError
from segkd.recipe.compression import Asked
from segkd.runs import export
from tests.waiting import until

pytestmark = pytest.mark.usefixtures("own_threads")
TEACHER = ("teacher.arch=lraspp_mobilenet_v3_large", "teacher.classes=[a, b, c]",
           "teacher.mean=[0.485, 0.456, 0.406]", "teacher.std=[0.229, 0.224, 0.225]")  # fmt: skip
LITTLE = ("student.options={width: 2}", "synth.size=[64, 96]", "synth.width=4",
          "synth.replay=4", "game.student_moves=1", "run.batch=2", "run.threads=1", "run.precision=fp32", "run.device=cpu")  # fmt: skip
STEPS = ("run.steps=2", "run.save_every=1", "run.eval_every=1", "run.sample_every=1")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What torchvision's training script writes: a network beside its optimiser and arguments; it tells three classes apart."""
    torch.manual_seed(3)
    network = segmentation.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=3)
    with torch.no_grad():
        network.train()(torch.randn(4, 3, 64, 96))
        heads = network.eval().classifier
        for head in (heads.low_classifier, heads.high_classifier):
            head.weight *= 20
        heads.low_classifier.bias -= network((scenes((64, 96), 4) - 0.45) / 0.225)["out"].mean((0, 2, 3))
    told = argparse.Namespace(lr=0.01, output_dir=Path("out"), device=torch.device("cpu"))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    file = tmp_path_factory.mktemp("teacher") / "model_3.pth"
    torch.save({"model": network.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3, "args": told}, file)
    return file


@pytest.fixture(scope="module")
def done(checkpoint: Path) -> Path:
    """A compression with photos."""
    photos = checkpoint.with_name("photos")
    photos.mkdir()
    cv2.imwrite(str(photos / "a.png"), np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8))
    out = checkpoint.with_name("out")
    assert main(asked(checkpoint, out, *STEPS, "--format", "pt2", "--images", str(photos))) == 0
    return out


def asked(teacher: Path, out: Path, *more: str) -> list[str]:
    return ["compress", str(teacher), *TEACHER, *LITTLE, "--quiet", "--out", str(out), "--student", "segnet", *more]


def contents(folder: Path) -> dict[Path, tuple[int, bytes]]:
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


@pytest.mark.slow
def test_it_leaves_all_that_somebody_needs(done: Path) -> None:
    inspected, exported, agreed = (
        json.loads((done / name).read_text()) for name in ("inspect.json", "export/export.json", "agreement.json")
    )
    assert (
        inspected["verdict"] == "green" and exported["files"]["model.pt2"]["passed"] and 0 <= agreed["agreement"] <= 1
    )
    summary = json.loads((done / "run/summary.json").read_text())
    assert (summary["method"], summary["variant"], summary["steps"]) == ("ddad", "pictures", 2)
    assert summary["real_images_for_training"] == 0
    text = (done / "report.html").read_text("utf-8")
    assert "model.pt2" in text and "on 1 photos" in text and "all 47 BatchNorm layers were trained" in text
    assert not list(done.rglob(".tmp-*"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "called"), [(("method=noise",), "noise"), (("variant=paper", "synth.kind=resize"), "ddad (paper)")]
)
def test_it_says_which_method_its_recipe_has(checkpoint: Path, tmp_path: Path, method, called, capsys) -> None:
    arguments = asked(
        checkpoint, tmp_path / "out", *method, "synth.replay=0", "run.steps=1", *STEPS[1:], "--format", "pt2"
    )
    arguments.remove("--quiet")
    assert main(arguments) == 0
    assert f"recipe.yaml: {called}; once it is changed, that holds" in capsys.readouterr().err


@pytest.mark.slow
def test_what_is_done_is_not_done_again(done: Path, checkpoint: Path, capsys) -> None:
    before, photos = contents(done), str(checkpoint.with_name("photos"))
    assert main(asked(checkpoint, done, *STEPS, "--format", "pt2", "--images", photos)) == 0
    assert "model.pt2" in capsys.readouterr().out and contents(done) == before


@pytest.mark.parametrize(
    ("more", "what"),
    [((*STEPS, "--student", "unet:tu-resnet18"), "student"), ((*STEPS[1:], "--budget", "2h"), "budget"), ((*STEPS, "synth.latent=9"), "synth.latent")],
)  # fmt: skip
def test_nothing_takes_the_place_of_another_compression(
    tmp_path: Path, more: tuple[str, ...], what: str, capsys
) -> None:
    said = Asked(str(tmp_path / "model.pth"), "segnet", None, (*TEACHER, *LITTLE, *STEPS)).as_dict()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/compress.json").write_text(json.dumps(said))
    (tmp_path / "out/recipe.yaml").touch()
    before = contents(tmp_path)
    assert main(asked(tmp_path / "model.pth", tmp_path / "out", *more)) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "holds another compression, with another " in line and what in line and "--out DIR" in line
    assert contents(tmp_path) == before


@pytest.mark.slow
def test_its_recipe_is_one_as_any_other(done: Path, tmp_path: Path) -> None:
    assert main(["distill", str(done / "recipe.yaml"), f"run.dir={tmp_path}/run", "--quiet"]) == 0
    files = [folder / "student/model.safetensors" for folder in (done / "run", tmp_path / "run")]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize("held", ["a file of somebody's", "no folder"])
def test_a_folder_of_somebodys_is_left_as_it_is(tmp_path: Path, held: str, capsys) -> None:
    out = tmp_path / "out"
    if held == "no folder":
        out.touch()
    else:
        out.mkdir()
        (out / "mine.txt").touch()
    before = contents(tmp_path)
    assert main(asked(tmp_path / "none.pth", out)) == 5
    assert capsys.readouterr().err.count("\n") == 1 and contents(tmp_path) == before


def test_a_teacher_that_cannot_be_distilled_ends_it_before_anything_is_trained(
    checkpoint: Path, tmp_path: Path, capsys
) -> None:
    state = torch.load(checkpoint, weights_only=False)
    state["model"]["classifier.low_classifier.bias"][0] = torch.nan
    torch.save(state, tmp_path / "sick.pth")
    out = tmp_path / "out"
    assert main(asked(tmp_path / "sick.pth", out, *STEPS)) == 3
    [line] = capsys.readouterr().err.splitlines()
    assert "cannot be distilled as it is: loading: " in line and "nothing was trained" in line
    assert {path.name for path in out.iterdir()} == {".lock", "compress.json", "inspect.json"}
    assert main(asked(tmp_path / "sick.pth", out, "run.steps=1")) == 3, "nothing stands in the way of other values"


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (["compress", "--out", "out"], 2, "names no teacher"), (["inspect"], 2, "names no teacher"),
        (["compress", "gone.yaml", "--out", "out"], 2, "no such recipe"),
        (["compress", "teachers/scenes", "--out", "out"], 2, "run segkd teach teachers/scenes"),
        (["compress", "hf://nobody/nothing", *TEACHER, "--images", "none", "--out", "out"], 3, "none: no such folder"),
        (["compress", "a.pth", *TEACHER, "--format", "pt2", "--int8", "--out", "out"], 2, "--int8: is for ONNX"),
        (["compress", "a.pth", *TEACHER, "--budget", "2h", "run.steps=4", "--out", "out"], 2, "leave one of them out"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_a_line_before_anything_is_written(
    tmp_path, monkeypatch, capsys, arguments, code, line
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == code
    [told] = capsys.readouterr().err.splitlines()
    assert line in told and not any(tmp_path.iterdir())


def test_a_damaged_photo_is_named_before_anything_is_trained(checkpoint: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/bad.jpg").write_text("no photo")
    assert main(asked(checkpoint, tmp_path / "out", *STEPS, "--images", str(tmp_path / "photos"))) == 3
    assert "photos/bad.jpg: " in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.parametrize("verb", [["inspect"], ["compress", "--out", "out"]])
def test_code_in_the_place_of_weights_is_called_so(tmp_path: Path, monkeypatch, capsys, verb) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my.py").write_text(PLAIN)
    assert main([*verb, "my.py", *TEACHER]) == 2
    assert "my.py: code, and no weights: --teacher-file my.py:FUNCTION" in capsys.readouterr().err


@pytest.mark.slow
def test_a_failed_gate_leaves_the_run_and_is_tried_again(
    done: Path, checkpoint: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    out = tmp_path / "out"
    shutil.copytree(done, out)
    (out / "export/export.json").unlink()
    with monkeypatch.context() as patch:
        patch.setitem(export.LEAST, "fp32", ("agreement", 1.1))
        assert main(asked(checkpoint, out, *STEPS)) == 4
    line = capsys.readouterr().err.splitlines()[-1]
    assert "1.1 was asked for" in line and line.endswith(f"the student is in {out}/run")
    assert "failed" in (out / "report.html").read_text("utf-8") and (out / "export/model.onnx").is_file()
    assert main(asked(checkpoint, out, *STEPS)) == 0
    assert json.loads((out / "export/export.json").read_text())["files"]["model.onnx"]["passed"]


@pytest.mark.slow
def test_it_is_stopped_and_goes_on_to_the_same_student(checkpoint: Path, tmp_path: Path, forks) -> None:
    more = ("run.steps=6", *STEPS[1:], "--format", "pt2")
    whole = forks.start(asked(checkpoint, tmp_path / "whole", *more), tmp_path)
    assert whole.wait() == 0, whole.said()
    out = tmp_path / "out"
    cut = forks.start(asked(checkpoint, out, *more), tmp_path)
    until(lambda: list(out.glob("run/checkpoints/step-0000000[1-9]-*")), cut.process.is_alive)
    cut.signal(signal.SIGINT)
    assert cut.wait() == 130, cut.said()
    assert not (out / "run/summary.json").exists() and not (out / "export").exists()
    looked = (out / "inspect.json").stat().st_mtime_ns
    last = forks.start(asked(checkpoint, out, *more), tmp_path)
    assert last.wait() == 0, last.said()
    assert (out / "inspect.json").stat().st_mtime_ns == looked
    students = [folder / "run/student/model.safetensors" for folder in (out, tmp_path / "whole")]
    assert students[0].read_bytes() == students[1].read_bytes() and (out / "export/model.pt2").is_file()


@pytest.mark.slow
def test_a_network_of_ones_own_without_statistics_takes_the_method_that_is_advised(tmp_path: Path, monkeypatch) -> None:
    """As `segkd inspect` says: no BatchNorm, no method that follows it; of its run no images are kept to calibrate on."""
    monkeypatch.chdir(tmp_path)
    Path("my.py").write_text(PLAIN)
    little = [value for value in LITTLE if not value.startswith("synth.replay")]
    with suppress(NumbersError):  # 8 bits of a network that has learnt nothing may well differ
        compress(
            None,
            (*TEACHER[1:], *little, *STEPS),
            out="out",
            student="segnet",
            teacher_file="my.py",
            int8=True,
            quiet=True,
        )
    summary, exported = (
        json.loads(Path("out", name).read_text()) for name in ("run/summary.json", "export/export.json")
    )
    assert (
        summary["method"] == "kd"
        and summary["real_images_for_training"] == 0
        and exported["files"].keys() == {"model.onnx", "model.int8.onnx"}
    )


PLAIN = """\
import torch
from torch import nn


def build():
    torch.manual_seed(5)
    network = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 3, 3, 1, 1), nn.Upsample(scale_factor=2))
    with torch.no_grad():
        network[2].bias -= network(torch.randn(4, 3, 64, 96)).mean((0, 2, 3))
        network[2].weight *= 20
    return network
"""


def test_photos_are_refused_where_the_teacher_takes_other_images(tmp_path: Path, capsys) -> None:
    layers = "nn.Conv2d(4, 8, 3, padding=1), nn.BatchNorm2d(8, momentum=1.0), nn.ReLU(), nn.Conv2d(8, 3, 1)"
    trained = f"torch.manual_seed(0)\n    net = nn.Sequential({layers})\n    net(torch.rand(8, 4, 4, 6).repeat_interleave(16, 2).repeat_interleave(16, 3))\n    return net"
    (tmp_path / "my.py").write_text(f"import torch\nfrom torch import nn\ndef build():\n    {trained}\n")
    (tmp_path / "photos").mkdir()
    cv2.imwrite(str(tmp_path / "photos/a.png"), np.zeros((64, 96, 3), np.uint8))
    teacher = ("teacher.classes=[a, b, c]", "teacher.mean=[0, 0, 0, 0]", "teacher.std=[1, 1, 1, 1]")
    more = ("--teacher-file", str(tmp_path / "my.py"), "--student", "segnet", "--images", str(tmp_path / "photos"))
    assert main(["compress", *teacher, *LITTLE, *STEPS, *more, "--quiet", "--out", str(tmp_path / "out")]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert (
        "photos: the teacher takes images of 4 channels: leave it out" in line and not (tmp_path / "out/run").exists()
    )
