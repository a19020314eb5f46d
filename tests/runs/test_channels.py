"""Teachers of grey images, and of more channels than red, green and blue: generator, readers and student follow."""

import json

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from segkd import builders, evaluate, load_student
from segkd.cli.main import main
from segkd.evaluation.inspection import pictures
from segkd.models.building import create_network
from segkd.recipe import load

pytestmark = pytest.mark.usefixtures("own_threads")
OPTIONS = {"channels": [16, 24, 32, 48], "stem_width": 8, "decoder_channels": 32}


@pytest.fixture
def recipe_of(tiny, tmp_path, monkeypatch):
    """The file of the tiny game's recipe, with a teacher of so many channels in place of its own."""
    monkeypatch.chdir(tmp_path)

    def written(channels, case, *overrides):
        torch.manual_seed(7)
        network = create_network("DeepLabV3Plus", "tu-resnet10t", 11, OPTIONS, channels=channels)
        with torch.no_grad():
            for _ in range(4):
                network.train()(torch.randn(4, channels, 32, 64))
            network.segmentation_head[0].weight *= 5
        save_file({k: v.contiguous() for k, v in network.state_dict().items()}, f"{channels}.safetensors")
        lists = (
            f"teacher.{key}=[{', '.join([value] * channels)}]" for key, value in (("mean", "0.5"), ("std", "0.25"))
        )
        short = ["run.dir=run", "run.threads=1", "run.steps=1", f"teacher.weights={tmp_path}/{channels}.safetensors"]
        if channels == 4:
            short.append("data.name=null")
        (tmp_path / "own.yaml").write_text(tiny.recipe(case, *short, *lists, *overrides).to_yaml())
        return tmp_path / "own.yaml"

    return written


@pytest.mark.parametrize("case", ["ddad.segkd", "ddad.segkd+SegNet"])
def test_a_grey_teacher_and_its_student(recipe_of, tiny, tmp_path, capsys, case):
    photos = f"{tiny.folder}/camvid/train"
    mixed = [
        "synth.mix={folder: 0.4, noise: 0.3}",
        f"synth.root={photos}",
        "run.batch=4",
        "synth.augment=[flip, collage]",
    ]
    file = recipe_of(1, case, *mixed, "data.name=camvid", "data.final=test")
    assert main(["distill", str(file)]) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["student_miou"] is not None and summary["student_flops"]
    sample = cv2.imread(str(next((tmp_path / "run" / "samples").iterdir())))[60:120, 40:100]
    assert (sample == sample[..., :1]).all()

    student = load_student("run")
    image = cv2.imread(f"{photos}/0.png")[..., ::-1]
    grey = np.asarray(Image.fromarray(image).convert("L"))
    x = (torch.tensor(grey)[None, None] / 255 - 0.5) / 0.25
    with torch.no_grad():
        wanted = student(x).argmax(1)[0].numpy()
    assert (student.predict(image) == wanted).all() and (student.predict(grey) == wanted).all()
    (tmp_path / "grey").mkdir()
    Image.fromarray(grey).save(tmp_path / "grey" / "it.png")
    assert main(["visualize", "run", "grey", "--kind", "mask", "--out", "drawn"]) == 0
    assert (np.asarray(Image.open("drawn/it_mask.png")) == wanted).all()
    if "SegNet" in case:
        with torch.no_grad():
            logits = torch.export.load("run/student/model.pt2").module()(torch.nn.functional.pad(x, (0, 0, 0, 32)))
        assert logits.shape[1:] == (11, 64, 64)
    assert evaluate("run")["miou"] == pytest.approx(summary["student_miou"], abs=0.05)
    assert main(["inspect", str(file), "--quick"]) in (0, 3) and "normalisation" in capsys.readouterr().out


def test_a_teacher_of_four_channels_and_its_student(recipe_of, tmp_path, capsys):
    file = recipe_of(4, "ddad.segkd", "synth.mix={noise: 0.5}")
    assert main(["distill", str(file)]) == 0
    out = capsys.readouterr().out
    assert "not measured: mIoU, since segkd reads RGB and grey pictures" in out and "segkd visualize" not in out
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["real_images_for_training"] == 0
    image = np.random.default_rng(0).integers(0, 256, (40, 70, 4), np.uint8)
    assert load_student("run").predict(image).shape == (40, 70)
    refused = (
        "takes images of 4 channels, and segkd reads RGB and grey pictures; load_student(DIR).predict takes arrays"
    )
    for command in (["eval", "run", "--data", "scenes"], ["visualize", "run", "photo.png", "--out", "drawn"]):
        Image.new("RGB", (8, 8)).save("photo.png")
        assert main(command) == 3
        err = capsys.readouterr().err
        assert refused in err and err.count("\n") == 1


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_the_images_that_show_a_teacher(recipe_of, channels):
    file = recipe_of(channels, "dfad", "data.name=null")
    teacher = builders.teacher_of(load(file).teacher)
    for images in pictures(teacher, (32, 64), 4).values():
        assert images.shape[1:] == (channels, 192, 256) and images.min() >= -2 and images.max() <= 2


def test_networks_that_take_rgb_alone_say_so(recipe_of, capsys):
    file = recipe_of(1, "dfad")
    others = [["teacher.arch=lraspp_mobilenet_v3_large", "teacher.encoder=null", "teacher.options=null"]]
    for other in others:
        assert main(["distill", str(file), *other]) == 2
        assert "takes RGB images, and the teacher's mean has 1 value" in capsys.readouterr().err
    assert main(["distill", str(file), "teacher.mean=[0.5, 0.5]", "teacher.std=[0.5, 0.5]", "data.name=null"]) == 3
    assert "made for images of 1 channels, where mean and std have 2 values" in capsys.readouterr().err
