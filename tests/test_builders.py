"""Data sets by their recipe names, with the classes that the networks have."""

import json
import math
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
from PIL import Image
from safetensors.torch import save_file

from segkd import builders
from segkd.builders.teaching import check_held_out
from segkd.data import catalogue
from segkd.data.classes import Classes, listed, numbered
from segkd.data.resize import resize_protocol
from segkd.data.samples import Sample
from segkd.data.sets.camvid import CAMVID
from segkd.data.sets.nyuv2 import NYUV2_13, NYUV2_40
from segkd.data.sets.scenes import SceneSet
from segkd.foundation.errors import DataError, RecipeError, TeacherError
from segkd.machine.batchnorm import SyncedBatchNorm2d
from segkd.machine.device import device_of
from segkd.models.building import create_network
from segkd.recipe import blocks, load
from segkd.runs import card
from segkd.runs.labelled import labelled
from segkd.runs.trained import device_and_bf16
from tests.data.folders import filled

TEACH = """\
model: {arch: Linknet, encoder: mobilenet_v2, classes: %s, options: {encoder_depth: 3}}
train: {optimizer: {name: sgd, lr: 0.1}, crop: [32, 32]}
data: {name: nyuv2, root: nyu, final: null}
run: {steps: 1, batch: 2, precision: fp32, device: cpu}
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A prepared NYUv2 of two frames to train on and one to test."""
    monkeypatch.chdir(tmp_path)
    for folder, count in (("images", 256), ("labels13", 14), ("labels40", 41)):
        Path("nyu", folder).mkdir(parents=True)
        for frame in (1, 2, 3):
            shape = (40, 48, 3) if folder == "images" else (40, 48)
            pixels = np.random.default_rng(frame).integers(0, count, shape, dtype=np.uint8)
            Image.fromarray(pixels).save(f"nyu/{folder}/000{frame}.png")
    Path("nyu/train.txt").write_text("1\n2\n")
    Path("nyu/test.txt").write_text("3\n")
    return tmp_path


@pytest.mark.parametrize(("asked", "found"), [(NYUV2_13, NYUV2_13), (numbered(13), NYUV2_13), (numbered(40), NYUV2_40)])
def test_nyuv2_comes_with_as_many_classes_as_are_asked_for(here: Path, asked: Classes, found: Classes):
    assert catalogue.dataset("nyuv2", "nyu", "test", asked).classes is found


def test_a_folder_of_ones_own_has_the_classes_that_it_says(here: Path):
    Path("own/images").mkdir(parents=True)
    Path("nyu/labels13").rename("own/masks")
    for path in Path("nyu/images").iterdir():
        path.rename(f"own/images/{path.name}")
    Path("own/train.txt").write_text("0001\n0003\n")
    names = ", ".join(f"thing {i}" for i in range(13))
    Path("own/dataset.yaml").write_text(f"classes: [{names}, void]\n")
    data = catalogue.dataset("folder", "own", "train", numbered(2))
    assert data.classes.name == "own" and data.classes.names[-1] == "void" and len(data) == 2
    Path("teach.yaml").write_text(
        TEACH.replace("name: nyuv2, root: nyu", "name: folder, root: own") % f"[{names}, void]"
    )
    recipe = load("teach.yaml")
    assert len(builders.teaching_of(recipe, torch.device("cpu"), False)[0].samples) == 2
    Path("own/dataset.yaml").write_text(f"classes: [void, {names}]\n")
    with pytest.raises(TeacherError, match="class 0 is 'thing 0' to the model, and 'void' in own"):
        builders.teaching_of(recipe, torch.device("cpu"), False)


@pytest.mark.parametrize("root", [".", "../own/", "${SEGKD_DATA}"])
def test_the_card_of_a_teacher_calls_its_folder_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: str):
    (tmp_path / "own").mkdir()
    monkeypatch.chdir(tmp_path / "own")
    monkeypatch.setenv("SEGKD_DATA", str(tmp_path / "own"))
    Path("teach.yaml").write_text(
        (TEACH % "[road, car]").replace("name: nyuv2, root: nyu", f"name: folder, root: '{root}'")
    )
    summary = {"student_miou": None, "student_parameters": 1e6, "recipe": "teach", "steps": 1, "seconds": 60.0,
               "machine": "a CPU", "precision": "fp32", "best_step": 1}  # fmt: skip
    text = card.of_file("teacher", load("teach.yaml"), summary)
    assert "1.00 M parameters, for own;" in text and "Licence: it follows that of the training images." in text


