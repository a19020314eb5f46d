"""`segkd record`, and a teacher without BatchNorm that is distilled by what it wrote, through the command line."""

import json
import shlex
import shutil

import cv2
import numpy as np
import pytest
import yaml

from segkd.cli.main import main
from segkd.training import checkpoint

pytestmark = pytest.mark.usefixtures("own_threads")
TEACHER = """\
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.norm, self.head = nn.Conv2d(3, 8, 3, 2, 1), nn.LayerNorm(8), nn.Conv2d(8, 3, 1)

    def forward(self, x):
        y = self.norm(self.stem(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return nn.functional.interpolate(self.head(y.relu()), x.shape[2:])


def build():
    torch.manual_seed(0)
    return Net()
"""
RECIPE = {
    "extends": "base/ddad.yaml", "method": "mskd",
    "teacher": {"arch": "module", "classes": ["a", "b", "c"], "mean": [0.5] * 3, "std": [0.5] * 3},
    "student": {"arch": "Linknet", "encoder": "mobilenet_v2", "options": {"encoder_depth": 3}},
    "game": {"student_moves": 1}, "data": {"name": None},
    "synth": {"size": [32, 32], "width": 4, "latent": 8, "replay": 2, "refine": 1},
    "run": {"steps": 2, "batch": 2, "device": "cpu", "precision": "fp32", "threads": 1, "save_every": 1, "dir": "run"},
}  # fmt: skip
OWN = ["--teacher-file", "net.py"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(TEACHER)
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(RECIPE))
    random = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for name in ("a.png", "b.jpg", "c.png"):
        cv2.imwrite(str(tmp_path / "photos" / name), random.integers(0, 256, (40, 56, 3), np.uint8))
    return tmp_path


def test_a_teacher_without_batchnorm_is_distilled_by_recorded_statistics(here, capsys) -> None:
    assert main(["distill", "mine.yaml", *OWN]) == 3
    assert "no BatchNorm layer" in (err := capsys.readouterr().err) and "or record those of images (segkd record" in err
    assert main(["record", "mine.yaml", "photos", "--out", "s.safetensors", *OWN]) == 0
    assert capsys.readouterr().out.startswith("s.safetensors: statistics of 1 layers, recorded from 3 images\nnext: ")
    shutil.rmtree("photos")
    own = [*OWN, "teacher.statistics=s.safetensors"]
    assert main(["inspect", "mine.yaml", *own, "--quick", "--json", "seen.json"]) in (0, 3)
    found = {finding["what"]: finding for finding in json.loads((here / "seen.json").read_text())["findings"]}
    assert found["statistics"]["said"] == "of 1 layers, recorded from 3 images"
    assert main(["distill", "mine.yaml", *own]) == 0
    out, err = capsys.readouterr()
    assert "teacher: statistics recorded from 3 images\n" in err
    assert "data-free: no real image was opened to train; 0 to measure; statistics recorded from 3 images\n" in out
    summary = json.loads((here / "run/summary.json").read_text())
    assert (summary["statistics_recorded_from"], summary["real_images_for_training"]) == (3, 0)
    assert "statistics recorded from 3 images" in (here / "run/student/README.md").read_text()
    bn = [json.loads(line)["bn"] for line in (here / "run/metrics.jsonl").read_text().splitlines() if '"bn"' in line]
    assert bn and all(0 < value < 10 for value in bn)


def test_a_run_goes_on_with_the_same_statistics_only(here, capsys) -> None:
    record = ["record", "mine.yaml", "photos", "--out", "s.safetensors", *OWN]
    distil = ["distill", "mine.yaml", *OWN, "teacher.statistics=s.safetensors", "--quiet"]
    assert main(record) == 0 and main([*distil, "run.steps=1"]) == 0
    (here / "photos/a.png").unlink()
    assert main(["record", "run", "photos", "--out", "s.safetensors", *OWN]) == 0
    capsys.readouterr()
    more = [*distil, "--accept", "run.steps"]
    assert main(more) == 2
    assert "run: teacher.statistics: another file than the run has begun with" in capsys.readouterr().err
    assert main([*more, "--accept", "teacher.statistics"]) == 0
    assert len(checkpoint.listed(here / "run/checkpoints")) == 2


@pytest.mark.parametrize("of_run", [False, True])
def test_the_next_command_is_of_the_same_recipe_teacher_and_values(here, capsys, of_run) -> None:
    named, recipe, own = "mine.yaml", "mine.yaml", "run.dir=runs/my own"
    values = ["synth.width=6", "teacher.statistics=old.safetensors", "--trust-pickle", *[own] * (not of_run)]
    if of_run:
        named, recipe, own = "runs/a run", "runs/a run/recipe.yaml", "run.dir=runs/a run-recorded"
        least = ["weights.bn=0", "synth.refine=0", "run.steps=1", f"run.dir={named}"]
        assert main(["distill", "mine.yaml", *OWN, *least]) == 0
        capsys.readouterr()
    assert main(["record", named, "photos", *values, "--out", "s 2.safetensors", *OWN]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    words = shlex.split(line.removeprefix("next: segkd distill "))
    assert words == [recipe, *OWN, "--trust-pickle", "synth.width=6", own, "teacher.statistics=s 2.safetensors"]
    assert main(["distill", *words, "--plan"]) == 0


def test_what_cannot_be_recorded_or_read_is_one_line(here, capsys) -> None:
    record = ["record", "mine.yaml", "photos", "--out", "s.safetensors", *OWN]
    (here / "photos/b.jpg").write_bytes((here / "photos/b.jpg").read_bytes()[:300])
    for arguments, code, words in (
        (record, 3, "photos/b.jpg: damaged JPEG"),
        (["record", "mine.yaml", "nowhere", *record[3:]], 3, "nowhere: no such folder"),
        ([*record[:3], "--out", "no/s.safetensors", *OWN], 2, "no/s.safetensors: no folder no to write to"),
        (
            ["distill", "mine.yaml", *OWN, "teacher.statistics=s.safetensors"],
            3,
            "s.safetensors: no such file; make it with",
        ),
    ):
        assert main(arguments) == code
        err = capsys.readouterr().err
        assert words in err and "bug" not in err, err
        assert not (here / "s.safetensors").exists() and not (here / "run/recipe.yaml").exists()
