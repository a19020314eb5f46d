"""SegNet from recipe to folder: distilled from a DeepLab, taught from labels, and as the teacher of another student."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from segkd import evaluate, load_student, runs
from segkd.cli.main import main
from segkd.delivery import folder as delivered
from segkd.foundation.errors import UsageError
from segkd.models.adapters import parameters_of
from segkd.models.families.segnet import SegNet
from segkd.recipe import load
from segkd.runs.trained import load_model
from segkd.training import checkpoint

TEACH = """\
model: {arch: SegNet, classes: camvid, options: {width: 2}}
train: {optimizer: {name: sgd, lr: 0.05}, crop: [32, 64], ema: 0.5}
data: {name: camvid, root: camvid, watch: val}
run: {steps: 6, batch: 4, device: cpu, precision: fp32, threads: 1, eval_every: 3, save_every: 3}
output: taught.safetensors
"""
QUIET = runs.Options(name="tiny", quiet=True)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """What a run sets for its process is put back."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def distilled(tiny, tmp_path_factory):
    """The folder and the summary of a tiny run whose student is a SegNet and whose teacher is a DeepLab."""
    folder = tmp_path_factory.mktemp("segnet") / "run"
    values = [f"run.dir={folder}", "run.threads=1", "data.name=camvid", "data.watch=val"]
    return folder, runs.distill(tiny.recipe("ddad.segkd+SegNet", *values), QUIET)


def test_a_segnet_learns_from_a_deeplab(distilled):
    folder, summary = distilled
    student = load_student(folder)
    assert isinstance(student.network, SegNet)
    assert summary["student_parameters"] == parameters_of(student) == parameters_of(SegNet(11, 2))
    assert summary["real_images_for_training"] == summary["refused_moves"] == 0
    assert summary["steps"] == 4 and 0 <= summary["student_miou"] <= 1
    state = checkpoint.load(checkpoint.listed(folder / "checkpoints")[0])["game"]
    averaged = {key.removeprefix("module."): value for key, value in state["student"]["average"].items()}
    averaged |= state["student"]["statistics"]
    saved = load_file(folder / "student" / "model.safetensors")
    assert all(torch.equal(value, averaged[f"network.{key}"]) for key, value in saved.items())
    assert {tuple(kept.shape) for kept in state["replay"]["logits"]} == {(2, 11, 8, 16)}


def test_it_is_measured_alike_wherever_it_lies(distilled, tiny):
    folder, summary = distilled
    (newest, *_) = checkpoint.listed(folder / "checkpoints")
    x = torch.randn(1, 3, 40, 70)
    with torch.inference_mode():
        logits = [load_model(source).network(x) for source in (folder, folder / "student", newest)]
    assert all(torch.equal(logits[0], other) for other in logits[1:])
    for source in (folder, newest):
        assert evaluate(source, device="cpu")["miou"] == summary["student_miou"]
    scores = evaluate(load_student(folder), data="camvid", root=str(tiny.folder / "camvid"), device="cpu")
    assert scores["images"] == 2