@pytest.mark.parametrize("name", ["cuda:99", *(["mps"] if not torch.backends.mps.is_available() else [])])
def test_a_device_that_torch_does_not_have(name: str):
    with pytest.raises(RecipeError, match=f"^run.device: {name}, but torch sees .*; set run.device=cpu$"):
        device_of(name)
    with pytest.raises(RecipeError, match=f"^--device: {name}, but torch sees .*; set --device=cpu$"):
        device_and_bf16(name, "auto")


def test_what_cannot_be_had(here: Path):
    for arguments, words in (
        (("nyuv2", "nyu", "test", CAMVID), "13 or 40 classes, not 11"),
        (("nyuv2", None, "test", NYUV2_13), "data.root"),
        (("nyuv2", "nowhere", "test", NYUV2_13), "nowhere: no such folder"),
        (("nyu", "nyu", "test", NYUV2_13), "there are .*camvid, .*nyuv2"),
    ):
        with pytest.raises(DataError, match=words):
            catalogue.dataset(*arguments)


def test_a_teacher_of_nyuv2(here: Path):
    Path("teach.yaml").write_text(TEACH % "nyuv2_13")
    game, network = builders.teaching_of(load("teach.yaml"), torch.device("cpu"), False)
    assert len(game.samples) == 2 and network.classes == 13
    assert all(math.isfinite(value) for value in game.play(0).values())
    for classes, words in (("camvid", "13 or 40"), (f"[{', '.join(NYUV2_13.names[::-1])}]", "class 0 is 'window' to")):
        Path("teach.yaml").write_text(TEACH % classes)
        with pytest.raises((DataError, TeacherError), match=words):
            builders.teaching_of(load("teach.yaml"), torch.device("cpu"), False)


@pytest.fixture
def large(here: Path) -> Path:
    """The same frames as files of 300x400, more than the protocol's 256."""
    for path in Path("nyu").glob("*/*.png"):
        Image.open(path).resize((400, 300), Image.Resampling.NEAREST).save(path)
    return here


@pytest.mark.parametrize("size", ["protocol", "original"])
def test_a_teacher_learns_at_the_size_at_which_it_is_measured(large: Path, size: str):
    Path("teach.yaml").write_text(TEACH % "nyuv2_13")
    recipe = load("teach.yaml", [] if size == "protocol" else ["data.size=original"])
    game, _ = builders.teaching_of(recipe, torch.device("cpu"), False)
    data = catalogue.dataset("nyuv2", "nyu", "train", NYUV2_13)
    assert [sample.image.shape for sample in data] == [(300, 400, 3)] * 2
    wanted = [resize_protocol(sample) if size == "protocol" else sample for sample in data]
    assert_same(game.samples, wanted)
    measured = labelled(recipe, "train")
    assert measured is not None
    assert_same(game.samples, [measured[index] for index in range(len(measured))])


@pytest.mark.parametrize("name", [
    "teachers/scenes", pytest.param("teachers/camvid", marks=[
        pytest.mark.realdata, pytest.mark.skipif("SEGKD_DATA" not in os.environ, reason="SEGKD_DATA is not set")]),
])  # fmt: skip
def test_the_kept_teachers_learn_from_their_files_as_they_are(monkeypatch: pytest.MonkeyPatch, name: str):
    monkeypatch.setitem(SceneSet.counts, "train", 3)
    recipe = load(name, ["model.weights=none"])
    assert recipe.data.size == "protocol"
    game, _ = builders.teaching_of(recipe, torch.device("cpu"), False)
    data = catalogue.dataset(recipe.data.name, recipe.data.root, "train", catalogue.classes_of(recipe.model.classes))
    assert len(data) == (367 if recipe.data.name == "camvid" else 3)
    assert_same(game.samples, data)


def assert_same(found: Iterable[Sample], wanted: Iterable[Sample]) -> None:
    for one, other in zip(found, wanted, strict=True):
        assert np.array_equal(one.image, other.image) and np.array_equal(one.mask, other.mask)


def test_names_of_teacher_and_data_are_compared(here: Path):
    data = catalogue.dataset("nyuv2", "nyu", "test", NYUV2_13)

    class Named:
        classes, channels = 13, 3
        names = NYUV2_13.names

    student = load("quickstart").student
    builders.check_classes(Named, student, data)
    Named.names = ("bad", *NYUV2_13.names[1:])
    with pytest.raises(TeacherError, match="class 0 is 'bad' to the teacher, and 'bed' in nyuv2_13; set"):
        builders.check_classes(Named, student, data)
    data.classes = listed("other", ["a", "b"])
    with pytest.raises(TeacherError, match=r"teacher 13, student 13, data 2 \(other\)"):
        builders.check_classes(Named, student, data)


