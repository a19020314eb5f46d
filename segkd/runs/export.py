"""`segkd export`: a student alone, as one file, tried against the student before anybody takes it."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import torch
from torch import nn

from segkd.data.photos import Photos
from segkd.delivery import onnx
from segkd.delivery.deployed import BYTES, Deployed, about, denormalised, output_name, padded, prepared
from segkd.delivery.examples import RUNS, script
from segkd.delivery.folder import LoadedStudent, load_student, student_folder
from segkd.delivery.gate import Run, compared, milliseconds
from segkd.delivery.pt2 import exported_program, least_side, saved_bytes
from segkd.foundation import terminal
from segkd.foundation.channels import READ, name_of, stands_in
from segkd.foundation.errors import NumbersError, StorageError, TeacherError, UsageError
from segkd.foundation.files import atomic_write, make_folder, remove, sha256
from segkd.foundation.rng import seed_for
from segkd.machine.device import machine
from segkd.models.own import OwnNetwork
from segkd.runs.evaluate import evaluate
from segkd.runs.trained import load_model, of_student
from segkd.synthesis.bank import Replay
from segkd.synthesis.pictures import KINDS
from segkd.training import checkpoint

Format = Literal["onnx", "pt2"]
LEAST = {"fp32": ("agreement", 0.999), "int8": ("agreement_where_sure", 0.9)}
"""Share of pixels to which a file gives the student's classes, below which it fails: of all, in 8 bits of those that it is sure of."""
CALIBRATION, TRIED = 32, 12
"""Images that lead to the ranges of 8-bit activations, and procedural ones on which a file is tried."""
MADE = ("model.onnx", "model.int8.onnx", "model.pt2")
REPORT = "export.json"
OPENCV = """\
import sys, cv2, numpy as np
network = cv2.dnn.readNetFromONNX(sys.argv[1])
network.setInput(np.load(sys.argv[2]))
np.save(sys.argv[3], network.forward())
"""
"""What a process runs that asks OpenCV for the answer to images."""


@dataclass(frozen=True)
class Choices:
    """What is exported, and how.

    Args:
        int8: beside the file in fp32 (ONNX only); `calibration` says from which images its ranges come: `generator` (those
            that the run's student has learnt from), `pictures` (procedural), `noise`, or a folder of photos.
        normalises, chooses: as for `Deployed`.
        images: a folder of photos on which the file is tried, too.
        measured: name, root and split of a labelled set on which student and file are measured.
    """

    format: Format = "onnx"
    int8: bool = False
    calibration: str | None = None
    normalises: bool = False
    chooses: bool = False
    images: Path | None = None
    measured: tuple[str, str | None, str] | None = None


