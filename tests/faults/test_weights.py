"""Rows C4-5 and C6: weights from anybody run no code, take no memory, and are those of the network or are refused."""

import hashlib
import json
import math
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from segkd import builders
from segkd.cli.main import main
from segkd.delivery.folder import load_student, save_network
from segkd.foundation.errors import SegkdError, StorageError, TeacherError
from segkd.models.building import create_network
from segkd.models.tensors import MOST_STEPS
from segkd.models.weights import read_state
from segkd.recipe import differences
from segkd.training import resume
from tests.faults.attacks import headers, pickles, saved
from tests.waiting import until
from tests.work import work_below

State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student folder."""
    network = create_network("FPN", "tu-resnet10t", 3, {"channels": [8, 8, 8, 8], "decoder_pyramid_channels": 8})
    place = tmp_path_factory.mktemp("student") / "student"
    return save_network(
        network, place, names=[*"abc"], palette=[(1, 2, 3)] * 3, mean=[0] * 3, std=[1] * 3, stride=32, shorter_side=256
    )


def cheaply() -> AbstractContextManager[None]:
    """Fail where more work is done than the largest pickle that is read would take, or 100 MB are spent."""
    return work_below(calls=10 * MOST_STEPS, megabytes=100)


def refused(read: Callable[[Path], object], path: Path, kind: type[SegkdError]) -> None:
    with cheaply(), pytest.raises(kind) as caught:
        read(path)
    line = str(caught.value)
    assert line.startswith(f"{path}: ") and line.isprintable() and len(line) < 400 + len(str(path)), line


def resumed(path: Path) -> None:
    """A run that is to go on from a checkpoint whose name has the right hash; that is no secret."""
    resume.restore(None, path, {}, differences, str(path), (), print)


@pytest.mark.row("C4-5", 54)
def test_a_hostile_pickle_is_refused_and_runs_nothing(row, tmp_path: Path):
    mark = tmp_path / "canary"
    for name, data in pickles(mark).items():
        (tmp_path / "teacher.pt").write_bytes(data)
        refused(read_state, tmp_path / "teacher.pt", TeacherError)
        path = tmp_path / f"step-00000001-{hashlib.sha256(data).hexdigest()}.ckpt"
        path.write_bytes(data)
        refused(resumed, path, StorageError)
        path.unlink()
        assert not mark.exists(), name
        row.count()


@pytest.mark.row("C4-5", 29)
def test_a_hostile_header_is_refused(row, folder: Path, tmp_path: Path):
    student = shutil.copytree(folder, tmp_path / "student")
    for data in headers().values():
        (tmp_path / "teacher.safetensors").write_bytes(data)
        refused(read_state, tmp_path / "teacher.safetensors", TeacherError)
        (student / "model.safetensors").write_bytes(data)
        with cheaply(), pytest.raises(TeacherError, match="not a readable student") as caught:
            load_student(student)
        assert str(caught.value).isprintable()
        row.count()


def test_a_file_of_holes_is_refused_by_its_size(tmp_path: Path):
    """A hundred terabytes that take no disk: torch would ask for the memory."""
    for name, head in (("x.safetensors", headers()["numbers missing"]), ("x.pt", saved({"a": torch.ones(2)}))):
        with (tmp_path / name).open("wb") as file:
            file.write(head)
            file.truncate(2**43)
        with pytest.raises(TeacherError, match="8,388,608 MB, and .* MB of memory are left"):
            read_state(tmp_path / name)


def test_the_canary_sings(tmp_path: Path):
    """Where code is trusted the same files do run it: else their silence would prove nothing."""
    mark = tmp_path / "canary"
    sang = 0
    for name, data in pickles(mark).items():
        if "os.system" in name or name in ("eval", "exec", "subprocess", "Path.touch"):
            (tmp_path / "teacher.pt").write_bytes(data)
            try:
                read_state(tmp_path / "teacher.pt", trust_pickle=True)
            except TeacherError:
                pass  # having run it
            if name == "subprocess":
                until(mark.exists)
            sang += mark.exists()
            mark.unlink(missing_ok=True)
    assert sang == 12


@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8])
def test_what_torch_writes_is_read(tmp_path: Path, options: dict, dtype: torch.dtype):
    tensors = {"a": torch.arange(6).to(dtype).view(2, 3), "b": torch.nn.Parameter(torch.ones(2)), "n": torch.tensor(3)}
    tensors["part"] = tensors["a"][1:, ::2]
    (tmp_path / "x.pt").write_bytes(
        saved({"state_dict": tensors, "epoch": 3, "names": ["x"], "size": torch.Size([2])}, **options)
    )
    found = read_state(tmp_path / "x.pt")
    assert all(torch.equal(found[key], tensors[key]) and found[key].dtype == tensors[key].dtype for key in tensors)


def test_the_command_ends_with_code_3_and_one_line(tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "teacher.pt"
    path.write_bytes(pickles(tmp_path / "canary")["os.system"])
    code = main(
        ["distill", str(tiny.path), f"teacher.weights={path}", f"run.dir={tmp_path}/run", "data.name=null", "--quiet"]
    )
    out, err = capsys.readouterr()
    assert code == 3 and not out and not (tmp_path / "run").exists()
    [line] = err.splitlines()
    assert line.startswith(f"segkd: {path}: not loadable without pickle (it asks for posix.system); ")


HOSTILE_FOLDERS = {
    "a function for a network": ("config.json", {"_model_class": "from_pretrained", "pretrained_model_name_or_path": "nobody/nothing"}),
    "a module for a network": ("config.json", {"_model_class": "encoders"}),
    "a dunder for a network": ("config.json", {"_model_class": "__loader__"}),
    "no network": ("config.json", {"_model_class": None}),
    "an encoder of the hub": ("config.json", {"encoder_name": "tu-hf-hub:nobody/nothing"}),
    "an encoder of a folder": ("config.json", {"encoder_name": "tu-local-dir:/tmp"}),
    "another number of classes": ("config.json", {"classes": 4}),
    "a checkpoint for timm": ("config.json", {"checkpoint_path": "/tmp/x.pth"}),
    "a description for timm": ("config.json", {"pretrained_cfg": {"file": "/tmp/x.pth"}}),
    "a change of it": ("config.json", {"pretrained_cfg_overlay": {"file": "/tmp/x.pth"}}),
    "weights for timm": ("config.json", {"pretrained": True}),
    "a cache for timm": ("config.json", {"cache_dir": "/tmp"}),
    "another kind of encoder": ("config.json", {"features_only": False}),
    "an argument that nobody knows": ("config.json", {"weights_of_tomorrow": "/tmp/x.pth"}),
    "grey images": ("config.json", {"in_channels": 1}),
    "probabilities": ("config.json", {"activation": "softmax2d"}),
    "a second head": ("config.json", {"aux_params": {"classes": 10**9}}),
    "a hundred gigabytes": ("config.json", {"decoder_pyramid_channels": 10**6, "decoder_segmentation_channels": 3000}),
    "a billion channels": ("config.json", {"channels": [10**9] * 4}),
    "names that are numbers": ("preprocess.json", {"classes": [1, 2, 3]}),
    "a name twice": ("preprocess.json", {"classes": ["a", "a", "b"]}),
    "fewer names": ("preprocess.json", {"classes": ["a", "b"], "palette": [[1, 2, 3]] * 2}),
    "more names than ids": ("preprocess.json", {"classes": [str(i) for i in range(300)], "palette": [[1, 2, 3]] * 300}),
    "a palette of floats": ("preprocess.json", {"palette": [[0.5, 0.5, 0.5]] * 3}),
    "a short palette": ("preprocess.json", {"palette": [[1, 2, 3]]}),
    "a mean of NaN": ("preprocess.json", {"mean": [math.nan, 0.5, 0.5]}),
    "a mean of text": ("preprocess.json", {"mean": ["0.5"] * 3}),
    "a standard deviation of 0": ("preprocess.json", {"std": [0.0, 0.5, 0.5]}),
    "a multiple of 0": ("preprocess.json", {"size": {"multiple_of": 0}}),
    "a multiple that the network refuses": ("preprocess.json", {"size": {"multiple_of": 7}}),
    "a multiple of a billion": ("preprocess.json", {"size": {"multiple_of": 10**9}}),
    "a file of a list": ("preprocess.json", []),
    "a large file": ("preprocess.json", {"note": "x" * 2_000_000}),
}  # fmt: skip


@pytest.mark.row("C4-5", 33)
def test_a_hostile_student_folder_is_refused(row, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name, (file, change) in HOSTILE_FOLDERS.items():
        place = shutil.copytree(folder, tmp_path / name)
        content = json.loads((place / file).read_text()) | change if change else change
        (place / file).write_text(json.dumps(content))
        with cheaply(), pytest.raises(TeacherError) as caught:
            load_student(place)
        line = str(caught.value)
        assert line.startswith(str(place)) and line.isprintable() and "Hub" not in line, line
        row.count()
    content = json.loads((folder / "config.json").read_text()) | {"encoder_weights": "imagenet"}
    (place / "config.json").write_text(json.dumps(content))
    shutil.copy(folder / "preprocess.json", place)
    load_student(place)  # asks nobody for weights that its own replace


def renamed(state: State) -> State:
    return {key.replace("conv", "convolution"): value for key, value in state.items()}


def spoilt(state: State, change: Callable[[torch.Tensor], torch.Tensor], of: str = "weight") -> State:
    """The last of its tensors of a kind changed."""
    key = [key for key in state if key.endswith(of)][-1]
    return {**state, key: change(state[key])}


def broken(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda tensor: tensor.clone().view(-1).index_fill(0, torch.tensor([1]), value).view(tensor.shape)


def other(encoder: str, classes: int = 11, arch: str = "DeepLabV3Plus", **options: object) -> Callable[[State], State]:
    return lambda state: create_network(arch, encoder, classes, options).state_dict()


TINY = {"channels": [16, 24, 32, 48], "stem_width": 8, "decoder_channels": 32}
MISFITS: dict[str, tuple[Callable[[State], State], str]] = {
    "another architecture": (other("tu-resnet10t", arch="FPN"), "missing decoder.aspp"),
    "another encoder": (other("mobilenet_v2"), "missing encoder.model.conv1.0.weight"),
    "another width": (other("tu-resnet10t", **TINY | {"decoder_channels": 16}), "expected shape (32, 48, 1, 1), found (16, 48, 1, 1)"),
    "more classes": (other("tu-resnet10t", 12, **TINY), "segmentation_head.0.weight: expected shape (11, 32, 1, 1), found (12, 32, 1, 1)"),
    "fewer classes": (other("tu-resnet10t", 2, **TINY), "segmentation_head.0.bias: expected shape (11,), found (2,)"),
    "a key missing": (lambda state: dict(list(state.items())[1:]), "missing encoder.model.conv1.0.weight; "),
    "many keys missing": (lambda state: dict(list(state.items())[9:]), "missing encoder.model.conv1.0.weight, encoder.model.conv1.1.weight, encoder.model.conv1.1.bias ..."),
    "no key": (lambda state: {"x": torch.zeros(1)}, "...; unexpected x;"),
    "a key more": (lambda state: {**state, "a\n\x1b[31m": torch.zeros(1)}, "unexpected a \\x1b[31m;"),
    "many keys more": (lambda state: {**state, **{f"more.{i}": torch.zeros(1) for i in range(9)}}, "unexpected more.0, more.1, more.2 ...;"),
    "keys renamed": (renamed, "missing encoder.model.conv1.0.weight, encoder.model.conv1.1.weight, encoder.model.conv1.1.bias ...; unexpected "),
    "a prefix of some": (lambda state: {f"net.{key}" if index % 2 else key: value for index, (key, value) in enumerate(state.items())}, "...; unexpected net."),
    "a tensor turned": (lambda state: spoilt(state, lambda t: t.transpose(0, 1).contiguous()), "found (32, 11, 1, 1)"),
    "a tensor flattened": (lambda state: spoilt(state, torch.flatten), "found (352,)"),
    "bytes for numbers": (lambda state: spoilt(state, lambda t: t.to(torch.int8)), "expected float32, found int8"),
    "numbers of 8 bits": (lambda state: spoilt(state, lambda t: t.to(torch.float8_e4m3fn)), "expected float32, found float8_e4m3fn"),
    "complex numbers": (lambda state: spoilt(state, lambda t: t.to(torch.complex64)), "expected float32, found complex64"),
    "fractions for a count": (lambda state: spoilt(state, torch.Tensor.float, "tracked"), "expected int64, found float32"),
    "NaN": (lambda state: spoilt(state, broken(math.nan)), "not finite: segmentation_head.0.weight;"),
    "a negative variance": (lambda state: spoilt(state, lambda t: t - 9, "running_var"), "a variance below 0: decoder."),
    "an infinite variance": (lambda state: spoilt(state, broken(math.inf), "running_var"), "not finite: decoder."),
}  # fmt: skip


@pytest.mark.row("C6", 21)
def test_weights_of_another_network_are_told_by_three_keys(row, tiny, tmp_path: Path):
    """Of a teacher, of what a student starts from, and in a student's folder."""
    recipe = tiny.recipe("ddad.segkd")
    network = create_network("DeepLabV3Plus", "tu-resnet10t", 11, TINY)
    found = load_file(tiny.folder / "teacher.safetensors")
    good = {key: found[key] for key in network.state_dict()}
    names, palette = [str(i) for i in range(11)], [(i, i, i) for i in range(11)]
    student = save_network(
        network,
        tmp_path / "student",
        names=names,
        palette=palette,
        mean=[0.5] * 3,
        std=[0.5] * 3,
        stride=16,
        shorter_side=256,
    )
    path = tmp_path / "teacher.safetensors"
    starts = recipe.student.model_copy(update={"weights": str(path)})
    for name, (change, words) in MISFITS.items():
        save_file(change(good), path)
        shutil.copy(path, student / "model.safetensors")
        doors: dict[str, Callable[[], object]] = {
            str(path): lambda: builders.teacher_of(recipe.teacher.model_copy(update={"weights": str(path)})),
            f"{path}": lambda: builders.start_from(builders.network_of(starts, 11), starts.weights),
            str(student / "model.safetensors"): lambda: load_student(student),
        }
        for place, read in doors.items():
            with pytest.raises(TeacherError) as caught:
                read()
            line = str(caught.value)
            assert line.startswith(f"{place}: ") and line.isprintable() and len(line) < 900, line
            assert words in line, (name, line)
        row.count()
    save_file({key: value.half() if value.is_floating_point() else value for key, value in good.items()}, path)
    builders.teacher_of(recipe.teacher.model_copy(update={"weights": str(path)}))
