"""What a stranger does from Python: right, wrong, and as one would guess it."""

import json
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import segkd
from segkd import Progress, SegkdError, distill, evaluate, load_student, teach, visualize
from segkd.foundation import audit
from segkd.foundation.errors import ArgumentError, Stopped
from segkd.reporting.report import page
from segkd.training import checkpoint

pytestmark = pytest.mark.usefixtures("own_threads")


@pytest.fixture
def recipe(tiny, tmp_path) -> dict:
    """A recipe as a dict that plays three steps."""
    run = {"steps": 3, "threads": 1, "dir": tmp_path / "run", "eval_every": 3, "sample_every": 3, "save_every": 2}
    return {"extends": tiny.path, "method": "noise", "variant": None, "game": {"student_moves": 1}, "run": run}


@pytest.fixture(scope="module")
def student(tiny, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("api") / "run"
    values = {"method": "noise", "variant": None, "run.steps": 1, "run.dir": folder, "run.threads": 1}
    distill(tiny.path, values, quiet=True)
    return folder


def test_what_segkd_offers() -> None:
    assert set(segkd.__all__) <= set(dir(segkd)) and all(getattr(segkd, name) is not None for name in segkd.__all__)
    code = "import sys; from segkd import SegkdError; assert not {'torch', 'numpy', 'segkd.api'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="no attribute 'destill'"):
        segkd.destill  # noqa: B018


def test_a_dict_distils_and_every_step_is_told(recipe, tiny, tmp_path) -> None:
    told: list[Progress] = []
    opened = audit.count("training")

    def progress(state: Progress) -> None:
        told.append(state)
        (tiny.folder / "camvid" / "train" / "0.png").read_bytes()  # the caller's own affair

    summary = distill(recipe, quiet=True, progress=progress)
    assert [(state.step, state.steps) for state in told] == [(1, 3), (2, 3), (3, 3)]
    assert all(set(state.values) >= {"kd"} and isinstance(state.values["kd"], float) for state in told)
    assert 0 < told[0].seconds <= told[2].seconds
    assert summary["recipe"] == "recipe" and summary["real_images_for_training"] == 0
    assert audit.count("training") == opened
    assert distill(recipe, progress=progress) == summary and len(told) == 3  # a finished run plays no step
    assert json.loads((tmp_path / "run" / "summary.json").read_text()) == summary


def test_a_run_ends_with_its_page_which_is_kept_while_it_is_true(recipe, tmp_path, small_files, capsys) -> None:
    path = tmp_path / "run/report.html"
    distill(recipe, quiet=True)
    first, written = path.read_text("utf-8"), path.stat().st_mtime_ns
    assert first == page(tmp_path / "run") and "warning" not in capsys.readouterr().err
    distill(recipe, quiet=True)
    assert path.stat().st_mtime_ns == written
    path.write_text(first[:-100])  # a power cut
    (tmp_path / "run/.tmp-report.html-1").write_text("half")  # and a kill
    with small_files(1000):  # a full disk
        assert distill(recipe, quiet=True)["steps"] == 3
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"warning: {path}: not written (") and line.endswith(
        f"); segkd report {tmp_path}/run makes it"
    )
    assert not list(tmp_path.rglob(".tmp-*")) and path.read_text("utf-8") == first[:-100]
    distill(recipe, quiet=True)
    assert path.read_text("utf-8") == first
    with pytest.raises(KeyError):  # a run that goes on leaves no page of what it was
        distill(recipe, {"run.steps": 5}, accept=["run.steps"], quiet=True, progress=lambda now: {}[now.step])
    assert not path.exists()


def test_what_a_callback_raises_ends_the_run_which_goes_on(recipe, tmp_path) -> None:
    def enough(state: Progress) -> None:
        if state.step == 1:
            raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        distill(recipe, quiet=True, progress=enough)
    assert checkpoint.newest(tmp_path / "run" / "checkpoints")[0]["step"] == 1, "no step is lost"
    told: list[Progress] = []
    distill(recipe, quiet=True, progress=told.append)
    assert [state.step for state in told] == [2, 3]


MODES = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "device": lambda: torch.device("meta"),
}


