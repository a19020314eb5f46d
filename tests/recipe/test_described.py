"""What a recipe leaves out of its teacher is taken from the `config.json` beside its weights; what it says stays."""

from __future__ import annotations

import json
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
import segmentation_models_pytorch as smp

from segkd.builders.teacher import teacher_of
from segkd.foundation.errors import RecipeError, TeacherError
from segkd.recipe import load, networks
from segkd.recipe.blocks import DistillRecipe
from segkd.recipe.loading import read
from segkd.recipe.origins import annotated

FPN = {
    "_model_class": "FPN",
    "encoder_name": "resnet18",
    "classes": 4,
    "upsampling": 4,
    "decoder_dropout": 0.1,
    "in_channels": 3,
}
FPN |= {"decoder_pyramid_channels": 256, "encoder_weights": None, "activation": None, "pretrained_cfg": {"file": "x"}}
NAMED = {"architectures": ["SegformerForSemanticSegmentation"], "id2label": {"1": "road", "0": "void"}}
REST: dict[str, Any] = {
    "extends": "base/ddad.yaml", "student": {"arch": "SegNet"}, "synth": {"size": [32, 32]}, "data": {"name": None},
    "run": {"steps": 1, "batch": 2},
}  # fmt: skip


def folder(root: Path, config: object, **beside: object) -> Path:
    root.mkdir(exist_ok=True)
    (root / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    for name, said in beside.items():
        (root / f"{name}.json").write_text(json.dumps(said))
    return root


def recipe(weights: Path | str, **teacher: object) -> dict[str, Any]:
    return {**REST, "teacher": {"weights": str(weights), **teacher}}


def loaded(weights: Path | str, **teacher: object) -> DistillRecipe:
    found = load(recipe(weights, **teacher))
    assert isinstance(found, DistillRecipe)
    return found


def test_smps_folder_says_architecture_encoder_and_what_is_not_its_default(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    block = loaded(folder(tmp_path / "a", FPN)).teacher
    assert (block.arch, block.encoder, block.classes) == ("FPN", "resnet18", 4)
    assert block.options == {"decoder_dropout": 0.1}
    line = next(line for line in capsys.readouterr().err.splitlines() if "a/config.json" in line)
    assert line.endswith(
        "says what the recipe leaves out: teacher.arch: FPN, encoder: resnet18, classes: 4, options: {decoder_dropout: 0.1}"
    )


def test_what_is_taken_makes_the_network_that_was_saved(tmp_path: Path) -> None:
    made = smp.DeepLabV3Plus("tu-resnet10t", encoder_weights=None, classes=3, decoder_channels=16, decoder_atrous_rates=(2, 4, 6),
                             channels=[8, 8, 16, 16], stem_width=8)  # fmt: skip
    made.save_pretrained(tmp_path / "smp")
    for weights in (tmp_path / "smp", tmp_path / "smp/model.safetensors"):
        block = loaded(weights, classes=["a", "b", "c"]).teacher
        assert block.options["decoder_atrous_rates"] == [2, 4, 6]
        assert type(teacher_of(block).network).__name__ == "DeepLabV3Plus"


def test_what_a_recipe_says_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = folder(tmp_path / "a", FPN)
    whole = loaded(
        root, arch="fpn", encoder="resnet18", classes=["a", "b", "c", "d"], options={"decoder_dropout": None}
    )
    assert whole.teacher.options == {"decoder_dropout": None} and whole.teacher.arch == "fpn"
    assert "leaves out" not in capsys.readouterr().err
    other = loaded(root, encoder="resnet34").teacher  # whose options those of resnet18 need not be
    assert (other.arch, other.encoder, other.options) == ("FPN", "resnet34", {})
    with pytest.raises(RecipeError, match="Unet needs an encoder"):
        load(recipe(root, arch="Unet"))


def test_transformers_folder_says_architecture_and_classes(tmp_path: Path) -> None:
    block = loaded(folder(tmp_path / "a", NAMED)).teacher
    assert (block.arch, block.encoder, block.classes) == (NAMED["architectures"][0], None, ("void", "road"))  # type: ignore[index]
    block = loaded(folder(tmp_path / "b", NAMED), arch="AutoModelForSemanticSegmentation", classes=2).teacher
    assert (block.arch, block.classes) == ("AutoModelForSemanticSegmentation", 2)
    other = folder(tmp_path / "c", NAMED | {"architectures": ["DPTForSemanticSegmentation"]})
    for given in ({}, {"arch": "AutoModelForSemanticSegmentation"}):
        block = loaded(other, **given).teacher
        assert (block.arch, block.classes) == ("AutoModelForSemanticSegmentation", ("void", "road"))
    with pytest.raises(RecipeError, match=r"teacher\.arch: missing"):
        load(recipe(folder(tmp_path / "d", NAMED | {"architectures": ["DPTForDepthEstimation"]})))


@pytest.mark.parametrize(
    ("said", "classes"),
    [
        ({"id2label": {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}}, 3),
        ({"id2label": {"0": "a", "2": "b"}}, 2),
        ({"id2label": {"0": "LABEL_0"}}, 2),
        ({"id2label": None, "num_labels": 5}, 5),
    ],
)
def test_classes_without_names_are_counted_and_one_logit_tells_two_apart(
    tmp_path: Path, said: dict[str, object], classes: int
) -> None:
    assert loaded(folder(tmp_path / "a", NAMED | said)).teacher.classes == classes


def test_a_students_folder_says_its_classes_and_its_normalisation(tmp_path: Path) -> None:
    about = {"classes": ["a", "b", "c"], "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    segnet = {"_model_class": "SegNet", "classes": 3, "width": 8, "upsample": "bilinear"}
    block = loaded(folder(tmp_path / "a", segnet, preprocess=about)).teacher
    assert (block.arch, block.encoder, block.classes) == ("SegNet", None, ("a", "b", "c"))
    assert (block.options, block.mean) == ({"width": 8, "upsample": "bilinear"}, (0.1, 0.2, 0.3))


@pytest.mark.parametrize(
    "config", ["{", "[]", "{}", {"_model_class": "Nope"}, {"architectures": []}, {"_model_class": []}]
)
def test_without_a_description_the_keys_are_missed(tmp_path: Path, config: object) -> None:
    with pytest.raises(RecipeError) as caught:
        load(recipe(folder(tmp_path / "a", config)))
    assert [line.partition(":")[2].strip() for line in caught.value.errors][0].startswith("teacher.arch: missing")


def test_what_is_not_there_is_missed_before_what_it_could_say() -> None:
    with pytest.raises(RecipeError) as caught:
        load(recipe("/nowhere/t.pth", arch="SegNet"))
    assert caught.value.errors[0] == 'recipe: teacher.weights: no such file or folder: "/nowhere/t.pth"'
    assert load(recipe("/nowhere/t.pth", arch="SegNet", classes=2)).teacher.classes == 2  # type: ignore[union-attr]


def test_names_that_no_classes_can_have_are_told_at_their_file(tmp_path: Path) -> None:
    wrong = NAMED | {"id2label": {"0": "road", "1": "road"}}
    with pytest.raises(RecipeError, match=r"a/config.json: teacher.classes: expected .* different names"):
        load(recipe(folder(tmp_path / "a", wrong)))


def test_the_shown_recipe_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder(tmp_path / "a", FPN)
    (tmp_path / "r.yaml").write_text(json.dumps(recipe("a")))
    text = annotated("r.yaml")
    assert {
        line.partition("#")[2].strip() for line in text.splitlines() if line.startswith(("  arch: FPN", "  encoder: r"))
    } == {"a/config.json"}


def test_a_folder_without_a_word_on_its_images_is_told(tmp_path: Path) -> None:
    notes = read(recipe(folder(tmp_path / "a", FPN))).notes
    assert any(line.startswith("teacher.mean and std: no preprocessor_config.json") for line in notes)


def test_another_network_is_still_refused(tmp_path: Path) -> None:
    smp.FPN("resnet18", encoder_weights=None, classes=2, decoder_merge_policy="cat").save_pretrained(tmp_path / "a")
    with pytest.raises(TeacherError, match="made with decoder_merge_policy cat"):
        teacher_of(loaded(tmp_path / "a", classes=["a", "b"], options={"decoder_merge_policy": "add"}).teacher)


@pytest.mark.parametrize("arch", ["Unet", "DeepLabV3Plus", "PSPNet", "DPT", "Segformer", "UPerNet"])
def test_defaults_are_those_of_the_library(arch: str) -> None:
    own = {name: each.default for name, each in signature(getattr(smp, arch)).parameters.items()}
    own = {name: list(value) if isinstance(value, tuple) else value for name, value in own.items() if name != "kwargs"}
    assert networks.defaults_of(arch) == own
    assert networks.defaults_of("SegNet") == {}
