"""A student of fewer classes than its teacher: distilled, measured and drawn on those that the recipe makes."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from segkd import builders, runs
from segkd.cli.main import main
from segkd.data import catalogue
from segkd.data.class_map import ClassMap
from segkd.data.classes import IGNORE
from segkd.data.sets.camvid import CAMVID
from segkd.delivery.folder import load_student
from segkd.foundation.errors import DataError, RecipeError, UsageError
from segkd.recipe import DistillRecipe, load
from segkd.runs.evaluate import evaluate
from segkd.runs.trained import load_guide, load_model
from segkd.runs.visualize import plan_drawings, read_job
from segkd.training import checkpoint

MAP = "{vehicle: [car, bicyclist], sky: sky, road: [pavement, road]}"
NAMES = ("vehicle", "sky", "road")
MEMBERS = ((8, 10), (0,), (4, 3))

pytestmark = pytest.mark.usefixtures("own_threads")


def recipe_in(tiny, folder: Path, *overrides: str) -> DistillRecipe:
    small = ("run.threads=1", f"run.dir={folder}", "data.name=camvid", "run.steps=2", f"teacher.student_classes={MAP}")
    return tiny.recipe("ddad.segkd", *small, *overrides)


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mapped") / "run"
    runs.distill(recipe_in(tiny, folder, "data.watch=val"), runs.Options(name="tiny", quiet=True))
    return folder


def summary_of(run: Path) -> dict:
    return json.loads((run / "summary.json").read_text())


def test_teacher_and_student_are_measured_on_the_students_classes(tiny, run: Path) -> None:
    """The teacher's scores are those of the sums of its probabilities."""
    recipe = tiny.recipe("ddad.segkd")
    own, same, union = builders.teacher_of(recipe.teacher), torch.zeros(3), torch.zeros(3)
    for sample in catalogue.dataset("camvid", str(tiny.folder / "camvid"), "test", CAMVID):
        image = torch.from_numpy(sample.image).permute(2, 0, 1)[None] / 255
        mean, std = (torch.tensor(value).view(1, 3, 1, 1) for value in (own.mean, own.std))
        with torch.no_grad():
            shares = own((image - mean) / std).double().softmax(1)[0]
        found = torch.stack([shares[list(ids)].sum(0) for ids in MEMBERS]).argmax(0)
        truth = torch.full(found.shape, IGNORE)
        for index, ids in enumerate(MEMBERS):
            truth[torch.isin(torch.from_numpy(sample.mask), torch.tensor(ids))] = index
        for index in range(3):
            same[index] += ((found == index) & (truth == index)).sum()
            union[index] += (((found == index) & (truth != IGNORE)) | (truth == index)).sum()
    summary = summary_of(run)
    assert tuple(summary["per_class"]) == NAMES
    assert [*summary["teacher_per_class"].values()] == pytest.approx((same / union).tolist())
    assert summary["real_images_for_training"] == 0


def test_what_the_run_leaves_knows_the_students_classes(run: Path) -> None:
    student = load_student(run)
    assert student.names == NAMES and student.palette == ClassMap.of(CAMVID, load(run / "recipe.yaml").teacher.student_classes).student.palette  # fmt: skip
    card = (run / "student" / "README.md").read_text()
    assert (
        "Its classes are made of its teacher's: vehicle of car, bicyclist; sky of sky; road of pavement, road." in card
    )
    newest = checkpoint.listed(run / "checkpoints")[0]
    assert load_model(newest).classes.names == NAMES and newest.suffix == ".ckpt"


def test_eval_measures_as_the_run_did(tiny, run: Path) -> None:
    summary, root = summary_of(run), str(tiny.folder / "camvid")
    found = evaluate(load_model(run), device="cpu")
    assert found["miou"] == pytest.approx(summary["student_miou"])
    assert found["notes"][-1].startswith(
        "labels of camvid test: 11 classes become 3 (teacher.student_classes); ignored: building, "
    )
    for source in (run, run / "recipe.yaml"):
        teacher = evaluate(load_model(source, "teacher"), data="camvid", root=root, split="test", device="cpu")
        assert teacher["per_class"] == pytest.approx(summary["teacher_per_class"])
    alone = load_model(run / "student")
    with pytest.raises(DataError, match=r"model 3, data 11 \(camvid\); where it has merged these .*folder of its run"):
        evaluate(alone, data="camvid", root=root, device="cpu")
    beside = evaluate(alone, data="camvid", root=root, against=load_guide(run), device="cpu", precision="fp32")
    assert beside["miou"] == pytest.approx(summary["student_miou"]) and 0 <= beside["agreement"] <= 1


