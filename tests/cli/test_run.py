"""What a run says of itself: what comes, before torch is loaded; and at the end what it has reached and what to do next."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from segkd.cli.closing import closing
from segkd.cli.run import folder_state, opening
from segkd.recipe import load

ROOT = Path(__file__).parents[2]
SUMMARY = {
    "recipe": "quickstart", "method": "ddad", "variant": "segkd", "student_miou": 0.710, "teacher_miou": 0.813,
    "recovery": 0.8733, "agreement": 0.905, "student_parameters": 1_290_000, "teacher_parameters": 5_160_000,
    "student_flops": 210_000_000, "teacher_flops": 1_230_000_000, "real_images_for_training": 0,
    "real_images_for_evaluation": 0, "refused_moves": 0, "rollbacks": 0, "seed": 0, "steps": 300, "batch": 8,
    "seconds": 276.2, "peak_memory_mb": 1234, "machine": "a CPU, 2 cores", "precision": "fp32",
}  # fmt: skip


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("verb", "recipe"), [("distill", "quickstart"), ("teach", "teachers/scenes")])
def test_the_first_line_comes_before_torch(here, verb, recipe):
    code = """
import sys
class Torch:
    def find_spec(self, name, path, target=None):
        if name.split(".")[0] == "torch":
            print("torch")
            sys.exit()
sys.meta_path.insert(0, Torch())
from segkd.cli.main import main
main()
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code, verb, recipe, "run.device=cpu"], capture_output=True, text=True, env=environment,
        check=True,
    )  # fmt: skip
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"{recipe}: ") and " steps of batch " in line
    assert line.endswith(f"device cpu; runs/{recipe.split('/')[-1]}-s0: a new run")
    assert done.stdout == "torch\n"


def test_the_opening_says_what_comes(here):
    assert opening("quickstart", load("quickstart"), "a new run") == (
        "quickstart: distilling DeepLabV3Plus tu-resnet10t into DeepLabV3Plus tu-resnet10t by ddad (segkd), "
        f"{load('quickstart').run.steps} steps of batch {load('quickstart').run.batch}, device auto; runs/quickstart-s0: a new run"
    )
    budget = load("quickstart", ["run.budget=25m"])
    assert f"the steps that fit into 25 min of batch {budget.run.batch}" in opening("my.yaml", budget, "")
    assert "teaching DeepLabV3Plus tu-resnet10t on scenes/train, " in opening("t", load("teachers/scenes"), "")


def test_the_opening_says_where_the_run_stands(here):
    recipe = load("quickstart")
    assert folder_state(recipe, "auto") == "a new run"
    folder = Path("runs/quickstart-s0/checkpoints")
    folder.mkdir(parents=True)
    for name in ("step-00000000-ab.ckpt", "step-00001200-cd.ckpt", "step-x-ef.ckpt", ".tmp-step-00009999-ef.ckpt"):
        (folder / name).touch()
    assert folder_state(recipe, "auto") == "goes on after step 1,200"
    assert folder_state(recipe, "a.ckpt") == "goes on from a.ckpt"
    (folder.parent / "summary.json").touch()
    assert folder_state(recipe, "auto") == "was finished before"


def test_the_closing_sets_teacher_and_student_side_by_side(here):
    lines = closing(load("quickstart"), SUMMARY)
    assert lines == [
        "runs/quickstart-s0: 300 steps in 4 min 36 s, 1,234 MB at most, fp32, a CPU, 2 cores",
        "",
        "                          teacher      student",
        "  mIoU, scenes test         0.813        0.710  87.3 % of the teacher's (recovery)",
        "  parameters               5.16 M       1.29 M  4.0 times fewer",
        "  operations, 128x96  1.23 GFLOPs  0.21 GFLOPs  5.9 times fewer",
        "  agreement                              0.905  share of pixels of synthetic images with one class",
        "",
        "  student: runs/quickstart-s0/student",
        "  samples: runs/quickstart-s0/samples: synthetic image | teacher | student | where they differ",
        "  figures: runs/quickstart-s0/summary.json",
        "  audit: data-free: no real image was opened to train; 500 procedural pictures to measure",
        "",
        "next:",
        "  segkd eval runs/quickstart-s0",
        "  segkd visualize runs/quickstart-s0 IMAGE_OR_FOLDER --out drawings",
        "  from segkd import load_student; masks = load_student('runs/quickstart-s0/student').predict(images)  # Python",
    ]


def test_the_closing_says_what_was_not_measured_and_what_would(here, monkeypatch):
    unknown = dict.fromkeys(("student_miou", "teacher_miou", "recovery", "student_flops", "teacher_flops"))
    lines = closing(load("quickstart", ["data.name=null", "run.dir=my runs/a"]), SUMMARY | unknown)
    said = "\n".join(lines)
    assert "  mIoU                      -        -\n" in said and "  operations, 128x96        -        -\n" in said
    command = "segkd eval 'my runs/a' --data NAME --root DIR"
    assert f"  not measured: mIoU, since the recipe names no labelled images; this measures it: {command}" in lines
    commands = [line for line in lines[lines.index("next:") :] if line.startswith("  segkd eval")]
    assert len(commands) == 1 and " --data folder --root PHOTOS --against " in commands[0]
    assert shlex.split(command)[2] == "my runs/a"
    monkeypatch.delenv("SEGKD_DATA", raising=False)
    named = load("quickstart", ["data.name=camvid", "data.root=${SEGKD_DATA}/camvid"])
    assert closing(named, SUMMARY | unknown)[-6].endswith(
        "since SEGKD_DATA is not set; this measures it: segkd data prepare camvid --root DIR"
        " && segkd eval runs/quickstart-s0 --data camvid --root DIR"
    )


def test_the_closing_tells_of_troubles_and_of_images_that_trained(here):
    lines = closing(load("quickstart"), SUMMARY | {"refused_moves": 3, "rollbacks": 1, "real_images_for_training": 367})
    assert lines[0].endswith(", 3 updates refused, 1 rollback")
    assert "  audit: not data-free: 367 real images trained; 500 procedural pictures to measure" in lines
    files = load("quickstart", ["data.name=camvid", "data.root=d"])
    assert "; 233 to measure" in "\n".join(closing(files, SUMMARY | {"real_images_for_evaluation": 233}))
    assert "; 0 to measure" in "\n".join(
        closing(load("quickstart", ["data.name=null"]), SUMMARY | {"student_miou": None})
    )


def test_the_closing_of_a_network_that_was_taught(here):
    summary = SUMMARY | {"best_step": 250, "agreement": None, "teacher_miou": None, "recovery": None}
    recipe = load("teachers/scenes", ["output=mine.safetensors"])
    lines = closing(recipe, summary)
    assert "  mIoU, scenes test        0.710  the weights of step 250" in lines
    assert f"  network: {recipe.run.dir}/model" in lines and f"  weights: {recipe.output}" in lines
    assert lines[-1] == f"  segkd distill RECIPE teacher.weights={recipe.output}"
