"""Names of networks, and how their input is normalised: told with their place, and without torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from segkd.recipe import Terms, load, networks

Write = Callable[..., Path]
Errors = Callable[..., list[str]]


def test_they_are_those_of_the_installed_packages() -> None:
    import segmentation_models_pytorch as smp
    import timm
    from timm.models._registry import _deprecated_models

    from segkd.models.families import huggingface, torchvision

    assert [name.lower() for name in networks.architectures()] == [
        *smp.MODEL_ARCHITECTURES_MAPPING, "exported", *map(str.lower, huggingface.NAMES), "module", "segnet", *torchvision.NAMES
    ]  # fmt: skip
    assert sorted(networks.encoders()) == sorted(smp.encoders.get_encoder_names())
    assert networks.timm_models() == {*timm.list_models(), *_deprecated_models}


@pytest.mark.parametrize(
    ("changes", "messages"),
    [
        ({"arch": "DeepLabV3Plsu"}, ["teacher.arch: unknown architecture \"DeepLabV3Plsu\", did you mean 'DeepLabV3Plus'?"]),
        ({"encoder": "resnte18"}, ["teacher.encoder: unknown encoder \"resnte18\", did you mean 'resnet18'?"]),
        ({"encoder": "resnet10t"}, ["teacher.encoder: unknown encoder \"resnet10t\", did you mean 'tu-resnet10t'?"]),
        ({"encoder": "tu-resnet10x"}, ["teacher.encoder: unknown encoder \"tu-resnet10x\", did you mean 'tu-resnet1"]),
        ({"encoder": "ResNet18"}, ["teacher.encoder: unknown encoder \"ResNet18\", did you mean 'resnet18'?"]),
        (
            {"arch": "fpn", "encoder": "resnet18", "options": {"decoder_dropot": 0.1, "upsampling": 4, "stem_width": None}},
            ["teacher.options.decoder_dropot: no option of FPN, did you mean 'decoder_dropout'?"],
        ),
        ({"encoder": "tu-" + "x" * 50}, ["teacher.encoder: unknown encoder"]),
        ({"encoder": "nothing like it"}, ["teacher.encoder: unknown encoder \"nothing like it\": smp has resnet18, "]),
        ({"arch": "Unett", "encoder": "resnte18"}, ["teacher.arch: unknown", "teacher.encoder: unknown"]),
        ({"arch": "SegNet"}, ["teacher.encoder: SegNet has no choice of encoder: set it to null; got \"resnet18\""]),
    ],
)  # fmt: skip
def test_a_misspelt_name_is_told_with_its_place(
    errors_of: Errors, distill: dict[str, Any], changes: dict[str, str], messages: list[str]
) -> None:
    distill["teacher"] |= changes
    found = errors_of(distill)
    assert len(found) == len(messages)
    for line, message in zip(found, messages, strict=True):
        place, _, told = line.partition(" ")
        assert place.startswith("recipe.yaml:") and told.startswith(message)
    distill["student"] |= changes
    assert len(errors_of(distill)) == 2 * len(messages)


def test_how_the_input_of_torchvisions_networks_was_normalised_is_to_be_stated(
    errors_of: Errors, distill: dict[str, Any]
) -> None:
    distill["teacher"] |= {"arch": "fcn_resnet50", "encoder": None}
    del distill["teacher"]["std"]
    [line] = errors_of(distill)
    assert "missing: std: the library's own scripts train with mean: [0.485, 0.456, 0.406] and std: [0.229, " in line


def test_what_can_only_be_a_teacher_is_no_student_and_not_taught(
    errors_of: Errors, distill: dict[str, Any], teach: dict[str, Any]
) -> None:
    for arch in ("exported", "SegformerForSemanticSegmentation"):
        teach["model"] |= {"arch": arch, "encoder": None}
        assert f"model.arch: {arch} can only be a teacher that was trained elsewhere" in errors_of(teach)[0]
    distill["student"] |= {"arch": "UPerNetForSemanticSegmentation", "encoder": None}
    [line] = errors_of(distill)
    assert "student.arch: UPerNetForSemanticSegmentation can only be a teacher: a student is a network of smp, " in line


@pytest.mark.parametrize(
    ("arch", "encoder"),
    [("deeplabv3plus", "resnet18"), ("FPN", "tu-resnet18.a1_in1k"), ("UNET", "timm-regnetx_002"), ("segnet", None),
     ("DPT", "tu-vit_base_patch16_224.augreg_in21k"), ("Unet", "timm-efficientnet-b0"), ("FPN", "tu-tf_efficientnet_b0_ns"),
     ("FPN", "timm-mobilenetv3_large_075")],
)  # fmt: skip
def test_what_can_be_built_is_taken(
    write: Write, distill: dict[str, Any], methods: dict[str, Terms], arch: str, encoder: str | None
) -> None:
    distill["teacher"] |= {"arch": arch, "encoder": encoder, "options": {}}
    assert load(write(distill), methods=methods).teacher.encoder == encoder


def test_where_a_package_looks_otherwise_every_name_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "source_texts", lambda *place: [])
    known = (networks.architectures, networks.encoders, networks.timm_models, networks.defaults_of)
    for names in known:
        names.cache_clear()
    try:
        assert networks.unknown_architecture("New") is None and networks.unknown_encoder("tu-new") is None
        assert networks.unknown_options("FPN", "resnet18", ["new"]) == {}
    finally:
        for names in known:
            names.cache_clear()


SCALE = "these are on the scale 0..255, segkd wants 0..1: divide mean and std by 255"


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375], f"teacher.mean: {SCALE}; got [123.675, 116.28, 103.53]"),
        ([103.9, 116.8, 123.7], [1.0, 1.0, 1.0], f"teacher.mean: {SCALE}"),
        ([0.485, 0.456, 0.406], [58.395, 57.12, 57.375], f"teacher.std: {SCALE}"),
        ([0.0, 0.0, 0.0], [255.0, 255.0, 255.0], f"teacher.std: {SCALE}"),
        ([127.5, 0.5, 0.5], [0.5, 0.5, 0.5], f"teacher.mean: {SCALE}"),
        ([0.229, 0.224, 0.225], [0.485, 0.456, 0.406], "teacher.std: mean and std are exchanged: ImageNet's are [0.485, "),
        ([-1.5, 0.0, 0.0], [1.0, 1.0, 1.0], "teacher.mean: expected means between -1 and 2"),
        ([0.5, 0.5, 0.5], [0.5, 0.5, 0.0001], "teacher.std[2]: must be at least 0.001"),
    ],
)  # fmt: skip
def test_a_normalisation_on_another_scale(
    errors_of: Errors, distill: dict[str, Any], mean: list[float], std: list[float], message: str
) -> None:
    distill["teacher"] |= {"mean": mean, "std": std}
    [line] = errors_of(distill)
    assert line.partition(" ")[2].startswith(message)


def test_of_a_model_that_is_taught_too(errors_of: Errors, teach: dict[str, Any]) -> None:
    teach["model"]["mean"] = [123.675, 116.28, 103.53]
    [line] = errors_of(teach)
    assert line.partition(" ")[2].startswith(f"model.mean: {SCALE}")


@pytest.mark.parametrize("std", [[1 / 255] * 3, [0.5] * 3, [1.0] * 3, [0.229, 0.224, 0.225]])
@pytest.mark.parametrize("mean", [[0.0] * 3, [0.5] * 3, [1.0] * 3, [0.485, 0.456, 0.406], [0.406, 0.456, 0.485]])
def test_normalisations_that_networks_are_made_with(
    write: Write, distill: dict[str, Any], methods: dict[str, Terms], mean: list[float], std: list[float]
) -> None:
    distill["teacher"] |= {"mean": mean, "std": std}
    assert load(write(distill), methods=methods).teacher.mean == tuple(mean)


def test_every_device_that_is_taken_is_named(errors_of: Errors, write: Write, distill: dict[str, Any], methods: dict[str, Terms]) -> None:  # fmt: skip
    [line] = errors_of(distill, "run.device=tpu")
    assert line == 'command line: run.device: expected auto, cpu, mps, cuda or cuda:N; got "tpu"'
    for name in ("auto", "cpu", "mps", "cuda", "cuda:3"):
        assert load(write(distill), [f"run.device={name}"], methods=methods).run.device == name
