"""Students as files for other programs: what is in them, that they answer as the student does, and what is refused."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from PIL.ExifTags import Base
from safetensors.torch import load_file, save_file

from segkd.cli.main import main
from segkd.delivery import gate
from segkd.delivery.deployed import Deployed, prepared
from segkd.delivery.folder import load_student, save_network
from segkd.delivery.onnx import Session
from segkd.models.building import create_network
from segkd.models.families.segnet import SegNet
from segkd.runs import export as verb
from tests.waiting import PATIENCE

NAMES, PALETTE = ["sky", "road", "car"], [[0, 0, 255], [90, 90, 90], [255, 0, 0]]


def saved(folder: Path, network: torch.nn.Module, stride: int, channels: int = 3) -> Path:
    """A student folder with a network that gives all classes, and whose statistics are not those of a fresh one."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
    mean, std = [0.5, 0.45, 0.4, 0.5][:channels], [0.25, 0.25, 0.2, 0.2][:channels]
    return save_network(
        network, folder, names=NAMES, palette=PALETTE, mean=mean, std=std, stride=stride, shorter_side=96
    )


@pytest.fixture(scope="module")
def segnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    return saved(tmp_path_factory.mktemp("segnet") / "student", SegNet(len(NAMES), 2), 32)


@pytest.fixture(scope="module")
def out(segnet: Path) -> Path:
    """An export with all that there is."""
    folder = segnet.with_name("out")
    flags = ["--int8", "--calibration", "pictures", "--with-normalisation", "--with-argmax"]
    code = main(["export", str(segnet), "--out", str(folder), *flags])
    report = json.loads((folder / "export.json").read_text())
    assert code in (0, 4) and report["files"]["model.onnx"]["passed"]  # 8 bits of a random network may well differ
    return folder


def test_the_file_answers_as_the_student_does_at_any_size_and_number(segnet: Path, out: Path) -> None:
    run, student = Session((out / "model.onnx").read_bytes()), load_student(segnet)
    for shape in ((1, 64, 96, 3), (3, 128, 64, 3)):
        images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        ids = run(images.astype(np.float32).transpose(0, 3, 1, 2))
        assert ids.dtype == np.uint8 and ids.shape == shape[:3]
        student.shorter_side = None
        assert np.mean([ids[k] == student.predict(images[k]) for k in range(len(images))]) > 0.999


def test_the_file_says_what_it_takes_and_nothing_of_this_machine(out: Path) -> None:
    content = (out / "model.onnx").read_bytes()
    model = onnx.load_from_string(content)
    said = {each.key: json.loads(each.value) for each in model.metadata_props}
    assert said == json.loads((out / "deployed.json").read_text())
    assert said["classes"] == NAMES and said["multiple_of"] == 32 and said["input"] == "numbers from 0 to 255"
    sizes = [axis.dim_param for axis in model.graph.input[0].type.tensor_type.shape.dim]
    assert sizes == ["batch", "", "height", "width"] and model.graph.input[0].name == "images"
    assert model.graph.output[0].name == "classes" and [
        each.version for each in model.opset_import if not each.domain
    ] == [18]
    for path in (Path(verb.__file__).parents[2], Path(sys.prefix)):
        assert str(path).encode() not in content


def test_int8_is_smaller_and_calibrated(out: Path) -> None:
    whole, small = (onnx.load(out / name) for name in ("model.onnx", "model.int8.onnx"))
    assert any(node.op_type == "QuantizeLinear" for node in small.graph.node)
    assert not any(node.op_type == "QuantizeLinear" for node in whole.graph.node)


