"""Options of a network that no network can be told: each an error at its key, before torch is loaded."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from segkd.foundation.errors import RecipeError
from segkd.recipe import Terms, load

REFUSED = [
    *(("in_channels", count, "mean and std have 3 values, one for each channel of an image: give them as many") for count in (1, 4, "3")),
    *(("activation", kind, "leave it out: segkd compares logits") for kind in ("softmax", "softmax2d", "Sigmoid", "logsoftmax", "argmax2d", "tanh")),
    ("encoder_weights", "imagenet", "nothing is downloaded"),
    ("checkpoint_path", "x.pth", "names a file"),
    ("pretrained", True, "nothing is downloaded"),
    ("classes", 3, "set `classes`"),
    ("aux_params", [1], "leave it out"),
]  # fmt: skip


@pytest.mark.parametrize("block", ["teacher", "student"])
@pytest.mark.parametrize(("key", "value", "words"), REFUSED)
def test_what_no_network_can_be_told(
    write: Callable[..., Path], distill: dict[str, Any], methods: dict[str, Terms], block: str, key: str, value: object,
    words: str,
) -> None:  # fmt: skip
    distill[block]["options"] = {"decoder_channels": 16, key: value}
    with pytest.raises(RecipeError) as caught:
        load(write(distill), methods=methods)
    [line] = caught.value.errors
    assert f"{block}.options.{key}: " in line and words in line and "recipe.yaml:" in line


def test_values_that_change_nothing_stay(
    write: Callable[..., Path], distill: dict[str, Any], methods: dict[str, Terms]
) -> None:
    options = {"in_channels": 3, "activation": "identity", "pretrained": False, "aux_params": None}
    distill["teacher"]["options"] = options
    assert load(write(distill), methods=methods).teacher.options == options


def test_channels_are_those_of_mean_and_std(
    write: Callable[..., Path], distill: dict[str, Any], methods: dict[str, Terms]
) -> None:
    distill["teacher"] |= {"mean": [0.5], "std": [0.25], "options": {"in_channels": 1}}
    assert load(write(distill), methods=methods).teacher.channels == 1
    wrong = {"teacher.mean": {"teacher": {"std": [0.5] * 3}}, "teacher.std": {"teacher": {"std": []}},
             "student.options.in_channels": {"student": {"options": {"in_channels": 3}}},
             "synth.augment": {"synth": {"augment": ["flip", "jitter"]}}}  # fmt: skip
    for key, change in wrong.items():
        other = distill | {block: distill[block] | values for block, values in change.items()}
        with pytest.raises(RecipeError, match=f"recipe.yaml:[0-9]+: {key}: ") as caught:
            load(write(other), methods=methods)
        assert key != "synth.augment" or "set synth.augment=[flip]" in caught.value.errors[0]


def test_more_channels_are_for_what_reads_no_file(
    write: Callable[..., Path], distill: dict[str, Any], teach: dict[str, Any], methods: dict[str, Terms]
) -> None:
    normalised = {"mean": [0.5] * 4, "std": [0.5] * 4}
    distill["teacher"] |= normalised
    distill["data"] = {"name": None}
    assert load(write(distill), methods=methods).teacher.channels == 4
    distill |= {"data": {"name": "camvid"}, "synth": distill["synth"] | {"mix": {"folder": 0.5}, "root": "."}}
    with pytest.raises(RecipeError) as caught:
        load(write(distill), methods=methods)
    assert [line.split(": ")[1] for line in caught.value.errors] == ["data.name", "synth.mix"]
    assert all(
        "segkd reads RGB and grey pictures, and teacher.mean says 4 channels" in line for line in caught.value.errors
    )
    for kind, does in (("folder", "reads"), ("pictures", "draws"), ("unet", "draws")):
        distill |= {
            "data": {"name": None},
            "synth": distill["synth"] | {"mix": {}, "kind": kind, "root": "." if does == "reads" else None},
        }
        line = rf"synth\.kind: segkd {does} RGB and grey pictures, and teacher\.mean says 4 channels: set synth\.kind=resize"
        with pytest.raises(RecipeError, match=line):
            load(write(distill), methods=methods)
    teach["model"] |= normalised
    with pytest.raises(RecipeError, match=r"model\.mean: segkd reads RGB and grey pictures"):
        load(write(teach), methods=methods)


@pytest.mark.parametrize("classes", [1, ["lesion"]])
def test_one_class_is_told_as_what_it_is(
    write: Callable[..., Path], distill: dict[str, Any], methods: dict[str, Terms], classes: object
) -> None:
    distill["teacher"]["classes"] = classes
    with pytest.raises(
        RecipeError, match="teacher.classes: a network of one logit .sigmoid. has two classes: name both"
    ):
        load(write(distill), methods=methods)
