"""A network of torchvision as a student: distilled from a DeepLab, from a backbone's weights on, and taught from labels."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from torchvision.models import segmentation

from segkd import evaluate, load_student, runs
from segkd.foundation.errors import RecipeError
from segkd.models.adapters import parameters_of
from segkd.models.families.torchvision import made
from segkd.recipe import load

LRASPP = "lraspp_mobilenet_v3_large"
PLAIN = "{channels: null, stem_width: null, decoder_channels: null}"
STUDENT = (f"student.arch={LRASPP}", "student.encoder=null", f"student.options={PLAIN}", "run.steps=2")
TEACH = f"""\
model: {{arch: {LRASPP}, classes: camvid}}
train: {{optimizer: {{name: sgd, lr: 0.05}}, crop: [32, 64]}}
data: {{name: camvid, root: camvid}}
run: {{steps: 1, batch: 2, device: cpu, precision: fp32, threads: 1}}
output: taught.safetensors
"""
QUIET = runs.Options(name="tiny", quiet=True)
pytestmark = pytest.mark.usefixtures("own_threads")


def test_it_learns_from_a_deeplab_and_begins_with_a_backbone(tiny, tmp_path):
    torch.manual_seed(5)
    save_file(made(LRASPP, 2).backbone.state_dict(), tmp_path / "backbone.safetensors")
    start = tiny.game("ddad.segkd", *STUDENT, f"student.weights={tmp_path / 'backbone.safetensors'}")
    begun = start.student.network.network.backbone.state_dict()
    assert all(torch.equal(value, begun[key]) for key, value in load_file(tmp_path / "backbone.safetensors").items())
    values = [f"run.dir={tmp_path / 'run'}", "run.threads=1", "data.name=camvid"]
    summary = runs.distill(tiny.recipe("ddad.segkd", *STUDENT, *values), QUIET)
    student = load_student(tmp_path / "run")
    assert isinstance(student.network, segmentation.LRASPP) and student.network.config["_model_class"] == LRASPP
    assert summary["student_parameters"] == parameters_of(student) and 0 <= summary["student_miou"] <= 1
    assert evaluate(tmp_path / "run", device="cpu")["miou"] == summary["student_miou"]


def test_a_head_of_another_stride_is_refused(tiny):
    with pytest.raises(RecipeError, match="game.logits: head"):
        tiny.game("ddad.segkd", *STUDENT, "game.logits=head")


@pytest.mark.slow
def test_it_is_taught_from_labels_and_then_teaches(tiny, tmp_path):
    (tmp_path / "teach.yaml").write_text(TEACH)
    values = [f"data.root={tiny.folder}/camvid", f"run.dir={tmp_path / 'taught'}"]
    runs.teach(load(tmp_path / "teach.yaml", values, "teach"), QUIET)
    assert load_student(tmp_path / "taught").network.config["classes"] == 11
    values = [f"teacher.arch={LRASPP}", "teacher.encoder=null", f"teacher.options={PLAIN}", "teacher.recipe=null",
              f"teacher.weights={tmp_path / 'taught.safetensors'}", f"run.dir={tmp_path / 'run'}", "run.steps=1"]  # fmt: skip
    assert runs.distill(tiny.recipe("ddad.segkd", *values), QUIET)["steps"] == 1
