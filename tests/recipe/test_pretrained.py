"""What the image processor in a folder of weights does becomes one mean and one std of images in 0..1."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from segkd.foundation.errors import TeacherError
from segkd.recipe import load
from segkd.recipe.origins import annotated
from segkd.recipe.pretrained import FILE, STUDENTS, input_of

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
GIVEN = {"do_normalize": True, "do_rescale": True, "image_mean": MEAN, "image_std": STD, "rescale_factor": 1 / 255}


def folder_with(root: Path, **said: object) -> Path:
    (root / FILE).write_text(json.dumps(said))
    return root


@pytest.mark.parametrize(
    "said",
    [
        GIVEN,
        {"feature_extractor_type": "SegformerFeatureExtractor", "image_mean": MEAN, "image_std": STD},
        GIVEN | {"do_rescale": False, "image_mean": [100, 50, 25], "image_std": [60, 50, 40]},
        GIVEN | {"rescale_factor": 1 / 127.5, "image_mean": 1.0, "image_std": 1.0},
        GIVEN | {"do_normalize": False},
        {"do_rescale": False},
    ],
)
def test_it_does_what_the_processor_does(tmp_path: Path, said: dict[str, Any]) -> None:
    found = input_of(folder_with(tmp_path, **said))
    assert found is not None and not found.notes
    for channel, value in enumerate((0, 17, 200)):
        wanted = value * (said.get("rescale_factor", 1 / 255) if said.get("do_rescale", True) else 1)
        if said.get("do_normalize", "image_mean" in said):
            mean, std = (v[channel] if isinstance(v, list) else v for v in (said["image_mean"], said["image_std"]))
            wanted = (wanted - mean) / std
        assert (value / 255 - found.mean[channel]) / found.std[channel] == pytest.approx(wanted, rel=1e-4, abs=1e-3)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (
            GIVEN | {"do_flip_channel_order": True},
            r"whether mean and std are of blue first \(do_flip_channel_order\) is",
        ),
        (GIVEN | {"rescale_factor": 0}, "says not how images were normalised"),
        (GIVEN | {"image_mean": [0.5]}, "says not how images were normalised"),
        ({"do_normalize": True}, "KeyError: 'image_mean'"),
    ],
)
def test_what_it_cannot_be(tmp_path: Path, said: dict[str, Any], words: str) -> None:
    with pytest.raises(TeacherError, match=words):
        input_of(folder_with(tmp_path, **said))


def test_some_are_shown_blue_before_red(tmp_path: Path) -> None:
    for said in ({"image_processor_type": "MobileViTImageProcessor"}, {"do_flip_channel_order": True}):
        found = input_of(folder_with(tmp_path, **said))
        assert found is not None and found.blue_first and (found.mean, found.std) == ((0.0,) * 3, (1.0,) * 3)


def test_a_damaged_file(tmp_path: Path) -> None:
    assert input_of(tmp_path) is None
    for text in ("{", "[]"):
        (tmp_path / FILE).write_text(text)
        with pytest.raises(TeacherError, match="says not how images were normalised"):
            input_of(tmp_path)


def test_a_recipe_that_states_no_mean_takes_it_from_there(
    tmp_path: Path, distill: dict[str, Any], write, capsys: pytest.CaptureFixture[str]
) -> None:
    folder_with(tmp_path, **GIVEN, do_reduce_labels=True)
    distill["teacher"] |= {
        "arch": "SegformerForSemanticSegmentation",
        "encoder": None,
        "options": {},
        "weights": str(tmp_path),
    }
    for key in ("mean", "std"):
        del distill["teacher"][key]
    teacher = load(distill).teacher
    assert (list(teacher.mean), list(teacher.std)) == (MEAN, STD)
    shown = annotated(write(distill))
    assert re.search(r"\n  mean: \[0.485, 0.456, 0.406\] +# preprocessor_config.json beside its weights\n", shown)
    [line] = capsys.readouterr().err.splitlines()
    assert "do_reduce_labels: class 0 is id 1 of the masks that it was trained on" in line
    distill["teacher"] |= {"mean": [0.5, 0.5, 0.5]}
    teacher = load(distill).teacher
    assert (list(teacher.mean), list(teacher.std)) == ([0.5] * 3, STD)
    assert f"teacher.mean: [0.5, 0.5, 0.5], as the recipe says, and not {MEAN} in " in capsys.readouterr().err
    (tmp_path / FILE).unlink()
    assert list(load(distill).teacher.std) == [0.5] * 3
    assert f"no {FILE} in {tmp_path}: taken to be [0.5, 0.5, 0.5] and [0.5, 0.5, 0.5]" in capsys.readouterr().err


OF_STUDENT = {"channels": "RGB", "range": [0.0, 1.0], "mean": MEAN, "std": STD, "classes": ["a", "b"], "ignore": 255}


def student_in(root: Path, **said: object) -> Path:
    (root / STUDENTS).write_text(json.dumps(OF_STUDENT | said))
    return root


def test_a_recipe_takes_it_from_a_students_folder_too(
    tmp_path: Path, distill: dict[str, Any], write, capsys: pytest.CaptureFixture[str]
) -> None:
    student_in(tmp_path)
    for key in ("mean", "std"):
        del distill["teacher"][key]
    for weights in (tmp_path, tmp_path / "model.safetensors"):
        distill["teacher"]["weights"] = str(weights)
        teacher = load(distill).teacher
        assert (list(teacher.mean), list(teacher.std)) == (MEAN, STD) and not capsys.readouterr().err
        shown = annotated(write(distill))
        assert re.search(r"\n  mean: \[0.485, 0.456, 0.406\] +# preprocess.json beside its weights\n", shown)
    distill["teacher"]["weights"] = str(tmp_path / "other.safetensors")
    assert list(load(distill).teacher.mean) == [0.5] * 3
    distill["teacher"] |= {"mean": [0.5, 0.5, 0.5], "weights": str(tmp_path)}
    teacher = load(distill).teacher
    assert (list(teacher.mean), list(teacher.std)) == ([0.5] * 3, STD)
    line = f"teacher.mean: [0.5, 0.5, 0.5], as the recipe says, and not {MEAN} in {tmp_path / STUDENTS}\n"
    assert capsys.readouterr().err.endswith(line)
    folder_with(tmp_path, do_rescale=False, do_normalize=False)
    assert input_of(tmp_path).file.name == FILE


def test_a_students_folder_of_other_channels(tmp_path: Path) -> None:
    found = input_of(student_in(tmp_path, channels="grey", mean=[0.4], std=[0.2]))
    assert found is not None and (found.mean, found.std, found.blue_first) == ((0.4,), (0.2,), False)


@pytest.mark.parametrize(
    "said",
    [{"std": STD[:2]}, {"std": [0.2, 0.2, 0.0]}, {"mean": [0.5, 0.5, float("nan")]}, {"mean": None}, {"mean": ["x"] * 3},
     {"range": [0, 255]}, {"range": None}],
)  # fmt: skip
def test_a_damaged_file_of_a_students_folder(tmp_path: Path, said: dict[str, object]) -> None:
    with pytest.raises(TeacherError, match=f"{STUDENTS}: says not how images were normalised"):
        input_of(student_in(tmp_path, **said))


def test_a_file_of_that_name_may_be_somebody_elses(tmp_path: Path) -> None:
    (tmp_path / STUDENTS).write_text('{"resize": 256}')
    assert input_of(tmp_path) is None


def test_a_network_that_a_folder_describes_is_neither_taught_nor_a_student(errors_of, distill, teach) -> None:
    teach["model"] |= {"arch": "SegformerForSemanticSegmentation", "encoder": None}
    assert "can only be a teacher" in errors_of(teach)[0]
    distill["student"] |= {"arch": "UperNetForSemanticSegmentation", "encoder": None}
    assert "can only be a teacher" in errors_of(distill)[0]