def test_its_program_says_what_its_weights_say(distilled):
    student = load_student(distilled[0])
    program = torch.export.load(distilled[0] / "student" / "model.pt2").module()
    images = torch.randn(3, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(program(images), student(images), rtol=1e-4, atol=1e-5)


def test_the_command_line_measures_and_draws_it(distilled, tiny, tmp_path, capsys):
    folder, summary = distilled
    arguments = ["eval", str(folder), "--device", "cpu", "--json", str(tmp_path / "scores.json")]
    assert main(arguments) == 0
    assert json.loads((tmp_path / "scores.json").read_text())["miou"] == summary["student_miou"]
    image = tiny.folder / "camvid" / "test" / "0.png"
    arguments = ["visualize", str(folder), str(image), "--out", str(tmp_path), "--kind", "mask", "--device", "cpu"]
    assert main(arguments) == 0
    (wanted,) = load_student(folder).predict([np.array(Image.open(image).convert("RGB"))])
    assert (np.asarray(Image.open(tmp_path / "0_mask.png")) == wanted).all()
    capsys.readouterr()


@pytest.fixture(scope="module")
def taught(tiny):
    """A SegNet that was taught on the four images, as a recipe, a summary and a weights file."""
    (tiny.folder / "segnet.yaml").write_text(TEACH)
    recipe = load(tiny.folder / "segnet.yaml", [f"data.root={tiny.folder}/camvid", f"run.dir={tiny.folder}/taught"])
    with pytest.MonkeyPatch.context() as patch:  # seconds each time; what is in it shows where one is distilled
        patch.setattr(delivered, "program_bytes", lambda *given: b"a program")
        return runs.teach(recipe, QUIET), tiny.folder / "taught.safetensors"


def test_a_segnet_is_taught_and_its_card_names_no_encoder(taught, tiny):
    summary, weights = taught
    assert summary["student_miou"] is not None and summary["best_step"] in (3, 6)
    card = (tiny.folder / "taught" / "model" / "README.md").read_text()
    assert (
        "Taught by segkd on camvid train (4 images)" in card and f"mIoU {summary['student_miou']:.4f} on camvid" in card
    )
    card = weights.with_suffix(".md").read_text()
    assert "\nSegNet, 0.03 M parameters, for camvid;" in card and "None" not in card
    own, model = load_student(tiny.folder / "taught").network, load_model(tiny.folder / "segnet.yaml", "teacher")
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(own(x), model.network(x))  # the file, and the folder that was saved after it
    assert (tiny.folder / "taught" / "model" / "model.pt2").is_file()


def test_a_taught_run_is_not_that_of_images_of_another_size(taught, tiny):
    values = [f"data.root={tiny.folder}/camvid", f"run.dir={tiny.folder}/taught"]
    assert runs.teach(load(tiny.folder / "segnet.yaml", values), QUIET) == taught[0]
    with pytest.raises(UsageError, match=r"a finished run of another recipe \(data.size\)"):
        runs.teach(load(tiny.folder / "segnet.yaml", [*values, "data.size=original"]), QUIET)


def test_a_segnet_teaches_a_deeplab_with_its_statistics(taught, tiny, tmp_path):
    values = ["teacher.arch=SegNet", "teacher.encoder=null", f"teacher.weights={taught[1]}", f"run.dir={tmp_path / 'run'}",
              "teacher.options={channels: null, stem_width: null, decoder_channels: null, width: 2}"]  # fmt: skip
    game = tiny.game("ddad.segkd", *values)
    assert len(game.networks.statistics.layers) == 25
    assert game.play(0)["bn"] > 0
    with torch.no_grad():
        assert len(game.networks.teacher_outputs(torch.rand(2, 3, 32, 64), {"statistics"})["statistics"]) == 25
    assert game.bank.logits[0].shape == (2, 11, 32, 64)  # its head is as large as the image


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("{widht: 16}", "student.options: SegNet has no option 'widht'; it has upsample, width"),
        (
            "{upsample: nearest}",
            "student: SegNet cannot be built: upsample: expected unpool or bilinear, not 'nearest'",
        ),
        ("{width: 0}", "student: SegNet cannot be built: width: expected a whole number 1..1024, not 0"),
    ],
)
def test_a_wrong_option_ends_the_command_with_one_line(tiny, tmp_path, capsys, option, told):
    recipe = tmp_path / "wrong.yaml"
    recipe.write_text(tiny.path.read_text().replace("weights: teacher", f"weights: {tiny.folder}/teacher"))
    values = ["student.arch=SegNet", "student.encoder=null", f"run.dir={tmp_path / 'run'}",
              f"student.options={{channels: null, stem_width: null, decoder_channels: null, {option[1:]}"]  # fmt: skip
    assert main(["distill", str(recipe), *values, "--quiet"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == told
    assert not (tmp_path / "run").exists()
