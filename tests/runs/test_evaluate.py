"""Finding a network wherever it lies, scoring it, and drawing its masks."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from segkd import evaluate, load_student
from segkd import visualize as draw_from_python
from segkd.cli.main import main
from segkd.data.classes import IGNORE, Classes, listed, numbered
from segkd.data.images import read_image, read_mask
from segkd.data.sets.camvid import CAMVID
from segkd.data.sets.nyuv2 import NYUV2_13, NYUV2_40
from segkd.data.sets.scenes import SCENES
from segkd.delivery.folder import save_network
from segkd.evaluation.confusion import confusion_picture
from segkd.evaluation.evaluate import predict
from segkd.evaluation.inference import Inference
from segkd.evaluation.visualize import overlay
from segkd.foundation.errors import DataError, NumbersError, StorageError, TeacherError, UsageError
from segkd.models.adapters import Adapter
from segkd.models.building import create_network
from segkd.recipe import load
from segkd.runs.evaluate import evaluate as measure
from segkd.runs.trained import Model, load_guide, load_model
from segkd.runs.visualize import plan_drawings, read_job, visualize
from segkd.training import checkpoint

DISTILL = """\
method: ddad
teacher: {arch: Linknet, encoder: mobilenet_v2, classes: camvid, weights: teacher.safetensors, recipe: teachers/toy,
          options: {encoder_depth: 3}, mean: [0.4, 0.4, 0.4], std: [0.2, 0.2, 0.2]}
student: {arch: Linknet, encoder: mobilenet_v2, options: {encoder_depth: 3}, optimizer: {name: sgd, lr: 0.1}, ema: 0.5}
synth: {kind: noise, size: [32, 32]}
data: {name: camvid, root: camvid, final: test}
run: {steps: 2, batch: 2, precision: fp32}
"""
TEACH = """\
model: {arch: Linknet, encoder: mobilenet_v2, classes: camvid, options: {encoder_depth: 3}, mean: [0.4, 0.4, 0.4],
        std: [0.2, 0.2, 0.2]}
train: {optimizer: {name: sgd, lr: 0.1}, crop: [32, 32], ema: 0.5}
data: {name: camvid, root: camvid}
run: {steps: 2, batch: 2, precision: fp32}
output: teacher.safetensors
"""
KEYS = ["miou", "per_class", "pixel_accuracy", "fw_iou", "absent", "images", "size", "confusion", "options", "notes"]
PLAIN = {
    "data": "camvid",
    "split": "test",
    "size": "protocol",
    "shorter_side": 256,
    "slide": None,
    "scales": [1.0],
    "flip": False,
}


class Brightness(nn.Module):
    """Class 0 for dark pixels, class 1 for bright ones: masks that are known beforehand."""

    def __init__(self, classes: int = len(CAMVID)) -> None:
        super().__init__()
        self.classes = classes

    def forward(self, x: Tensor) -> Tensor:
        logits = torch.full((len(x), self.classes, *x.shape[-2:]), -9.0)
        logits[:, 0], logits[:, 1] = -x[:, 0], x[:, 0]
        return logits


BRIGHTNESS = Model(Brightness(), CAMVID, (0.5,) * 3, (0.5,) * 3)


def picture(path: Path, seed: int = 0, size: tuple[int, int] = (24, 40)) -> np.ndarray:
    image = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return image


def mask(path: Path, image: np.ndarray, void_rows: int = 0) -> None:
    """The labels that `Brightness` finds, with CamVid's id for void in the first rows."""
    labels = (image[..., 0] > 127).astype(np.uint8)
    labels[:void_rows] = 11
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(labels).save(path)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for index in range(3):
        mask(Path(f"camvid/testannot/{index}.png"), picture(Path(f"camvid/test/{index}.png"), index), void_rows=4)
    return tmp_path


@pytest.fixture(scope="module")
def networks() -> dict[str, Adapter]:
    """Four networks of one kind that disagree: as taught, as averaged, as live, and the teacher."""
    found = {}
    for seed, name in enumerate(("taught", "average", "live", "teacher")):
        torch.manual_seed(seed)
        network = create_network("Linknet", "mobilenet_v2", len(CAMVID), {"encoder_depth": 3})
        found[name] = Adapter(network, len(CAMVID)).eval()
    return found


def player(live: Adapter, average: Adapter) -> dict:
    """As `Player.state()` has it."""
    averaged = {f"module.{key}": value for key, value in average.state_dict().items()}
    return {"network": live.state_dict(), "optimizer": {}, "average": {"n_averaged": torch.tensor(1), **averaged}}


@pytest.fixture
def run(here: Path, networks: dict[str, Adapter]) -> Path:
    """What a distil run leaves: recipe, checkpoint and student (the averaged one), with its teacher beside the recipe."""
    (here / "toy.yaml").write_text(DISTILL)
    recipe = load("toy.yaml")
    folder = here / "runs" / "toy"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "recipe.yaml").write_text(f"# segkd: 0\n{recipe.to_yaml()}")
    game = {"student": player(networks["live"], networks["average"])}
    checkpoint.save(
        folder / "checkpoints", 2, {"step": 2, "recipe": recipe.as_dict(), "environment": {}, "game": game}, 2
    )
    save(networks["average"], folder / "student")
    (here / "teach.yaml").write_text(TEACH)
    save_file(networks["teacher"].network.state_dict(), here / "teacher.safetensors")
    return folder


def save(network: Adapter, folder: Path, classes: Classes = CAMVID, shorter_side: int | None = 256) -> None:
    save_network(network.network, folder, names=classes.names, palette=classes.palette, mean=[0.4] * 3, std=[0.2] * 3,
                 stride=network.stride, shorter_side=shorter_side)  # fmt: skip


def same(model: Model, network: Adapter) -> bool:
    x = torch.randn(1, 3, 40, 56, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        return torch.equal(model.network(x), network(x))


def checkpoint_of(run: Path) -> Path:
    return next((run / "checkpoints").iterdir())


def test_a_run_and_its_parts(run: Path, networks: dict[str, Adapter]) -> None:
    for source, data in ((run, "camvid"), (run / "student", None), (checkpoint_of(run), "camvid")):
        model = load_model(source)
        assert same(model, networks["average"]) and model.classes == CAMVID and model.who == "student"
        assert tuple(model.mean) == (0.4,) * 3 and tuple(model.std) == (0.2,) * 3
        assert (model.recipe.data.name if model.recipe else None) == data
        assert not any(module.training for module in model.network.modules())


def test_the_headline_chooses_the_weights_of_a_checkpoint(run: Path, networks: dict[str, Adapter]) -> None:
    assert same(load_model(checkpoint_of(run), overrides=["run.headline=last"]), networks["live"])
    assert not same(load_model(checkpoint_of(run)), networks["live"])


def test_the_teacher_of_a_run_a_checkpoint_and_a_recipe(run: Path, networks: dict[str, Adapter]) -> None:
    for source in (run, checkpoint_of(run), "toy.yaml", "teach.yaml"):
        model = load_model(source, "teacher")
        assert same(model, networks["teacher"]) and model.who == "teacher"


def test_a_taught_network(here: Path, networks: dict[str, Adapter]) -> None:
    (here / "teach.yaml").write_text(TEACH)
    recipe = load("teach.yaml")
    folder = here / "runs" / "teach"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "recipe.yaml").write_text(recipe.to_yaml())
    save(networks["taught"], folder / "model")
    game = {"player": player(networks["live"], networks["average"])}
    file = checkpoint.save(folder / "checkpoints", 1, {"step": 1, "recipe": recipe.as_dict(), "game": game}, 1)
    assert same(load_model(folder), networks["taught"])
    assert same(load_model(file), networks["average"])
    assert load_student(folder).names == CAMVID.names
    assert load_model(folder).who == "teacher"


def test_what_cannot_be_loaded(run: Path, here: Path) -> None:
    (here / "weights.pt").write_bytes(b"")
    for source, who, overrides, words in (
        ("nowhere", None, (), "no such"),
        ("weights.pt", None, (), "not a student folder"),
        ("toy.yaml", None, (), "--who teacher"),
        (run / "student", None, ("run.seed=1",), "no recipe to change"),
        (checkpoint_of(run), None, ("run.sede=1",), "sede"),
    ):
        with pytest.raises(UsageError, match=words):
            load_model(source, who, overrides)
    with pytest.raises(TeacherError, match="neither"):
        load_model("camvid")
    (here / "teacher.safetensors").unlink()
    with pytest.raises(TeacherError, match="segkd teach teachers/toy"):
        load_model("toy.yaml", "teacher")
    file = checkpoint_of(run)
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(StorageError, match="damaged"):
        load_model(file)


