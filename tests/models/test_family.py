"""Families of networks: the sizes that they take, and one that is a file."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from segkd.models.adapters import Adapter
from segkd.models.building import create_network
from segkd.models.families.segnet import SegNet
from segkd.models.family import Family, Sizes, families, family_of
from tests.waiting import PATIENCE

ROOT = Path(__file__).parents[2]
OTHER = '''
"""A network of one convolution, for images of 16x24."""

from torch import nn

from segkd.models.family import Family, Sizes

NAMES = ("Window",)


class Window(nn.Module):
    def __init__(self, classes, width=4):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())
        self.last = nn.Conv2d(width, classes, 1)

    def forward(self, images):
        assert images.shape[2:] == (16, 24)
        return self.last(self.stem(images))


class Windows(Family):
    def architectures(self):
        return {"Window": Window}

    def build(self, kind, encoder, classes, options):
        return kind(classes, **options)

    def owns(self, network):
        return isinstance(network, Window)

    def sizes(self, network):
        return Sizes(fixed=(16, 24))

    def features(self, network):
        return ("stem",)


FAMILY = Windows()
'''
TRIED = """
import torch
from segkd.models.adapters import Adapter
from segkd.models.building import create_network
from segkd.models.taps import FeatureTap
from segkd.recipe import networks

assert networks.unknown_architecture("window") is None and "Window" in networks.without_encoder()
adapter = Adapter(create_network("window", None, 5, {"width": 6}), 5)
assert adapter(torch.randn(2, 3, 40, 50)).shape == (2, 5, 40, 50)
with FeatureTap(adapter.network, adapter.family.features(adapter.network)).open() as maps:
    adapter(torch.randn(2, 3, 16, 24))
assert [tuple(each.shape) for each in maps] == [(2, 6, 16, 24)]
"""


class Fixed(nn.Module):
    """Logits at half the size of images of 16x24, and of no others."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 5, 2, stride=2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        assert images.shape[2:] == (16, 24)
        return self.body(images)


@pytest.fixture
def of_fixed_size() -> Adapter:
    adapter = Adapter(Fixed(), 5)
    adapter.sizes = Sizes(fixed=(16, 24))
    return adapter


@pytest.mark.parametrize("size", [(16, 24), (40, 50), (7, 9)])
def test_a_network_of_a_fixed_size_is_shown_images_of_it_and_its_logits_are_brought_back(of_fixed_size, size):
    images = torch.randn(2, 3, *size)
    logits = of_fixed_size(images)
    shown = images if size == (16, 24) else F.interpolate(images, (16, 24), mode="bilinear", align_corners=False)
    wanted = F.interpolate(of_fixed_size.network(shown), size, mode="bilinear", align_corners=False)
    torch.testing.assert_close(logits, wanted)
    assert of_fixed_size.sizes.takes(size) == (size == (16, 24))


def test_images_that_are_taken_as_they_are():
    rule = Sizes(8)
    assert rule.takes((16, 24)) and not rule.takes((16, 20))
    images = torch.randn(1, 3, 16, 24)
    assert rule.fitted(images) is images and rule.fitted(images[..., :20]).shape == (1, 3, 16, 24)


def test_each_network_has_its_family_and_one_that_nobody_knows_the_plainest():
    assert len(families()) >= 2
    for arch, encoder, kind in (("FPN", "tu-resnet10t", "SMP"), ("SegNet", None, "SegNets")):
        network = create_network(arch, encoder, 5, {"width": 2} if arch == "SegNet" else {})
        assert type(family_of(network)).__name__ == kind
    assert type(family_of(nn.Conv2d(3, 5, 1))) is Family and isinstance(
        create_network("segnet", None, 3, {"width": 2}), SegNet
    )


def test_a_further_family_is_one_file(tmp_path):
    shutil.copytree(ROOT / "segkd", tmp_path / "segkd", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "segkd" / "models" / "families" / "window.py").write_text(OTHER)
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", TRIED], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr
