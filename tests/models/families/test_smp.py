"""What smp writes beside weights says which network they are of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import segmentation_models_pytorch as smp

from segkd.models.families.smp import FAMILY

NARROW = {"channels": [8, 8, 8, 8], "stem_width": 8, "decoder_channels": 8}
SETTINGS = ["encoder_depth", "encoder_output_stride", "decoder_channels", "decoder_atrous_rates", "decoder_aspp_separable",
            "upsampling", "channels", "stem_width"]  # fmt: skip


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """As smp writes it of a DeepLabV3Plus with an encoder of timm."""
    folder: Path = tmp_path_factory.mktemp("smp")
    smp.DeepLabV3Plus(
        "tu-resnet10t", encoder_weights=None, classes=3, encoder_output_stride=8, **NARROW
    ).save_pretrained(folder)
    return json.loads((folder / "config.json").read_text())


def test_a_config_says_the_options_of_architecture_and_encoder(config: dict[str, Any]) -> None:
    found = FAMILY.described(config | {"pretrained_cfg": {"file": "/tmp/x"}, "_of_the_hub": 1})
    assert found is not None and (found.arch, found.encoder) == ("DeepLabV3Plus", "tu-resnet10t")
    assert list(found.options) == SETTINGS and found.options["encoder_output_stride"] == 8
    assert found.options.items() >= {key: value for key, value in NARROW.items() if "dropout" not in key}.items()
    assert found.defaults["encoder_output_stride"] == 16 and found.defaults["decoder_atrous_rates"] == [12, 24, 36]


def test_what_an_encoder_of_smp_does_not_know_is_left_out(config: dict[str, Any]) -> None:
    found = FAMILY.described(config | {"_model_class": "deeplabv3plus", "encoder_name": "resnet18"})
    assert found is not None and found.arch == "DeepLabV3Plus" and list(found.options) == SETTINGS[:-2]


@pytest.mark.parametrize(
    "other", [{"_model_class": "SegNet"}, {"_model_class": None}, {"_model_class": [3]}, {"encoder_name": None}, {"encoder_name": [1]}]
)  # fmt: skip
def test_what_is_no_network_of_smp_is_not_compared(config: dict[str, Any], other: dict[str, Any]) -> None:
    assert FAMILY.described(config | other) is None