def test_a_set_without_a_labelled_pixel_teaches_nobody(here: Path):
    Path("teach.yaml").write_text(TEACH % "nyuv2_13")
    for path in Path("nyu/labels13").iterdir():
        Image.fromarray(np.zeros((40, 48), np.uint8)).save(path)
    with pytest.raises(DataError, match="no pixel of the 2 images in train belongs to a class"):
        builders.teaching_of(load("teach.yaml"), torch.device("cpu"), False)


def test_a_folder_without_splits_is_not_both_taught_and_measured(tmp_path: Path):
    root = filled(tmp_path / "set", "images/a.png", "images/b.png", "masks/a.png", "masks/b.png")
    overrides = ["data.name=folder", f"data.root={root}", "model.classes=[road,car,tree]", "data.watch=null"]
    recipe = load("teachers/scenes", overrides, "teach")
    with pytest.raises(DataError, match=r"data\.final: the 2 images of train and test are the same; list them apart"):
        builders.teaching_of(recipe, torch.device("cpu"), False)
    (root / "train.txt").write_text("a\n")
    (root / "test.txt").write_text("b\n")
    check_held_out(recipe, catalogue.dataset("folder", str(root), "train", numbered(3)))


HALF = (
    "student.weights=teacher",
    "student.options.channels=[8, 12, 16, 24]",
    "student.options.stem_width=4",
    "student.options.decoder_channels=16",
)


def test_a_student_starts_from_every_second_channel_of_the_teacher(tiny, capsys: pytest.CaptureFixture[str]):
    game = tiny.game("ddad.segkd", *HALF)
    student, teacher = game.student.network.network.decoder, game.teacher.network.decoder
    assert torch.equal(student.aspp[0].convs[0][0].weight, teacher.aspp[0].convs[0][0].weight[::2, ::2])
    assert capsys.readouterr().err == ""


def test_tensors_that_the_teacher_has_not_are_told(tiny, capsys: pytest.CaptureFixture[str]):
    tiny.game("ddad.segkd", *HALF[:2], "student.options.stem_width=16")
    assert re.search(r"student.weights: \d+ of \d+ tensors start fresh, .* so large: encoder", capsys.readouterr().err)


def test_a_teacher_of_another_architecture_gives_no_weights(tiny):
    with pytest.raises(
        RecipeError, match="student.weights: teacher, but .*; set student.weights=none, or the teacher's"
    ):
        tiny.game("ddad.segkd+SegNet", "student.weights=teacher")


def test_weights_of_one_logit_are_those_of_two_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """As binary networks are trained: the file tells, whatever its prefix."""
    small = {"encoder_depth": 3, "decoder_channels": [8, 8, 8]}
    network = create_network("Unet", "tu-resnet10t", 1, {**small, "channels": [8, 8, 8, 8]})
    torch.save(
        {"state_dict": {f"model.{key}": value for key, value in network.state_dict().items()}}, tmp_path / "w.ckpt"
    )
    block = blocks.Teacher(
        arch="Unet", encoder="tu-resnet10t", classes=("background", "lesion"), weights=str(tmp_path / "w.ckpt"),
        options={**small, "channels": [8, 8, 8, 8]},
    )  # fmt: skip
    teacher, images = builders.teacher_of(block), torch.randn(1, 3, 32, 32)
    assert "teacher: one logit, of a sigmoid: above 0 it is lesion, below background" in capsys.readouterr().err
    torch.testing.assert_close(teacher(images).softmax(1)[:, 1:], network.eval()(images).sigmoid())


def test_the_averages_of_both_players_normalise_over_all_processes_too(tiny):
    game = tiny.game("ddad.segkd", "run.sync_bn=true", "synth.ema=0.9")
    for player in (game.student, game.source.player):
        for network in (player.network, player.ema_or_live):
            kinds = {type(module) for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)}
            assert kinds == {SyncedBatchNorm2d}


RATES = {"encoder_output_stride": 8, "decoder_atrous_rates": [6, 12, 18]}
DESCRIBED = {"arch": "DeepLabV3Plus", "encoder": "tu-resnet10t", "options": RATES}
NARROW = {"channels": [8, 8, 8, 8], "stem_width": 8, "decoder_channels": 8}
SAYS = "config.json: the network was made with "


@pytest.fixture(scope="module")
def from_smp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that smp wrote, of a network whose rates leave no trace in its tensors' shapes."""
    folder = tmp_path_factory.mktemp("smp") / "os8"
    network = smp.DeepLabV3Plus("tu-resnet10t", encoder_weights=None, classes=3, **RATES, **NARROW)
    network.save_pretrained(folder)
    return folder