def described(folder: Path, masks: list[np.ndarray], classes: str) -> str:
    """Such a folder of the test images."""
    (folder / "masks").mkdir(parents=True)
    for index, mask in enumerate(masks):
        Image.fromarray(mask).save(folder / "masks" / f"{index}.png")
    (folder / "dataset.yaml").write_text(f"classes: [{classes}]\nignore: 255\n")
    return str(folder)


def test_labels_of_the_students_classes_are_taken_as_they_are(tiny, run: Path, tmp_path: Path) -> None:
    model = load_model(run)
    masks = [np.uint8(model.mapping.labels(sample.mask)) for sample in catalogue.dataset("camvid", str(tiny.folder / "camvid"), "test", CAMVID)]  # fmt: skip
    root = described(tmp_path / "own", masks, ", ".join(NAMES))
    shutil.copytree(tiny.folder / "camvid" / "test", tmp_path / "own" / "images")
    found = evaluate(model, data="folder", root=root, device="cpu")
    assert found["miou"] == pytest.approx(summary_of(run)["student_miou"]) and "labels of" not in str(found["notes"])
    (tmp_path / "own" / "dataset.yaml").write_text("classes: [sky, vehicle, road]\nignore: 255\n")
    with pytest.raises(DataError, match="class 0 is 'vehicle' to the model, and 'sky' in own"):
        evaluate(model, data="folder", root=root, device="cpu")


@pytest.mark.parametrize("said", ["nothing", "the teacher's", "the student's"])
def test_ground_truth_is_drawn_in_the_students_classes(tiny, run: Path, tmp_path: Path, said: str) -> None:
    model, camvid = load_model(run), tiny.folder / "camvid"
    truth = catalogue.dataset("camvid", str(camvid), "test", CAMVID)[0].mask
    masks, wanted = camvid / "testannot", model.mapping.labels(truth)
    if said != "nothing":
        classes, mask = (CAMVID.names, truth) if said == "the teacher's" else (NAMES, wanted)
        masks = Path(described(tmp_path / "own", [mask], ", ".join(classes)), "masks")
    (job,) = plan_drawings([camvid / "test" / "0.png"], tmp_path, "panel", model.classes, masks, mapping=model.mapping)
    assert (read_job(job, model.classes)[1] == wanted).all()


def test_another_map_is_another_run(tiny, run: Path) -> None:
    options = runs.Options(name="tiny", quiet=True)
    assert runs.distill(recipe_in(tiny, run, "data.watch=val"), options) == summary_of(run)
    with pytest.raises(UsageError, match=r"a finished run of another recipe \(teacher\.student_classes\)"):
        other = "{sky: sky, vehicle: [car, bicyclist], road: [pavement, road]}"
        runs.distill(recipe_in(tiny, run, "data.watch=val", f"teacher.student_classes={other}"), options)


def test_heads_and_weights_of_the_teacher_follow(tiny) -> None:
    game = tiny.game(
        "ddad.segkd", f"teacher.student_classes={MAP}", "game.logits=head", "student.weights=teacher"
    )  # fmt: skip
    student, teacher = game.student.network.network, game.teacher.network
    rows = [ids[0] for ids in MEMBERS]
    assert torch.equal(student.segmentation_head[0].weight, teacher.segmentation_head[0].weight[rows])
    assert game.play(0)


def test_classes_of_which_only_the_number_is_known(tiny) -> None:
    numbered = ("teacher.classes=11", "teacher.student_classes={road: [class 3, class 4], sky: class 0}")
    assert builders.teacher_of(tiny.recipe("ddad.segkd", *numbered).teacher).names == ("road", "sky")
    wrong = tiny.recipe("ddad.segkd", "teacher.classes=11", "teacher.student_classes={road: class 11, sky: class 0}")
    with pytest.raises(RecipeError, match='student_classes: unknown class of the teacher "class 11", did you mean'):
        builders.teacher_of(wrong.teacher)


def test_inspect_says_how_many(tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(recipe_in(tiny, tmp_path / "run").to_yaml())
    assert main(["inspect", str(path), "--quick"]) in (0, 3)
    assert ": 3 classes of 11, " in capsys.readouterr().out
