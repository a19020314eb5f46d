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
from segkd.recipe.pretrained import FILE, input_of

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


def test_a_network_that_a_folder_describes_is_neither_taught_nor_a_student(errors_of, distill, teach) -> None:
    teach["model"] |= {"arch": "SegformerForSemanticSegmentation", "encoder": None}
    assert "can only be a teacher" in errors_of(teach)[0]
    distill["student"] |= {"arch": "UperNetForSemanticSegmentation", "encoder": None}
    assert "can only be a teacher" in errors_of(distill)[0]