def test_a_run_is_the_same_in_whatever_block_it_is_called_and_leaves_torch_as_it_was(recipe, tmp_path) -> None:
    recipe["run"] |= {"steps": 1, "precision": "fp32"}
    students, threads = [], torch.get_num_threads()
    for name, mode in ({"none": nullcontext} | MODES | {"float64": nullcontext}).items():
        torch.manual_seed(3)
        before = torch.get_rng_state()
        torch.set_default_dtype(torch.float64 if name == "float64" else torch.float32)
        try:
            with mode():
                recipe["run"] |= {"dir": tmp_path / name, "threads": threads + 1}
                distill(recipe, quiet=True)
                assert torch.get_num_threads() == threads and torch.equal(torch.get_rng_state(), before)
                mask = load_student(tmp_path / name).predict(np.zeros((32, 32, 3), np.uint8))
                assert mask.shape == (32, 32)
            assert torch.get_default_dtype() == (torch.float64 if name == "float64" else torch.float32)
        finally:
            torch.set_default_dtype(torch.float32)
        students.append((tmp_path / name / "student/model.safetensors").read_bytes())
    assert len(set(students)) == 1


def test_teaching_tells_each_step_too(tiny, tmp_path) -> None:
    told: list[Progress] = []
    options = {"channels": [16, 24, 32, 48], "stem_width": 8, "decoder_channels": 32}
    summary = teach(
        {
            "model": {"arch": "DeepLabV3Plus", "encoder": "tu-resnet10t", "classes": "camvid", "options": options},
            "train": {"optimizer": {"name": "sgd", "lr": 0.01}, "crop": (32, 64)},
            "data": {"name": "camvid", "root": tiny.folder / "camvid"},
            "run": {"steps": 2, "batch": 2, "dir": tmp_path / "taught", "threads": 1, "precision": "fp32"},
        },
        quiet=True,
        progress=told.append,
    )
    assert [state.step for state in told] == [1, 2] and set(told[0].values) == {"loss", "lr"}
    assert summary["student_miou"] is not None


def test_drawings_are_returned_and_told(student, tiny, tmp_path) -> None:
    photos = tiny.folder / "camvid" / "test"
    told: list[tuple[int, int]] = []
    drawn = visualize(student, photos, tmp_path / "out", kind="mask", progress=lambda *done: told.append(done))
    assert drawn == [tmp_path / "out" / f"{i}_mask.png" for i in range(2)] and told == [(1, 2), (2, 2)]
    network = load_student(student)
    for file, mask in zip(sorted(photos.iterdir()), drawn, strict=True):
        wanted = network.predict(np.asarray(Image.open(file).convert("RGB")))
        assert (np.asarray(Image.open(mask)) == wanted).all()
    one = visualize(
        network, str(photos / "0.png"), str(tmp_path / "o"), teacher=network, masks=tiny.folder / "camvid/testannot"
    )
    assert [path.name for path in one] == ["0_panel.png"]
    assert visualize(student, [photos / "0.png"], tmp_path / "p", teacher=tiny.path)[0].is_file()


def test_a_run_a_folder_and_a_loaded_student_are_measured_alike(student, tiny) -> None:
    told: list[tuple[int, int]] = []
    where = {"data": "camvid", "root": tiny.folder / "camvid", "device": torch.device("cpu"), "precision": "fp32"}
    wanted = evaluate(student, **where, progress=lambda *done: told.append(done))
    assert told[-1] == (2, 2)
    for model in (str(student), student / "student", load_student(student)):
        assert evaluate(model, **where)["confusion"] == wanted["confusion"]
    assert evaluate(student, {"data.name": "camvid", "data.root": str(tiny.folder / "camvid")})["images"] == 2
    sized = evaluate(student, **where, size=np.int64(16), slide=np.array([32, 32]))
    assert sized["size"] == [16, 32] and sized["options"]["size"] == 16 and "slide 32x32" in sized["notes"][1]
    half = evaluate(load_student(student).half(), **where)
    assert half["images"] == 2 and 0 <= half["pixel_accuracy"] <= 1


