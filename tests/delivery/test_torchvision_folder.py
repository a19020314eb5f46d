"""A student of torchvision as a folder: torchvision reads it alone, segkd reads it back, and a file of it can be deployed."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from segkd.delivery.deployed import Deployed
from segkd.delivery.folder import load_student, save_network
from segkd.delivery.pt2 import exported_program
from segkd.foundation.errors import TeacherError
from segkd.models.building import create_network
from tests.delivery.outside import MEAN, NAMES, PALETTE, STD, WITHOUT_SEGKD
from tests.waiting import PATIENCE

LRASPP = "lraspp_mobilenet_v3_large"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    network = create_network(LRASPP, None, len(NAMES), {}).train()
    with torch.no_grad():
        for _ in range(3):
            network(torch.randn(4, 3, 64, 64))  # so that statistics that were not saved would show
    place = tmp_path_factory.mktemp("torchvision") / "student"
    return save_network(network, place, names=NAMES, palette=PALETTE, mean=MEAN, std=STD, stride=1, shorter_side=256)


def test_its_card_runs_where_there_is_no_segkd(folder: Path, tmp_path: Path) -> None:
    place = shutil.copytree(folder, tmp_path / "elsewhere")
    text = (place / "README.md").read_text()
    (code,) = re.findall(r"```python\n(import json.*?)```", text, re.DOTALL)
    assert f"segmentation.{LRASPP}(" in code and "padded" not in text
    (place / "card.py").write_text(code.replace('Image.new("RGB", (640, 480))', 'Image.open("photo.png")'))
    image = np.random.default_rng(0).integers(0, 256, (77, 101, 3), dtype=np.uint8)
    Image.fromarray(image).save(place / "photo.png")
    runs = f"{WITHOUT_SEGKD}\nexec(open('card.py').read())\ntorch.save(logits, 'logits.pt')"
    done = subprocess.run(
        [sys.executable, "-I", "-c", runs], cwd=place, env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    x = (torch.from_numpy(image).float() / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
    with torch.no_grad():
        own = load_student(folder)(x.permute(2, 0, 1)[None])
    torch.testing.assert_close(torch.load(place / "logits.pt"), own, rtol=1e-4, atol=1e-4)


def test_the_folder_says_what_it_is_and_is_read_back(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md", "config.json", "model.safetensors", "preprocess.json",
    ]  # fmt: skip
    assert json.loads((folder / "config.json").read_text()) == {"_model_class": LRASPP, "classes": len(NAMES)}
    student = load_student(folder)
    assert (student.stride, student.head_stride, student.names) == (1, 8, tuple(NAMES))


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"_model_class": "deeplabv3_mobilenet_v3_large"}, "the weights of a lraspp_mobilenet_v3_large"),
        ({"_model_class": "AutoModelForSemanticSegmentation"}, "is no network that a student can be"),
        ({"_model_class": "exported"}, "is no network that a student can be"),
        ({"weights_backbone": "IMAGENET1K_V1"}, "weights_backbone is no argument of"),
        ({"classes": 4}, "4 classes, but preprocess.json names 3"),
    ],
)
def test_a_changed_description_is_refused(folder: Path, tmp_path: Path, changed: dict[str, object], line: str) -> None:
    place = shutil.copytree(folder, tmp_path / "changed")
    config = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps(config | changed))
    with pytest.raises(TeacherError, match=line):
        load_student(place)


@pytest.mark.slow
def test_a_program_of_it_takes_any_size_from_32_pixels_on(folder: Path) -> None:
    student = load_student(folder)
    program = exported_program(Deployed(student), student.stride).module()
    for size in ((1, 3, 32, 32), (2, 3, 57, 93), (3, 3, 96, 64)):
        images = torch.randn(size)
        with torch.no_grad():
            torch.testing.assert_close(program(images), student(images), rtol=1e-4, atol=1e-4)