@pytest.mark.parametrize("script", ["example.py", "example_opencv.py"])
def test_the_examples_run_from_anywhere_without_segkd(out: Path, segnet: Path, tmp_path: Path, script: str) -> None:
    if not (out / script).is_file():
        assert "left out" in json.loads((out / "export.json").read_text())["examples"][script]
        return
    photo = np.random.default_rng(1).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[Base.Orientation] = 3  # a camera held upside down
    Image.fromarray(np.rot90(photo, 2)).save(out / "photo.png", exif=exif)
    done = subprocess.run(
        [sys.executable, "-s", out / script, out / "photo.png"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    mask = cv2.imread(str(tmp_path / "mask.png"))[..., ::-1]
    ours = np.array(PALETTE, np.uint8)[load_student(segnet).predict(photo)]
    assert mask.shape == photo.shape and (mask == ours).mean() > 0.99


def test_where_opencv_ends_the_process_the_export_goes_on(
    segnet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As OpenCV 5.0.0 does with a SegFormer's file, by a segmentation fault."""
    out = tmp_path / "out"
    monkeypatch.setattr(verb, "OPENCV", "import os; os.abort()")
    assert main(["export", str(segnet), "--out", str(out)]) == 0
    left_out = f"left out: OpenCV {cv2.__version__} does not run this file"
    assert json.loads((out / "export.json").read_text())["examples"]["example_opencv.py"] == left_out
    assert not (out / "example_opencv.py").exists() and left_out in capsys.readouterr().out


def test_opencv_is_asked_in_a_process_of_its_own(tmp_path: Path) -> None:
    file, images = tmp_path / "model.onnx", np.random.default_rng(0).standard_normal((1, 3, 4, 6)).astype(np.float32)
    file.write_bytes(b"no model")
    assert verb.opencv_answer(file, images) is None
    given, made = (
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, images.shape) for name in ("images", "logits")
    )
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["images"], ["logits"])], "one", [given], [made])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    file.write_bytes(model.SerializeToString())
    np.testing.assert_array_equal(verb.opencv_answer(file, images), images.clip(0))