WRONG = {
    "distill None": lambda s: distill(None),
    "distill a number": lambda s: distill(3),
    "distill a list": lambda s: distill([1]),
    "distill nothing": lambda s: distill({}),
    "distill a typo": lambda s: distill("quickstrat"),
    "distill a taught one": lambda s: distill("teachers/scenes"),
    "overrides None": lambda s: distill("quickstart", None),
    "overrides bytes": lambda s: distill("quickstart", b"run.steps=3"),
    "overrides a number": lambda s: distill("quickstart", 3),
    "overrides odd": lambda s: distill("quickstart", "steps"),
    "resume odd": lambda s: distill(
        "quickstart", {"run.dir": s, "data.name": None, "data.final": None}, resume="sometimes"
    ),
    "resume None": lambda s: distill("quickstart", resume=None),
    "progress": lambda s: distill("quickstart", progress=True),
    "evaluate None": lambda s: evaluate(None),
    "evaluate a module": lambda s: evaluate(torch.nn.Conv2d(3, 3, 1)),
    "evaluate nowhere": lambda s: evaluate("nowhere"),
    "evaluate a recipe": lambda s: evaluate("quickstart"),
    "evaluate no data": lambda s: evaluate(s / "student"),
    "evaluate data": lambda s: evaluate(s, data="cityscapes", root="."),
    "evaluate root": lambda s: evaluate(s, data="camvid", root="nowhere"),
    "evaluate split": lambda s: evaluate(s, data="scenes", split="training"),
    "size": lambda s: evaluate(s, data="scenes", size="full"),
    "size pair": lambda s: evaluate(s, data="scenes", size=(256, 256)),
    "slide": lambda s: evaluate(s, data="scenes", slide=256),
    "slide of drawings": lambda s: visualize(s, s / "samples", "out", slide="256x256"),
    "slide text": lambda s: evaluate(s, data="scenes", slide="256x256"),
    "scales": lambda s: evaluate(s, data="scenes", scales=1.5),
    "scales text": lambda s: evaluate(s, data="scenes", scales="1,2"),
    "who": lambda s: evaluate(s, who="both", data="scenes"),
    "who of a student": lambda s: evaluate(load_student(s), who="teacher", data="scenes"),
    "data list": lambda s: evaluate(s, data=["camvid"], root="."),
    "root number": lambda s: evaluate(s, data="camvid", root=3),
    "split number": lambda s: evaluate(s, data="camvid", root=s, split=3),
    "size array": lambda s: load_student(s).predict(np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8, 3), np.uint8)),
    "against": lambda s: evaluate(s, data="folder", root=s, against=3),
    "accept": lambda s: distill("quickstart", accept=3),
    "dotted": lambda s: distill({"extends": "quickstart", "run.steps": 3}),
    "precision": lambda s: evaluate(s, data="scenes", precision="fp16"),
    "device": lambda s: evaluate(s, data="scenes", device="gpu"),
    "device number": lambda s: evaluate(s, data="scenes", device=0),
    "evaluate progress": lambda s: evaluate(s, data="scenes", progress=1),
    "confusion": lambda s: evaluate(s, data="scenes", confusion="no/where/c.png"),
    "confusion as JPEG": lambda s: evaluate(s, data="scenes", confusion="c.jpg"),
    "confusion number": lambda s: evaluate(s, data="scenes", confusion=3),
    "kind": lambda s: visualize(s, s, "out", kind="masks"),
    "arrays": lambda s: visualize(s, np.zeros((8, 8, 3), np.uint8), "out"),
    "a list of arrays": lambda s: visualize(s, [np.zeros((8, 8, 3), np.uint8)], "out"),
    "out": lambda s: visualize(s, s, None),
    "no images": lambda s: visualize(s, [], "out"),
    "missing image": lambda s: visualize(s, "nowhere.png", "out"),
    "guide": lambda s: visualize(s, s / "samples", "out", teacher=3),
    "load None": lambda s: load_student(None),
    "load nowhere": lambda s: load_student("nowhere"),
    "load bytes": lambda s: load_student(b"runs"),
    "load a file": lambda s: load_student(s / "summary.json"),
    "load a recipe": lambda s: load_student("quickstart"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_every_wrong_argument_is_one_line(student, tmp_path, monkeypatch, kind) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SegkdError) as caught:
        WRONG[kind](student)
    assert not isinstance(caught.value, Stopped) and len(str(caught.value)) < 400
    assert "\n" not in str(caught.value) or caught.type.__name__ == "RecipeError"
    assert not (tmp_path / "out").exists()


def test_a_wrong_kind_of_argument_is_a_type_error_too(student) -> None:
    for wrong in (lambda: distill(3), lambda: load_student(student).predict("a.jpg"), lambda: evaluate(None)):
        with pytest.raises(TypeError) as caught:
            wrong()
        assert isinstance(caught.value, ArgumentError) and caught.value.exit_code == 2
