"""Options of a network that no network can be told: each an error at its key, before torch is loaded."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from segkd.foundation.errors import RecipeError
from segkd.recipe import Terms, load

REFUSED = [
    ("in_channels", 1, "segkd's images are RGB: 3 channels, got 1"),
    ("in_channels", 4, "segkd's images are RGB: 3 channels, got 4"),
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


@pytest.mark.parametrize("classes", [1, ["lesion"]])
def test_one_class_is_told_as_what_it_is(
    write: Callable[..., Path], distill: dict[str, Any], methods: dict[str, Terms], classes: object
) -> None:
    distill["teacher"]["classes"] = classes
    with pytest.raises(
        RecipeError, match="teacher.classes: a network of one logit .sigmoid. has two classes: name both"
    ):
        load(write(distill), methods=methods)