@pytest.mark.parametrize("kind", ["pt2", "onnx"])
def test_a_photo_of_one_pixel_is_padded_to_what_the_file_takes(segnet: Path, tmp_path: Path, kind: str) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    Image.new("RGB", (1, 1), (10, 200, 90)).save(photos / "a.png")
    assert main(["export", str(segnet), "--out", str(out), "--format", kind, "--images", str(photos)]) == 0
    assert json.loads((out / "deployed.json").read_text())["least_side"] == {"pt2": 64, "onnx": 32}[kind]
    assert json.loads((out / "export.json").read_text())["files"][f"model.{kind}"]["images"] == verb.TRIED + 1
    command = [sys.executable, "-s", str(out / "example.py"), str(photos / "a.png")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert Image.open(tmp_path / "mask.png").size == (1, 1)


def test_a_program_is_tried_on_pictures_reduced_below_its_least_side(segnet: Path, tmp_path: Path) -> None:
    student = tmp_path / "student"
    shutil.copytree(segnet, student)
    about = json.loads((student / "preprocess.json").read_text())
    about["size"]["shorter_side"] = 8
    (student / "preprocess.json").write_text(json.dumps(about))
    assert main(["export", str(student), "--out", str(tmp_path / "out"), "--format", "pt2"]) == 0


@pytest.mark.slow
def test_a_student_without_argmax_and_grey_and_as_a_program(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(2)
    grey = saved(tmp_path / "student", SegNet(len(NAMES), 2, in_channels=1), 32, channels=1)
    assert grey.parent == tmp_path, "as in a run's folder, whose teacher is not to be found"
    assert main(["export", str(tmp_path), "--out", str(tmp_path / "pt2"), "--format", "pt2"]) == 0
    assert f"teacher left out: {tmp_path}" in capsys.readouterr().out
    report = json.loads((tmp_path / "pt2/export.json").read_text())
    assert report["files"]["model.pt2"]["largest_difference"] < 1e-3 and report["opset"] is None
    program = torch.export.load(tmp_path / "pt2/model.pt2").module()
    assert program(torch.zeros(2, 1, 64, 96)).shape == (2, 3, 64, 96)


@pytest.mark.slow
def test_a_student_of_other_channels_is_tried_on_grey_ones_and_has_no_example(tmp_path: Path) -> None:
    torch.manual_seed(2)
    four = saved(tmp_path / "student", SegNet(len(NAMES), 2, in_channels=4), 32, channels=4)
    assert main(["export", str(four), "--out", str(tmp_path / "out"), "--format", "pt2"]) == 0
    report = json.loads((tmp_path / "out/export.json").read_text())
    assert "images of 4 channels" in report["examples"]["example.py"] and not (tmp_path / "out/example.py").exists()


def test_the_gate_names_the_worst_image_and_leaves_the_files(
    segnet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(verb.LEAST, "fp32", ("agreement", 1.1))
    (tmp_path / "out").mkdir()
    for left in ("deployed.json", "model.onnx", "model.int8.onnx", "example_opencv.py", "mine.txt"):
        (tmp_path / "out" / left).write_text("of an earlier export")
    assert main(["export", str(segnet), "--out", str(tmp_path / "out"), "--format", "pt2"]) == 4
    held = {path.name for path in (tmp_path / "out").iterdir()}
    assert held == {"deployed.json", "example.py", "export.json", "mine.txt", "model.pt2"}, "nothing of another format"
    [line] = capsys.readouterr().err.splitlines()
    assert "model.pt2: gives the student's class to " in line and "1.1 was asked for; least on " in line
    assert (tmp_path / "out/model.pt2").is_file() and not json.loads((tmp_path / "out/export.json").read_text())[
        "files"
    ]["model.pt2"]["passed"]


def test_a_full_disk_leaves_no_half_file(
    segnet: Path, tmp_path: Path, small_files: Callable[[int], AbstractContextManager[None]],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    with small_files(20_000):
        assert main(["export", str(segnet), "--out", str(tmp_path / "out"), "--format", "pt2"]) == 5
    [line] = capsys.readouterr().err.splitlines()
    assert str(tmp_path / "out") in line and "write" in line
    assert [path.name for path in (tmp_path / "out").iterdir()] == []


def test_what_the_gate_counts() -> None:
    def network(x: torch.Tensor) -> torch.Tensor:
        return torch.stack([x[:, 0], 1 - x[:, 0]], 1)

    def off(x: np.ndarray) -> np.ndarray:
        answer = network(torch.from_numpy(x)).numpy()
        answer[..., 0] += 5 * (x[:, :1, :, 0] > 0.5) * np.array([[[-1], [1]]]).reshape(1, 2, 1)
        return answer

    low, high = np.zeros((1, 1, 2, 2), np.float32), np.ones((1, 1, 2, 2), np.float32)
    found = gate.compared(network, off, [("low", low), ("high", high)])
    assert (found.agreement, found.largest, found.worst, found.images) == (0.75, 5.0, ("high", 0.5), 2)
    nothing = gate.compared(network, lambda x: np.full((1, 2, 2, 2), np.nan, np.float32), [("low", low)])
    assert nothing.agreement == nothing.sure == 0


@pytest.mark.parametrize("chooses", [False, True])
def test_the_gate_of_8_bits_asks_where_the_student_is_sure(chooses: bool) -> None:
    doubtful, sure = torch.tensor([1.0, 0.9, 0.8]), torch.tensor([0.0, 4.0, 0.0])
    logits = torch.stack([doubtful, sure], 1).view(1, 3, 1, 2)
    other = logits.clone()
    other[0, 0, 0, 0] -= 1
    answer = (other.argmax(1).to(torch.uint8) if chooses else other).numpy()
    image = np.zeros((1, 1, 1, 2), np.float32)
    found = gate.compared(lambda _: logits, lambda _: answer, [("one", image)])
    assert (found.agreement, found.sure) == (0.5, 1.0)
    close = torch.tensor([1e-9, 2e-9]).view(1, 2, 1, 1).expand(1, 2, 1, 2)
    assert gate.compared(lambda _: close, lambda _: close.numpy(), [("one", image)]).agreement == 1, (
        "no tie of probabilities"
    )
    never = gate.compared(lambda _: logits[..., :1], lambda _: answer[..., :1], [("one", image[..., :1])])
    assert never.agreement == never.sure == 0, "sure of none: all count"


@pytest.mark.parametrize(
    ("spoil", "code", "line"),
    [
        ("nan", 3, "not finite: "), ("classes", 3, "classes"), ("gone", 3, "no model.safetensors"),
        ("set", 3, "camvid is read from a folder"), ("photos", 3, "no such folder"),
        ("occupied", 5, "holds mine.txt, which no export has made"), ("calibration", 2, "is for --int8"), ("int8", 2, "is for ONNX"),
        ("kind", 2, "--calibration genrator: neither generator"), ("split", 2, "--split: name the set with --data"),
    ],
)  # fmt: skip
def test_what_cannot_be_exported(
    segnet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], spoil: str, code: int, line: str
) -> None:

    student, out, flags = tmp_path / "student", tmp_path / "out", []
    shutil.copytree(segnet, student)
    if spoil == "nan":
        state = load_file(student / "model.safetensors")
        next(value for value in state.values() if value.is_floating_point()).view(-1)[0] = float("nan")
        save_file(state, student / "model.safetensors")
    elif spoil == "classes":
        config = json.loads((student / "config.json").read_text())
        (student / "config.json").write_text(json.dumps(config | {"classes": 4}))
    elif spoil == "gone":
        (student / "model.safetensors").unlink()
    elif spoil == "occupied":
        out.mkdir()
        (out / "mine.txt").touch()
    elif spoil in ("set", "photos"):
        flags = ["--data", "camvid"] if spoil == "set" else ["--images", str(tmp_path / "none")]
    else:
        flags = {
            "calibration": ["--calibration", "noise"], "int8": ["--format", "pt2", "--int8"], "split": ["--split", "val"],
            "kind": ["--int8", "--calibration", "genrator"],
        }[spoil]  # fmt: skip
    assert main(["export", str(student), "--out", str(out), *flags]) == code
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1 and line in told[0]
    assert not (out / "model.onnx").exists() and not (out / "deployed.json").exists()


def test_images_are_prepared_as_the_student_prepares_them(segnet: Path) -> None:
    student = load_student(segnet)
    image = np.random.default_rng(3).integers(0, 256, (150, 130, 3), dtype=np.uint8)
    given = (prepared(student, image, normalises) for normalises in (False, True))
    answers = [
        Deployed(student, normalises).eval()(torch.from_numpy(x))
        for normalises, x in zip((False, True), given, strict=True)
    ]
    assert torch.allclose(*answers, atol=1e-4) and answers[0].shape[2] % 32 == answers[0].shape[3] % 32 == 0


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["DeepLabV3Plus", "Unet", "FPN", "lraspp_mobilenet_v3_large"])
def test_students_of_smp_and_torchvision(tmp_path: Path, arch: str) -> None:
    torch.manual_seed(4)
    theirs = arch.islower()
    network = create_network(arch, None if theirs else "tu-resnet10t", len(NAMES), {})
    student = saved(tmp_path / "student", network, 1 if theirs else 32)
    assert main(["export", str(student), "--out", str(tmp_path / "out"), "--int8", "--calibration", "noise"]) in (0, 4)
    assert main(["export", str(student), "--out", str(tmp_path / "pt2"), "--format", "pt2"]) == 0, (
        "a size is no fraction"
    )
    found = json.loads((tmp_path / "out/export.json").read_text())
    assert (
        found["files"]["model.onnx"]["passed"]
        and found["files"]["model.int8.onnx"]["bytes"] < 0.5 * found["files"]["model.onnx"]["bytes"]
    )