def teacher_block(weights: Path, **said: object) -> blocks.Teacher:
    asked = DESCRIBED | {"classes": ["a", "b", "c"], "weights": str(weights)} | said
    asked["options"] = {**NARROW, **asked["options"]}
    return blocks.Teacher.model_validate(asked)


def test_a_folder_of_smp_is_taken_where_the_recipe_makes_its_network(from_smp: Path):
    for weights, arch in ((from_smp, "DeepLabV3Plus"), (from_smp / "model.safetensors", "deeplabv3plus")):
        network = builders.trained_network(teacher_block(weights, arch=arch))
        assert network.encoder.output_stride == 8


@pytest.mark.parametrize(
    ("said", "line"),
    [
        (
            {"options": {}},
            "encoder_output_stride 8 (the recipe's is 16), decoder_atrous_rates [6, 12, 18] ([12, 24, 36]); set"
            " teacher.options='{encoder_output_stride: 8, decoder_atrous_rates: [6, 12, 18]}'",
        ),
        (
            {"options": RATES | {"decoder_aspp_dropout": 0.25, "act_layer": "gelu", "encoder_depth": None}},
            "act_layer null (the recipe's is gelu); set teacher.options='{act_layer: null}'",
        ),
        ({"encoder": "tu-resnet14t"}, "encoder tu-resnet10t (the recipe's is tu-resnet14t); set teacher.encoder=tu-resnet10t"),
        ({"arch": "DeepLabV3"}, "arch DeepLabV3Plus (the recipe's is DeepLabV3); set teacher.arch=DeepLabV3Plus"),
        (
            {"arch": "SegNet", "encoder": None, "options": RATES | {"width": 8}},
            "arch DeepLabV3Plus (the recipe's is SegNet), encoder tu-resnet10t (null), width null (8); set"
            " teacher.arch=DeepLabV3Plus teacher.encoder=tu-resnet10t teacher.options='{width: null}'",
        ),
    ],
)  # fmt: skip
def test_another_network_than_a_folder_of_smp_describes_is_refused(from_smp: Path, said: dict[str, object], line: str):
    for weights in (from_smp, from_smp / "model.safetensors"):
        with pytest.raises(TeacherError) as caught:
            builders.trained_network(teacher_block(weights, **said))
        assert str(caught.value) == f"{from_smp}/{SAYS}{line}"


def test_a_segnet_that_upsamples_otherwise_is_refused(tmp_path: Path):
    network = create_network("SegNet", None, 3, {"width": 2, "upsample": "bilinear"})
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(network.config))
    asked = {"arch": "SegNet", "encoder": None, "classes": ["a", "b", "c"], "weights": str(tmp_path)}
    with pytest.raises(
        TeacherError,
        match=f"{SAYS}upsample bilinear .the recipe's is unpool.; set teacher.options='{{upsample: bilinear}}'",
    ):
        builders.trained_network(blocks.Teacher.model_validate(asked | {"options": {"width": 2}}))
    builders.trained_network(blocks.Teacher.model_validate(asked | {"options": {"width": 2, "upsample": "bilinear"}}))


def test_what_no_recipe_can_say_wants_the_networks_code(from_smp: Path, tmp_path: Path):
    folder = Path(shutil.copytree(from_smp, tmp_path / "os8"))
    config = json.loads((folder / "config.json").read_text()) | {"decoder_aspp_separable": {"of": [1, "a, b\n"]}}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(TeacherError) as caught:
        builders.trained_network(teacher_block(folder))
    assert str(caught.value) == (
        f'{folder}/{SAYS}decoder_aspp_separable {{of: [1, "a, b\\n"]}} (the recipe\'s is true); a recipe cannot say that of'
        " decoder_aspp_separable: bring the network with its code (--teacher-file, docs/own_teacher.md)"
    )


@pytest.mark.parametrize(
    "text", [None, "", "[1]", "{", "[" * 100_000, "\ud800", '{"model_type": "segformer", "encoder_output_stride": 4}',
             '{"_model_class": "Mine", "encoder_output_stride": 4}', '{"_model_class": "FPN"}', " " * 1_000_001 + "{}"]
)  # fmt: skip
def test_a_damaged_or_foreign_config_is_not_compared(from_smp: Path, tmp_path: Path, text: str | None):
    folder = Path(shutil.copytree(from_smp, tmp_path / "os8"))
    (folder / "config.json").unlink()
    if text is not None:
        (folder / "config.json").write_bytes(text.encode(errors="surrogatepass"))
    builders.trained_network(teacher_block(folder, options={"encoder_output_stride": 8}))
