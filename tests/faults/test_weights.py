"""Row C4-5: weights from anybody run no code and take no memory."""

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from segkd.cli import main
from segkd.foundation.errors import SegkdError, StorageError, TeacherError
from segkd.models.teacher import read_state
from segkd.recipe import differences
from segkd.training import loop
from tests.faults.attacks import headers, pickles, saved
from tests.faults.memory import memory_below

State = dict[str, torch.Tensor]


@contextmanager
def quickly() -> Iterator[None]:
    """Fail where a second of work or 100 MB are spent."""
    started = time.process_time()
    with memory_below(100):
        yield
    assert time.process_time() - started < 1


def refused(read: Callable[[Path], object], path: Path, kind: type[SegkdError]) -> None:
    with quickly(), pytest.raises(kind) as caught:
        read(path)
    line = str(caught.value)
    assert line.startswith(f"{path}: ") and line.isprintable() and len(line) < 400 + len(str(path)), line


def resumed(path: Path) -> None:
    """A run that is to go on from a checkpoint whose name has the right hash; that is no secret."""
    loop.resume(None, path, {}, differences, str(path), (), print)


@pytest.mark.row("C4-5", 40)
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
def test_a_hostile_header_is_refused(row, tmp_path: Path):
    for data in headers().values():
        (tmp_path / "teacher.safetensors").write_bytes(data)
        refused(read_state, tmp_path / "teacher.safetensors", TeacherError)
        row.count()


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
            while name == "subprocess" and not mark.exists():
                time.sleep(0.01)
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
    code = main(["distill", str(tiny.path), f"teacher.weights={path}", f"run.dir={tmp_path}/run", "data.name=null"])
    out, err = capsys.readouterr()
    assert code == 3 and not out and not (tmp_path / "run").exists()
    [line] = err.splitlines()
    assert line.startswith(f"segkd: {path}: not loadable without pickle (it asks for posix.system); ")
