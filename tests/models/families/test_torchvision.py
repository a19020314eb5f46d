"""Networks of torchvision as teachers: their weights as its training scripts save them, and their own answers."""

import argparse
import pathlib

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import segmentation

from segkd.foundation.errors import RecipeError, TeacherError
from segkd.models.adapters import Adapter
from segkd.models.building import create_network
from segkd.models.families.torchvision import NAMES
from segkd.models.taps import FeatureTap
from segkd.models.weights import load_weights, read_state

LRASPP, DEEPLAB = "lraspp_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large"


def made(name: str, classes: int = 5, **more: object) -> nn.Module:
    """torchvision's own, with statistics that are not those of a fresh BatchNorm."""
    torch.manual_seed(3)
    network = getattr(segmentation, name)(weights=None, weights_backbone=None, num_classes=classes, **more)
    with torch.no_grad():
        network(torch.randn(2, 3, 64, 64))
    return network.eval()


@pytest.fixture(scope="module", params=[LRASPP, DEEPLAB])
def theirs(request) -> nn.Module:
    network = made(request.param, **({"aux_loss": True} if request.param == DEEPLAB else {}))
    network.name = request.param
    return network


def loaded(path, name, classes=5, **options):
    network = create_network(name, None, classes, {}, block="teacher")
    load_weights(network, read_state(path, **options), path.name)
    return Adapter(network, classes).eval()


def test_a_checkpoint_of_its_training_script_answers_as_its_network(tmp_path, theirs, capsys):
    told = argparse.Namespace(lr=0.01, output_dir=pathlib.Path("out"), device=torch.device("cpu"))
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9)
    schedule = torch.optim.lr_scheduler.PolynomialLR(optimizer, 30)
    torch.save(
        {"model": theirs.state_dict(), "optimizer": optimizer.state_dict(), "lr_scheduler": schedule.state_dict(),
         "epoch": 3, "args": told, "best": np.float64(0.5)}, tmp_path / "model_3.pth"
    )  # fmt: skip
    adapter = loaded(tmp_path / "model_3.pth", theirs.name)
    for size in ((64, 96), (53, 70)):
        images = torch.randn(2, 3, *size)
        with torch.no_grad():
            torch.testing.assert_close(adapter(images), theirs(images)["out"], rtol=1e-4, atol=1e-5)
    said = capsys.readouterr().err.splitlines()
    if theirs.name == DEEPLAB:
        assert len(said) == 1 and "left out aux_classifier.0.weight, " in said[0]
    else:
        assert not said


@torch.no_grad()
def test_its_head_is_upsampled_as_it_does(theirs):
    adapter = Adapter(theirs, 5).eval()
    images = torch.randn(2, 3, 64, 96)
    assert adapter.head_stride == {LRASPP: 8, DEEPLAB: 16}[theirs.name]
    head = adapter(images, at_head=True)
    assert head.shape[-2:] == (64 // adapter.head_stride, 96 // adapter.head_stride)
    torch.testing.assert_close(adapter.from_head(head), theirs(images)["out"])
    assert adapter.keeps_head((64, 96)) and not adapter.keeps_head((64, 100))


def test_its_backbone_and_its_classifier_can_be_looked_at(theirs):
    adapter = Adapter(theirs, 5).eval()
    with FeatureTap(adapter.network, adapter.features).open() as maps, torch.no_grad():
        adapter(torch.randn(1, 3, 64, 64))
    assert len(maps) == 2 and maps[0].shape[1] == 960 and maps[1].shape[1] == {LRASPP: 128, DEEPLAB: 256}[theirs.name]


@pytest.mark.parametrize("name", NAMES)
def test_weights_of_another_network_name_theirs(name):
    with torch.device("meta"):
        keys = list(getattr(segmentation, name)(weights=None, weights_backbone=None, num_classes=3).state_dict())
        other = create_network("FPN", "tu-resnet10t", 3, {})
    more = ["aux_classifier.4.bias"] if name != LRASPP else []
    for prefix in ("", "model."):
        state = {prefix + key: torch.ones(2) for key in keys + more if "tracked" not in key}
        with pytest.raises(
            TeacherError, match=f"x.pth: the weights of a {name}: set teacher.arch={name} and teacher.encoder"
        ):
            load_weights(other, state, "x.pth")


def test_what_it_cannot_be_given():
    with pytest.raises(
        RecipeError, match=f"teacher: {LRASPP} with encoder resnet18 cannot be built: its encoder is part"
    ):
        create_network(LRASPP, "resnet18", 5, {}, block="teacher")
    with pytest.raises(RecipeError, match=f"teacher.options: {LRASPP} has no option 'aux_loss'$"):
        create_network(LRASPP, None, 5, {"aux_loss": True}, block="teacher")