def test_eval_takes_its_data_from_the_recipe(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", str(run), "--device", "cpu", "--json", "scores.json", "--csv", "scores.csv"]) == 0
    scores = json.loads(Path("scores.json").read_text())
    assert list(scores) == KEYS and list(scores["per_class"]) == list(CAMVID.names)
    assert scores["images"] == 3 and scores["size"] == [24, 40]
    assert scores["options"] == PLAIN | {"precision": "fp32"}
    assert np.shape(scores["confusion"]) == (11, 11) and np.sum(scores["confusion"]) == 3 * 20 * 40  # 4 rows are void
    assert f"mIoU                    {scores['miou']:.4f}" in capsys.readouterr().out
    assert Path("scores.csv").read_text().startswith("class,iou\nsky,")
    given = evaluate(load_student(run), data="camvid", root="camvid", split="test", device="cpu", precision="fp32")
    assert given == scores == evaluate(run, device="cpu")
    assert evaluate(run, who="teacher", device="cpu") != scores


def test_windows_scales_and_mirror_images_alike_from_everywhere(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--slide", "32x32", "--scales", "0.5,1", "--flip", "--size", "original", "--device", "cpu"]
    assert main(["eval", str(run), *flags, "--json", "scores.json", "--confusion", "line.png"]) == 0
    scores = json.loads(Path("scores.json").read_text())
    used = {
        "size": "original",
        "shorter_side": None,
        "slide": [32, 32],
        "scales": [0.5, 1.0],
        "flip": True,
        "precision": "fp32",
    }
    assert scores["options"] == PLAIN | used
    how = {"slide": (32, 32), "scales": [0.5, 1], "flip": True, "size": "original", "device": "cpu"}
    assert evaluate(run, **how, confusion="python.png") == scores
    assert Path("line.png").read_bytes() == Path("python.png").read_bytes()
    assert (read_image("line.png") == confusion_picture(scores["confusion"], scores["per_class"], scores["miou"])).all()
    plain = evaluate(run, device="cpu")
    for one in ({"slide": (32, 32)}, {"scales": (0.5, 1.0)}, {"flip": True}):
        other = evaluate(run, device="cpu", **one)
        assert other["confusion"] != plain["confusion"] and np.sum(other["confusion"]) == 3 * 20 * 40
    assert evaluate(run, device="cpu", slide=(24 + 8, 40 + 24))["images"] == 3  # a window larger than the images


def test_bad_options_are_told_before_any_network_is_loaded(here: Path) -> None:
    for options, words in (
        ({"slide": (0, 3)}, "slide 0x3"),
        ({"scales": ()}, "scales"),
        ({"confusion": "no/such/c.png"}, "no folder"),
        ({"confusion": "camvid"}, "is a folder"),
    ):
        with pytest.raises(UsageError, match=words):
            evaluate("no such model", **options)


def test_a_perfect_network_scores_one_and_void_does_not_count(here: Path) -> None:
    scores = measure(BRIGHTNESS, data="camvid", root="camvid", device="cpu", precision="fp32")
    assert scores["miou"] == 1.0 and scores["absent"] == list(CAMVID.names[2:])


def test_eval_needs_data_of_the_same_classes(here: Path) -> None:
    with pytest.raises(UsageError, match="--data"):
        measure(BRIGHTNESS)
    with pytest.raises(DataError, match="classes disagree"):
        measure(BRIGHTNESS, data="scenes")
    with pytest.raises(UsageError, match="device"):
        measure(BRIGHTNESS, data="camvid", root="camvid", device="gpu")
    with pytest.raises(DataError, match="data.root"):
        measure(BRIGHTNESS, data="camvid")
    assert SCENES != CAMVID


@pytest.fixture
def sets(here: Path) -> dict[str, str]:
    """The same three images as a NYUv2 (void is 0, classes count from 1) and as a folder with ids of its own."""
    for index in range(3):
        image = picture(Path(f"nyu/images/000{index + 1}.png"), index)
        labels = (image[..., 0] > 127).astype(np.uint8)
        for file, ids in (
            (f"nyu/labels13/000{index + 1}.png", labels + 1),
            (f"own/masks/test/{index}.png", labels * 9 + 20),
        ):
            ids[:4] = 0
            Path(file).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(ids).save(file)
        picture(Path(f"own/images/test/{index}.png"), index)
    Path("nyu/train.txt").write_text("")
    Path("nyu/test.txt").write_text("3\n1\n2\n")
    Path("own/dataset.yaml").write_text("classes: [dark, bright]\nremap: {20: dark, 29: bright}\nignore: 0\n")
    return {"nyuv2": "nyu", "folder": "own"}


def test_a_perfect_network_scores_one_on_every_kind_of_set(sets: dict[str, str]) -> None:
    for name, classes in (("nyuv2", NYUV2_13), ("nyuv2", numbered(13)), ("folder", numbered(2)), ("folder", listed("x", ["Dark", "bright"]))):  # fmt: skip
        model = Model(Brightness(len(classes)), classes, (0.5,) * 3, (0.5,) * 3)
        scores = measure(model, data=name, root=sets[name], device="cpu", precision="fp32")
        assert scores["miou"] == 1.0 and scores["images"] == 3 and scores["pixel_accuracy"] == 1.0
        assert list(scores["per_class"])[:2] == (["bed", "books"] if name == "nyuv2" else ["dark", "bright"])


@pytest.mark.parametrize(
    ("name", "classes", "words"),
    [
        ("nyuv2", CAMVID, "13 or 40 classes, not 11"),
        ("nyuv2", listed("x", [*NYUV2_13.names[1:], "bed"]), "class 0 is 'books' to the model, and 'bed' in nyuv2_13"),
        ("nyuv2", NYUV2_40, "labels40: no such folder"),
        ("folder", listed("x", ["bright", "dark"]), "class 0 is 'bright' to the model, and 'dark' in own"),
        ("folder", CAMVID, r"classes disagree: model 11, data 2 \(own\)"),
    ],
)
def test_other_classes_are_refused_before_a_network_runs(sets: dict[str, str], name: str, classes: Classes, words: str) -> None:  # fmt: skip
    with pytest.raises(DataError, match=words):
        measure(Model(nn.Identity(), classes, (0.5,) * 3, (0.5,) * 3), data=name, root=sets[name], device="cpu")


def test_a_student_of_nyuv2_is_known_by_its_class_names(sets: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    network = Adapter(create_network("Linknet", "mobilenet_v2", 13, {"encoder_depth": 3}), 13).eval()
    save(network, Path("student"), NYUV2_13)
    model = load_model("student")
    assert model.classes is NYUV2_13
    assert main(["eval", "student", "--data", "nyuv2", "--root", "nyu", "--device", "cpu", "--json", "s.json"]) == 0
    assert list(json.loads(Path("s.json").read_text())["per_class"]) == list(NYUV2_13.names)
    assert main(["eval", "student", "--data", "folder", "--root", "own", "--device", "cpu"]) == 3
    assert "model 13, data 2" in capsys.readouterr().err
    (job,) = plan_drawings(["nyu/images/0001.png"], "out", "panel", NYUV2_13, "nyu/labels13")
    truth = np.where(read_image("nyu/images/0001.png")[..., 0] > 127, 1, 0)
    truth[:4] = IGNORE
    assert (read_job(job, NYUV2_13)[1] == truth).all()


@pytest.mark.parametrize(
    ("described", "mask"),
    [
        ("remap: {7: b, 0: a, 12: ignore}", np.array([[7, 12], [0, 7]], np.uint8)),
        ("labels: colours\nignore: [[9, 9, 9]]", np.array([[[2] * 3, [9] * 3], [[1] * 3, [3] * 3]], np.uint8)),
    ],
    ids=["remap", "colours"],
)
def test_ground_truth_means_what_its_folder_says(here: Path, described: str, mask: np.ndarray) -> None:
    """A description beside the masks outranks what the model's classes would have made of the ids."""
    (here / "own/images/val").mkdir(parents=True)
    (here / "own/masks/val").mkdir(parents=True)
    classes = "classes: {a: [1, 1, 1], b: [[2, 2, 2], [3, 3, 3]]}\n"
    (here / "own/dataset.yaml").write_text(classes + described + "\n")
    Image.fromarray(np.zeros((2, 2, 3), np.uint8)).save("own/images/val/x.png")
    Image.fromarray(mask).save("own/masks/val/x.png")
    two = listed("two", ["a", "b"])
    (job,) = plan_drawings(["own/images/val"], "out", "panel", two, "own/masks/val")
    assert read_job(job, two)[1].tolist() == [[1, IGNORE], [0, 1]]
    with pytest.raises(DataError, match="classes disagree: model 11, data 2"):
        plan_drawings(["own/images/val"], "out", "panel", CAMVID, "own/masks/val")


def draw(*sources: str, kind: str = "mask", masks: str | None = None, teacher: Model | None = None) -> list[Path]:
    jobs = plan_drawings(sources, "out", kind, CAMVID, masks)
    visualize(BRIGHTNESS, jobs, kind, teacher=teacher, device="cpu", precision="fp32")
    assert sorted(job.out for job in jobs) == sorted(Path("out").iterdir())
    return [job.out for job in jobs]


def test_other_classes_of_a_teacher_are_told_before_anything_is_drawn(here: Path) -> None:
    swapped = listed("swapped", [CAMVID.names[1], CAMVID.names[0], *CAMVID.names[2:]])
    for classes, words in ((listed("two", ["a", "b"]), "teacher 2"), (swapped, "class 0 is 'building' to the teacher")):
        teacher = replace(BRIGHTNESS, classes=classes)
        with pytest.raises(DataError, match=words):
            draw("camvid/test/0.png", kind="panel", teacher=teacher)
    assert not Path("out").exists()


def test_mask_and_overlay(here: Path) -> None:
    image = picture(here / "a.jpg")
    image = read_image("a.jpg")
    expected = (image[..., 0] > 127).astype(np.uint8)
    (file,) = draw("a.jpg")
    assert file == Path("out/a_mask.png") and (read_mask(file) == expected).all()
    assert (np.asarray(Image.open(file).convert("RGB"))[expected == 1] == CAMVID.palette[1]).all()
    file.unlink()
    (file,) = draw("a.jpg", kind="overlay")
    assert (read_image(file) == overlay(image, expected, CAMVID)).all()


def test_panels_widen_with_what_is_known(here: Path) -> None:
    widths = []
    for masks, teacher in ((None, None), ("camvid/testannot", None), ("camvid/testannot", BRIGHTNESS)):
        (file,) = draw("camvid/test/0.png", kind="panel", masks=masks, teacher=teacher)
        widths.append(read_image(file).shape[1])
        file.unlink()
    assert widths == sorted(set(widths))


def test_folders_and_equal_stems(here: Path) -> None:
    picture(here / "other/0.png", 7)
    (here / "camvid/test/notes.txt").write_text("not an image")
    files = draw("camvid/test", "other/0.png", "camvid/test/1.png")
    assert [file.name for file in files] == ["0_mask.png", "1_mask.png", "2_mask.png", "0-2_mask.png"]
    assert (read_mask(files[3]) == (read_image("other/0.png")[..., 0] > 127)).all()
    assert (read_mask(files[0]) == (read_image("camvid/test/0.png")[..., 0] > 127)).all()


def test_a_numbered_name_is_not_given_twice(here: Path) -> None:
    for name in ("a/x.png", "a/x-2.png", "b/x.png", "b/X.png"):
        picture(here / name)
    assert len({file.name.lower() for file in draw("a", "b")}) == 4


def test_an_output_never_replaces_an_input(here: Path) -> None:
    picture(here / "out/0_mask.png")
    before = (here / "out/0_mask.png").read_bytes()
    with pytest.raises(UsageError, match="would replace"):
        draw("out/0_mask.png", "camvid/test/0.png")
    assert (here / "out/0_mask.png").read_bytes() == before


@pytest.mark.parametrize("fault", ["empty", "missing", "truncated", "no mask", "label", "mask size"])
def test_bad_input_is_named_with_exit_3_and_the_rest_is_drawn(run: Path, capsys: pytest.CaptureFixture[str], fault: str) -> None:  # fmt: skip
    images, truth = Path("camvid/test"), Path("camvid/testannot/1.png")  # a good one before it, and one behind
    if fault == "empty":
        images = Path("empty")
        images.mkdir()
    elif fault == "truncated":
        (images / "1.png").write_bytes((images / "1.png").read_bytes()[:-20])
    elif fault == "missing":
        images = Path("nothing.png")
    elif fault == "no mask":
        truth.unlink()
    elif fault == "label":
        Image.fromarray(np.full((24, 40), 12, np.uint8)).save(truth)
    else:
        Image.fromarray(np.zeros((24, 41), np.uint8)).save(truth)
    arguments = ["visualize", str(run), str(images), "--out", "out", "--masks", "camvid/testannot", "--device", "cpu"]
    assert main(arguments) == 3
    out, err = capsys.readouterr()
    if fault in ("empty", "missing"):
        assert not Path("out").exists() and not out and len(err.splitlines()) == 1
        return
    assert out.splitlines() == [f"camvid/test/{index}.png -> out/{index}_panel.png" for index in (0, 2)]
    assert len(list(Path("out").iterdir())) == 2
    named, total = err.splitlines()
    assert "1.png" in named and total == "segkd: 1 of 3 images not drawn: named above"
    assert fault != "label" or "label 12" in named


def test_void_in_the_ground_truth_is_ignored(here: Path) -> None:
    (job,) = plan_drawings(["camvid/test/0.png"], "out", "panel", CAMVID, "camvid/testannot")
    assert (read_job(job, CAMVID)[1][:4] == IGNORE).all()


def test_visualize_says_what_it_wrote(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["visualize", str(run), "camvid/test", "--out", "a/b", "--teacher", "toy.yaml", "--device", "cpu"]
    assert main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines.pop().startswith("the network sees a shorter side of at most 256 pixels (its preprocess.json; ")
    assert lines == [f"camvid/test/{index}.png -> a/b/{index}_panel.png" for index in range(3)]
    assert all(read_image(line.split(" -> ")[1]).shape[1] > 500 for line in lines)


def photo(path: Path, size: tuple[int, int] = (300, 420)) -> np.ndarray:
    """A smooth picture that is larger than the protocol's."""
    coarse = np.random.default_rng(5).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    image = np.asarray(Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return image


def sizes_seen(network: nn.Module) -> list[tuple[int, int]]:
    seen: list[tuple[int, int]] = []
    network.register_forward_pre_hook(lambda module, given: seen.append(tuple(given[0].shape[-2:])))
    return seen


def test_eval_visualize_and_predict_show_a_student_one_size(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """That of its preprocess.json; `--size` chooses another; each says what it was."""
    image = photo(Path("large/test/0.png"))
    mask(Path("large/testannot/0.png"), image)
    student = load_student(run)
    seen, told = sizes_seen(student), student.predict(image)
    scores = evaluate(student, data="camvid", root="large", device="cpu", precision="fp32")
    (job,) = plan_drawings(["large/test/0.png"], "out", "mask", CAMVID)
    visualize(load_model(run), [job], "mask", device="cpu", precision="fp32")
    assert seen == [(256, 358)] * 2 and scores["size"] == [256, 358]
    assert (read_mask(job.out) == told).all() and told.shape == (300, 420)
    for size, side in (("original", None), ("protocol", 256)):
        assert main(["visualize", str(run), "large/test/0.png", "--out", "out", "--kind", "mask", "--size", size]) == 0
        assert (read_mask(job.out) == student.predict(image, size)).all()
        assert ("as asked" in (said := capsys.readouterr().out)) and ("as they are (as asked" in said) is (side is None)
        flags = ["--data", "camvid", "--root", "large", "--size", size, "--json", "s.json", "--device", "cpu"]
        assert main(["eval", str(run), *flags]) == 0
        assert capsys.readouterr().out.splitlines()[-1] == json.loads(Path("s.json").read_text())["notes"][0]
        assert json.loads(Path("s.json").read_text())["options"]["shorter_side"] == side


def test_large_images_are_drawn_by_windows(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image, student = photo(Path("large/0.png")), load_student(run)
    how = {"mean": student.mean, "std": student.std}
    (wanted,) = predict(Inference((64, 96)).of(student), [image], **how)
    assert (wanted != student.predict(image, "original")).any()
    seen = sizes_seen(student)
    windows = {"kind": "mask", "size": "original", "slide": (64, 96), "device": "cpu", "precision": "fp32"}
    (drawn,) = draw_from_python(student, "large", "python", **windows)
    assert (read_mask(drawn) == wanted).all() and set(seen) == {(64, 96)}
    flags = ["--kind", "mask", "--size", "original", "--device", "cpu", "--precision", "fp32"]
    arguments = ["visualize", str(run), "large", "--out", "out", *flags]
    assert main([*arguments, "--slide", "64x96"]) == 0
    assert (read_mask("out/0_mask.png") == wanted).all() and "slide" not in capsys.readouterr().out
    assert main([*arguments, "--slide", "64x512"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("slide 64x512: larger than images")
    assert main([*arguments, "--slide", "8x8"]) == 2


def test_the_size_that_a_recipe_measured_at_is_the_students(run: Path) -> None:
    """Also where another set is measured; an older folder says nothing of it, and its run's recipe does."""
    save(load_model(run).network, run / "student", shorter_side=None)
    photo(Path("large/test/0.png"))
    mask(Path("large/testannot/0.png"), read_image("large/test/0.png"))
    how = {"data": "camvid", "root": "large", "device": "cpu"}
    for model in (run, run / "student", load_student(run)):
        found = evaluate(model, **how)
        assert found["options"]["size"] == "original" and "its preprocess.json" in found["notes"][0]
    changed = measure(load_model(run, overrides=["data.size=original"]), root="large", device="cpu")
    assert changed["size"] == [300, 420]
    text = (run / "student" / "preprocess.json").read_text()
    (run / "student" / "preprocess.json").write_text(text.replace('"shorter_side": null,', ""))
    for model, source in ((run, "its recipe's data.size"), (run / "student", "names no size")):
        found = evaluate(model, **how)
        assert found["options"]["size"] == "protocol" and source in found["notes"][0]


def test_a_student_folder_has_no_teacher(run: Path) -> None:
    with pytest.raises(UsageError, match="a student folder has no teacher; name its run folder"):
        load_model(run / "student", "teacher")
    assert same(load_guide(run / "student"), load_model(run).network)


def test_masks_of_logits_that_are_not_finite_are_not_drawn(here: Path) -> None:
    class Broken(Brightness):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * torch.nan

    with pytest.raises(NumbersError, match="not finite"):
        visualize(replace(BRIGHTNESS, network=Broken()), plan_drawings(["camvid/test"], "out", "mask", CAMVID), "mask")


@pytest.fixture
def photos(here: Path) -> Path:
    """Images without masks, some in sub-folders, of several kinds and sizes; and what is no photo."""
    for index, name in enumerate(("a.png", "b.jpg", "deep/c.PNG", "deep/er/d.webp")):
        picture(here / "photos" / name, index, (24, 40 + 8 * (index % 2)))
    (here / "photos/notes.txt").write_text("no image")
    picture(here / "photos/.hidden/e.png")
    return here / "photos"


def test_agreement_needs_no_labels(run: Path, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Over all images of a folder, with the run's own teacher; it is called agreement, and never mIoU."""
    flags = ["--data", "folder", "--root", str(photos), "--against", str(run), "--device", "cpu"]
    assert main(["eval", str(run), *flags, "--json", "s.json", "--csv", "s.csv"]) == 0
    lines, scores = capsys.readouterr().out.splitlines(), json.loads(Path("s.json").read_text())
    student, teacher = load_student(run), load_model(run, "teacher")
    files = sorted(path for path in photos.rglob("*") if path.suffix in (".png", ".jpg", ".PNG", ".webp"))
    shown = [read_image(path) for path in files if ".hidden" not in str(path)]
    told = load_student(run).predict(shown)
    guide = predict(teacher.network, shown, mean=teacher.mean, std=teacher.std)
    same = sum(int((a == b).sum()) for a, b in zip(told, guide, strict=True))
    assert scores["images"] == 4 and scores["agreement"] == pytest.approx(
        same / sum(mask.size for mask in told), abs=1e-3
    )
    assert not {"miou", "per_class", "confusion", "pixel_accuracy"} & set(scores) and np.sum(
        scores["agreement_confusion"]
    )
    assert not any("mIoU" in line or "accuracy" in line for line in lines)
    assert ["agreement:", "pixels", f"{scores['agreement']:.4f}"] in [line.split() for line in lines]
    assert f"with the teacher of {run}" in lines[-1] and "no measurement of the truth" in lines[-1]
    assert scores["options"]["split"] is None and scores["options"]["against"] == f"the teacher of {run}"
    rows = Path("s.csv").read_text().splitlines()
    assert rows[0] == "class,agreement_iou" and rows[-2] == f"agreement: pixels,{scores['agreement']}"
    python = evaluate(student, data="folder", root=photos, against=run, device="cpu", precision="fp32")
    assert python["agreement_confusion"] == scores["agreement_confusion"]
    itself = evaluate(run, data="folder", root=str(photos), against=student, device="cpu")
    assert itself["agreement"] == itself["agreement_miou"] == 1.0 and itself["options"]["against"] == "a loaded student"
    assert evaluate(run, data="folder", root=photos, against=run / "student", device="cpu")["agreement"] == 1.0
    assert (
        evaluate(run, data="folder", root=photos, against="toy.yaml", device="cpu")["agreement"] == scores["agreement"]
    )


def test_agreement_stands_beside_the_truth_where_there_are_labels(
    run: Path, sets: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    plain = evaluate(run, device="cpu")
    assert main(["eval", str(run), "--against", str(run), "--device", "cpu", "--json", "s.json", "--csv", "s.csv"]) == 0
    scores, lines = json.loads(Path("s.json").read_text()), capsys.readouterr().out.splitlines()
    assert all(scores[key] == plain[key] for key in ("miou", "confusion", "images", "size"))
    assert np.sum(scores["agreement_confusion"]) == 3 * 24 * 40  # void counts: no label is looked at
    assert lines[0].split() == ["IoU", "agreed"] and lines[1].split()[0] == "sky" and len(lines[1].split()) == 3
    assert any(line.startswith("mIoU ") for line in lines) and any(
        line.startswith("agreement: mean IoU ") for line in lines
    )
    rows = [row.split(",") for row in Path("s.csv").read_text().splitlines()]
    assert rows[0] == ["class", "iou", "agreement_iou"] and {len(row) for row in rows} == {3}
    two = replace(BRIGHTNESS, classes=listed("own", ["dark", "bright"]), network=Brightness(2))
    described = measure(two, data="folder", root=sets["folder"], against=two, device="cpu", precision="fp32")
    assert described["miou"] == described["agreement"] == 1.0 and described["options"]["split"] == "test"


def test_what_agreement_cannot_be_measured_on(run: Path, photos: Path, sets: dict[str, str]) -> None:
    for flags, words, error in (
        ({"root": "nowhere"}, "nowhere", DataError),
        ({"root": photos, "split": "test"}, "has no dataset.yaml", UsageError),
        ({"root": photos, "confusion": "c.png"}, "there are none", UsageError),
        ({"root": photos, "against": None}, "without labels: --data folder --root DIR --against TEACHER", DataError),
        ({"data": None, "model": run / "student"}, "--against TEACHER", UsageError),
    ):
        given = {"model": run, "data": "folder", "against": run, "device": "cpu"} | flags
        with pytest.raises(error, match=words):
            evaluate(given.pop("model"), **given)
    (photos / "deep/er/d.webp").write_bytes(b"RIFF")
    with pytest.raises(DataError, match="d.webp"):
        evaluate(run, data="folder", root=photos, against=run, device="cpu")
    (photos / "images").mkdir()
    (photos / "masks").mkdir()
    with pytest.raises(DataError, match="holds masks too; name .*images"):
        evaluate(run, data="folder", root=photos, against=run, device="cpu")
    for root in ("camvid", "nyu"):  # folders of data sets, whose masks would be taken for photos
        with pytest.raises(DataError, match="seems to be the mask of"):
            evaluate(run, data="folder", root=root, against=run, device="cpu")
    other = replace(BRIGHTNESS, classes=listed("two", ["a", "b"]))
    with pytest.raises(DataError, match="classes disagree: teacher 2, student 11"):
        measure(BRIGHTNESS, data="folder", root="camvid/test", against=other, device="cpu")