def export(
    source: str | Path, out: Path, choices: Choices, trust_pickle: bool = False, own: OwnNetwork | None = None
) -> dict[str, Any]:
    """Write a student into `out`, and return what trying it has shown, which `export.json` holds, too.

    `trust_pickle` and `own` are for the teacher of a run, whose time stands beside the student's; see `load_model`.

    Raises:
        TeacherError: there is no student, or it is damaged.
        UsageError: libraries are missing, or choices do not go together.
        StorageError: `out` holds something else, or cannot be written.
        NumbersError: a file does not answer as the student does; it is there all the same.
    """
    check_choices(choices)
    student, weights = load_student(source), sha256(student_folder(Path(source)) / "model.safetensors")
    _check_out(out)
    # Whatever can be wrong with what is given is told before anything is written.
    photos = None if choices.images is None else _photos(choices.images, student)
    miou = {} if choices.measured is None else {"miou": _miou(student, student, choices.measured)}
    deployed = Deployed(student, choices.normalises, choices.chooses).eval()
    calibration = _calibration(Path(source), student, choices) if choices.int8 else []
    terminal.doing("exporting")
    told = about(student, choices.normalises, choices.chooses, _least(student, choices))
    files = _files(deployed, student, choices, told, calibration)
    make_folder(out)
    remove(out / REPORT)  # it tells of the files before these
    for name, content in files.items():
        atomic_write(out / name, content)
    for name in (*MADE, *(name for name, _, _ in RUNS.values())):
        if name not in files:
            remove(out / name)  # what an earlier export of another kind has left
    atomic_write(out / "deployed.json", json.dumps(told, indent=2) + "\n")
    terminal.doing("trying the file")
    report = {
        "machine": machine(),
        "threads": torch.get_num_threads(),
        "format": choices.format,
        "opset": onnx.OPSET if choices.format == "onnx" else None,
        "student_sha256": weights,
        "photos": choices.images and str(choices.images.resolve()),
    }
    reference = Deployed(student, choices.normalises).eval()  # gives logits, whatever the files give
    report |= {
        "files": {name: _tried(name, content, reference, student, choices, photos) for name, content in files.items()}
    }
    report["student"] = {"milliseconds": milliseconds(_of(deployed), _example(student, choices)), **miou}
    report |= _teacher(source, student, choices, trust_pickle, own)
    report["examples"] = _write_examples(out, reference, student, choices)
    atomic_write(out / REPORT, json.dumps(report, indent=2) + "\n")
    for name, found in report["files"].items():
        if not found["passed"]:
            image, share = found["worst"]
            judged_on = found["judged_on"]
            whose = "" if judged_on == "agreement" else " of which the student is sure"
            raise NumbersError(
                f"{out / name}: gives the student's class to {found[judged_on]:.4f} of the pixels{whose}, and {found['least']} was asked for; least on"
                f" {image} ({share:.4f}); the files and {REPORT} are there"
            )
    return report


def check_choices(choices: Choices) -> None:
    """Raises UsageError where choices do not go together, or libraries are missing."""
    if choices.format == "onnx":
        onnx.libraries()
    elif choices.int8:
        raise UsageError("--int8: is for ONNX: leave --format pt2 out")
    if choices.calibration is not None and not choices.int8:
        raise UsageError(f"--calibration {choices.calibration}: is for --int8")


def _check_out(out: Path) -> None:
    """Raises StorageError where `out` holds anything that an export has not made."""
    if out.exists() and not out.is_dir():
        raise StorageError(f"{out}: is no folder; name a new one")
    if out.is_dir() and (held := sorted(set(os.listdir(out)))) and REPORT not in held and "deployed.json" not in held:
        raise StorageError(f"{out}: holds {held[0]}, which no export has made; name a new folder")


def _files(
    deployed: Deployed, student: LoadedStudent, choices: Choices, told: dict[str, object], calibration: list[np.ndarray]
) -> dict[str, bytes]:
    """The bytes of each file by its name; `told` is what those of ONNX say of themselves."""
    program = exported_program(deployed, student.stride, student.channels)
    if choices.format == "pt2":
        return {"model.pt2": saved_bytes(program)}
    whole = onnx.onnx_bytes(program, output_name(choices.chooses), told)
    files = {"model.onnx": whole}
    if choices.int8:
        files["model.int8.onnx"] = onnx.quantised_bytes(whole, calibration)
    return files


def _runs(name: str, content: bytes) -> Run:
    """What answers as the file does."""
    if name.endswith(".onnx"):
        return onnx.Session(content)
    return _of(torch.export.load(io.BytesIO(content)).module())


def _of(network: nn.Module) -> Run:
    @torch.inference_mode()
    def run(images: np.ndarray) -> np.ndarray:
        return network(torch.from_numpy(images)).numpy()

    return run


