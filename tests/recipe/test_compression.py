"""The recipe of a compression: what names a teacher, what names a student, and that the file says what was asked for."""

from pathlib import Path

import pytest

from segkd.foundation.errors import UsageError
from segkd.recipe import load
from segkd.recipe.compression import ADVISED, Asked, from_file, source_of, student_of

VALUES = ("teacher.arch=Unet", "teacher.encoder=resnet18", "teacher.classes=[a, b]")


@pytest.mark.parametrize(
    ("name", "weights"),
    [("quickstart", False), ("mine.yaml", False), ("gone.pth", True), ("hf://a/b", True), ("there", True), ("run", False), ("none", False)],
)  # fmt: skip
def test_a_teacher_is_named_by_a_recipe_or_by_its_weights(tmp_path, monkeypatch, name, weights) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there").touch()
    Path("mine.yaml").touch()
    Path("run").mkdir()
    Path("run/recipe.yaml").touch()
    assert from_file(name) is weights and (source_of(name) == name) is not weights


def test_students_are_named_as_smp_names_them() -> None:
    assert student_of("deeplabv3plus:mobilenet_v2") == {"arch": "DeepLabV3Plus", "encoder": "mobilenet_v2"}
    assert student_of("segnet") == {"arch": "SegNet", "encoder": None}


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("unit:resnet18", "unknown architecture \"unit\", did you mean 'Unet'?"), ("unet", "names no encoder, as unet:mobilenet_v2"),
        ("unet:resnet81", "unknown encoder \"resnet81\", did you mean 'resnet18'?"), ("segnet:resnet18", "SegNet has no choice of encoder"),
        ("AutoModelForSemanticSegmentation", "can only be a teacher"), ("", "unknown architecture"),
    ],
)  # fmt: skip
def test_what_is_no_student(name, line) -> None:
    with pytest.raises(UsageError, match="^--student ") as raised:
        student_of(name)
    assert "exported" not in str(raised.value), "no student, and not among those that are offered"
    assert line in str(raised.value)


@pytest.mark.parametrize("value", ["run.dir=x", "run.steps=4", "run.budget=1h", "student.arch=FPN"])
def test_what_a_flag_says_no_value_does(tmp_path, value) -> None:
    with pytest.raises(UsageError, match="leave one of them out"):
        Asked("teacher.pth", "unet:resnet18", "2h", (*VALUES, value)).tree(tmp_path, None)


@pytest.mark.parametrize(("channels", "variant"), [(None, "pictures"), (1, "pictures"), (3, "pictures"), (4, "segkd")])
def test_no_pictures_stand_for_images_of_other_channels(channels, variant) -> None:
    mean = () if channels is None else (f"teacher.mean={[0.5] * channels}",)
    assert Asked("teacher.pth", values=mean).first == {"method": "ddad", "variant": variant}


def test_a_budget_may_be_a_number_of_seconds(tmp_path) -> None:
    assert Asked("teacher.pth", budget="90").tree(tmp_path, None)["run"]["budget"] == 90
    assert Asked("teacher.pth", budget="-90").tree(tmp_path, None)["run"]["budget"] == "-90"


@pytest.mark.parametrize("teacher", ["teacher.pth", "quickstart"])
def test_the_file_reads_back_as_what_was_asked_for(tmp_path, teacher) -> None:
    values = (
        (*VALUES, "run.batch=2")
        if teacher != "quickstart"
        else ("run.batch=2", "student.options={decoder_channels: [8, 8, 8, 8, 8]}")
    )
    asked = Asked(teacher, "unet:resnet18", "2h", values)
    (tmp_path / "recipe.yaml").write_text(asked.text(tmp_path, ADVISED, "full"))
    recipe = load(tmp_path / "recipe.yaml", (), "distill")
    given = [
        *values,
        "method=ddad",
        "variant=pictures",
        "run.budget=2h",
        f"run.dir={tmp_path}/run",
        "student.arch=Unet",
    ]
    given += ["student.encoder=resnet18", "student.weights=none", "game.logits=full"]
    if teacher == "quickstart":
        given.insert(
            0, "student.options={channels: null, stem_width: null, decoder_channels: null, decoder_aspp_dropout: null}"
        )
    else:
        given.append("student.options=null")
    assert recipe.as_dict() == load(source_of(teacher), given, "distill").as_dict()


def test_the_order_of_values_and_where_paths_are_named_from_change_nothing(tmp_path, monkeypatch) -> None:
    (tmp_path / "inner").mkdir()
    monkeypatch.chdir(tmp_path)
    here = Asked("a.pth", None, None, ("teacher.statistics=s", "run.batch=3")).as_dict()
    monkeypatch.chdir(tmp_path / "inner")
    assert Asked("../a.pth", None, None, ("run.batch=3", "teacher.statistics=../s")).as_dict() == here
    assert Asked("a.pth", None, None, ("run.batch=3",)).as_dict() != here