def _tried(
    name: str, content: bytes, reference: Deployed, student: LoadedStudent, choices: Choices, photos: Photos | None
) -> dict[str, Any]:
    """What the file does on procedural pictures and on photos, how large it is and how long an image takes."""
    run = _runs(name, content)
    verdict = compared(reference, run, _images(student, photos, choices))
    judged_on, least = LEAST["int8" if ".int8" in name else "fp32"]
    shares = {"agreement": verdict.agreement, "agreement_where_sure": verdict.sure}
    found = {
        "passed": shares[judged_on] >= least, "judged_on": judged_on, "least": least, **shares, "largest_difference": verdict.largest,
        "worst": list(verdict.worst), "images": verdict.images, "bytes": len(content),
        "milliseconds": milliseconds(run, _example(student, choices)),
    }  # fmt: skip
    if choices.measured is not None:
        found["miou"] = _miou(_Answers(run, student, choices), student, choices.measured)
    return found


def _miou(network: nn.Module, student: LoadedStudent, measured: tuple[str, str | None, str]) -> float:
    """That of the student, or of a file of it, on a labelled set."""
    data, root, split = measured
    model = replace(of_student(student), network=network)
    return evaluate(model, data=data, root=root, split=split, device="cpu", precision="fp32")["miou"]


class _Answers(nn.Module):
    """A file as a network of normalised images, so that it is measured as the student is."""

    def __init__(self, run: Run, student: LoadedStudent, choices: Choices) -> None:
        super().__init__()
        self.run, self.student, self.choices = run, student, choices
        self.held = nn.Parameter(torch.zeros(()), requires_grad=False)  # tells where it is, and in which numbers

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (N,C,H,W); of a file of class ids ones and zeros."""
        x = padded(self.student, images, _least(self.student, self.choices))
        if self.choices.normalises:
            x = denormalised(self.student, x)
        answer = torch.from_numpy(self.run(np.ascontiguousarray(x.float().numpy())))
        if self.choices.chooses:
            answer = nn.functional.one_hot(answer.long(), len(self.student.names)).permute(0, 3, 1, 2).float()
        return answer[..., : images.shape[2], : images.shape[3]]


def _least(student: LoadedStudent, choices: Choices) -> int:
    """Pixels of the shortest side of an image that a file takes: one of ONNX takes whatever the student does."""
    return least_side(student.stride) if choices.format == "pt2" else student.stride


def _images(student: LoadedStudent, photos: Photos | None, choices: Choices) -> Iterator[tuple[str, np.ndarray]]:
    """What a file is tried on, by names."""
    least = _least(student, choices)
    for name, image in _pictures(student, TRIED):
        yield name, prepared(student, image, choices.normalises, least)
    for sample in photos or ():
        yield sample.name, prepared(student, sample.image, choices.normalises, least)


def _pictures(student: LoadedStudent, count: int) -> list[tuple[str, np.ndarray]]:
    """Procedural pictures of each kind in turn, of several sizes, the last of noise."""
    kinds, sizes = list(KINDS), ((192, 256), (256, 341), (128, 160))
    made = []
    for index in range(count - 1):
        kind, size = kinds[index % len(kinds)], sizes[index % len(sizes)]
        made.append(
            (
                f"{kind} {index}",
                stands_in(KINDS[kind](seed_for(0, index, 0, "export") % 2**31, size), student.channels),
            )
        )
    noise = np.random.default_rng(0).integers(0, 256, (*sizes[0], student.channels), dtype=np.uint8)
    return [*made, ("noise", noise)]


def _photos(folder: Path, student: LoadedStudent) -> Photos:
    if student.channels not in READ:
        raise UsageError(
            f"{folder}: the student takes images of {name_of(student.channels)}, which are not read from files"
        )
    return Photos(folder)


def _example(student: LoadedStudent, choices: Choices) -> np.ndarray:
    return prepared(student, _pictures(student, 2)[0][1], choices.normalises, _least(student, choices))


def _calibration(source: Path, student: LoadedStudent, choices: Choices) -> list[np.ndarray]:
    """Images (1,K,h,w) that lead to the ranges of activations."""
    named = choices.calibration or ("generator" if (source / "checkpoints").is_dir() else "pictures")
    if named == "generator":
        return _generated(source, student, choices.normalises)
    if named == "pictures":
        return [prepared(student, image, choices.normalises) for _, image in _pictures(student, CALIBRATION)]
    if named == "noise":
        drawn = np.random.default_rng(1).standard_normal((CALIBRATION, 192, 256, student.channels))
        pixels = (drawn * student.std + student.mean) * BYTES
        return [prepared(student, image, choices.normalises) for image in pixels.clip(0, 255).astype(np.uint8)]
    if not Path(named).is_dir():
        raise UsageError(f"--calibration {named}: neither generator, pictures or noise, nor a folder of photos")
    photos = islice(_photos(Path(named), student), 4 * CALIBRATION)
    return [prepared(student, sample.image, choices.normalises) for sample in photos]


def _generated(run: Path, student: LoadedStudent, normalises: bool) -> list[np.ndarray]:
    """Images of the bank that the run's student has learnt from: no data is needed.

    Raises:
        UsageError: the run has no checkpoint, or kept no images.
    """
    other = "choose --calibration pictures, noise or a folder of photos"
    found = checkpoint.newest(run / "checkpoints")
    state = None if found is None else found[0]["game"].get("replay")
    if not state or not state["images"]:
        raise UsageError(f"{run}: no checkpoint with images that its student has learnt from; {other}")
    bank = Replay(len(state["images"]), state["images"][0].dtype, flip=False, uint8="spans" in state)
    bank.restore(state, torch.device("cpu"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for(0, 0, 0, "calibration"))
        drawn = [bank.draw(1)[0].images.float() for _ in range(CALIBRATION)]
    return [(denormalised(student, x) if normalises else x).contiguous().numpy() for x in drawn]


def _teacher(
    source: str | Path, student: LoadedStudent, choices: Choices, trust_pickle: bool, own: OwnNetwork | None
) -> dict[str, dict[str, float] | str]:
    """What an image takes the teacher of a run, or why that is not known; nothing where there is none."""
    if not (Path(source) / "student").is_dir():
        return {}
    try:
        teacher = load_model(source, "teacher", trust_pickle=trust_pickle, own=own).network.eval()
    except (TeacherError, UsageError, StorageError) as error:
        return {"teacher_left_out": str(error)}
    return {
        "teacher": {"milliseconds": milliseconds(_of(teacher), _example(student, replace(choices, normalises=False)))}
    }


def _write_examples(out: Path, reference: Deployed, student: LoadedStudent, choices: Choices) -> dict[str, str]:
    """Scripts that run the file, and of each what trying it has shown."""
    if student.channels not in READ:
        return {"example.py": f"left out: it reads photos, and the student takes images of {name_of(student.channels)}"}
    if choices.format == "pt2":
        atomic_write(out / "example.py", script("pt2"))
        return {"example.py": "PyTorch alone"}
    atomic_write(out / "example.py", script("onnx"))
    told = {"example.py": "onnxruntime"}
    image = _example(student, choices)
    answer = opencv_answer(out / "model.onnx", image)
    loads = answer is not None and compared(reference, lambda _: answer, [("one", image)]).agreement >= LEAST["fp32"][1]
    if loads:
        atomic_write(out / "example_opencv.py", script("opencv"))
    return told | {
        "example_opencv.py": f"OpenCV {cv2.__version__}"
        if loads
        else f"left out: OpenCV {cv2.__version__} does not run this file"
    }


def opencv_answer(model: Path, images: np.ndarray) -> np.ndarray | None:
    """What OpenCV's DNN makes of an ONNX file and images (N,K,h,w); None: it does not run the file.

    A process of its own is asked: some files end it, where others are errors.
    """
    with tempfile.TemporaryDirectory() as folder:
        given, answer = Path(folder, "images.npy"), Path(folder, "answer.npy")
        np.save(given, images)
        command = [sys.executable, "-c", OPENCV, *map(str, (model.resolve(), given, answer))]
        # there, no module of the user's takes the place of those that it imports, and what a crash leaves goes, too
        done = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True)
        return np.load(answer) if done.returncode == 0 else None
