"""A SegNet's folder: its program and its card work where segkd is not installed, and segkd reads its weights back."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from segkd.delivery import folder as delivered
from segkd.delivery.folder import load_student, save_network
from segkd.delivery.pt2 import program_bytes
from segkd.foundation.errors import StorageError, TeacherError
from segkd.models.families.segnet import SegNet
from tests.delivery.outside import MEAN, NAMES, PALETTE, STD, WITHOUT_SEGKD
from tests.waiting import PATIENCE

FILES = ["README.md", "config.json", "model.pt2", "model.safetensors", "preprocess.json"]
SIZES = [(1, 64, 96), (3, 64, 96), (1, 256, 352), (2, 96, 64)]

OUTSIDER = (
    WITHOUT_SEGKD
    + """
import torch
torch.set_num_threads(1)
exec(open("card.py").read())
found = {"card": logits}
for name, images in torch.load("inputs.pt").items():
    with torch.no_grad():
        found[name] = network(images)
for name, images in (("odd", torch.zeros(1, 3, 64, 70)), ("small", torch.zeros(1, 3, 32, 64))):
    try:
        network(images)
    except (AssertionError, RuntimeError) as error:
        print(name, error)
torch.save(found, "outputs.pt")
assert not any(name.split(".")[0] == "segkd" for name in sys.modules)
"""
)


def network() -> SegNet:
    torch.manual_seed(0)
    made = SegNet(len(NAMES), 4)
    for module in made.modules():  # so that running statistics that were not saved would show
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
    with torch.no_grad():
        made.segmentation_head.weight *= 9
    return made


def save(made: SegNet, folder: Path) -> Path:
    return save_network(made, folder, names=NAMES, palette=PALETTE, mean=MEAN, std=STD, stride=32, shorter_side=256)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return save(network().to(memory_format=torch.channels_last), tmp_path_factory.mktemp("segnet") / "student")


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (77, 101, 3), dtype=np.uint8)


def test_card_and_program_work_where_there_is_no_segkd(folder, image, tmp_path):
    place = shutil.copytree(folder, tmp_path / "elsewhere")
    (code,) = re.findall(r"```python\n(import json.*?)```", (place / "README.md").read_text(), re.DOTALL)
    (place / "card.py").write_text(code.replace('Image.new("RGB", (640, 480))', 'Image.open("photo.png")'))
    Image.fromarray(image).save(place / "photo.png")
    inputs = {str(size): torch.randn(size[0], 3, *size[1:]) for size in SIZES}
    inputs["channels_last"] = torch.randn(2, 3, 64, 64).to(memory_format=torch.channels_last)
    torch.save(inputs, place / "inputs.pt")
    arguments = [sys.executable, "-I", "-c", OUTSIDER]
    done = subprocess.run(
        arguments,
        cwd=place,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    refused = [line.split()[0] for line in done.stdout.splitlines() if "Guard failed" in line]
    assert refused == ["odd", "small"]
    found, own = torch.load(place / "outputs.pt"), load_student(folder)
    with torch.no_grad():
        for name, images in inputs.items():
            torch.testing.assert_close(found[name], own.network(images), rtol=1e-4, atol=1e-5)
        x = (torch.from_numpy(image).float() / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
        torch.testing.assert_close(found["card"], own(x.permute(2, 0, 1)[None]), rtol=1e-4, atol=1e-5)
    assert found["card"].shape == (1, 3, 77, 101)


def test_load_student_gives_the_same_network(folder, image):
    student, made = load_student(folder), network().eval()
    state = student.network.state_dict()
    assert state.keys() == made.state_dict().keys()
    assert all(torch.equal(value, state[key]) for key, value in made.state_dict().items())
    assert not student.training and (student.stride, student.head_stride) == (32, 1)
    assert (student.names, student.mean) == (tuple(NAMES), tuple(MEAN))
    (mask,) = student.predict([image])
    assert mask.shape == (77, 101) and len(np.unique(mask)) > 1


def test_the_folder_says_what_it_is(folder):
    assert sorted(p.name for p in folder.iterdir()) == FILES
    config = json.loads((folder / "config.json").read_text())
    assert config == {"_model_class": "SegNet", "classes": 3, "width": 4, "upsample": "unpool"}
    about = json.loads((folder / "preprocess.json").read_text())
    assert about["size"]["multiple_of"] == 32 and about["classes"] == NAMES
    card = (folder / "README.md").read_text()
    assert "license: other" in card.split("---")[1] and "license: mit" not in card.lower()
    assert "licence of the teacher" in card and '"width": 4' in card


def test_a_program_has_fixed_bytes_and_leaves_the_network_alone(folder):
    made = network().train()
    before = {key: value.clone() for key, value in made.state_dict().items()}
    assert program_bytes(made, 32) == (folder / "model.pt2").read_bytes()  # that one was made from channels_last
    assert made.training and all(p.requires_grad for p in made.parameters())
    assert all(torch.equal(value, before[key]) for key, value in made.state_dict().items())


def test_a_program_does_not_say_where_its_code_lay(folder):
    with zipfile.ZipFile(folder / "model.pt2") as archive:
        held = b"".join(archive.read(name) for name in archive.namelist())
    assert b"batch_norm" in held
    for path in (Path(__file__).parents[2], Path.home(), Path(torch.__file__).parent):
        assert str(path).encode() not in held


def test_a_program_that_does_not_fit_on_the_disk_leaves_the_old_folder_whole(
    folder, tmp_path, small_files, monkeypatch
):
    monkeypatch.setattr(
        delivered, "program_bytes", lambda *given: (folder / "model.pt2").read_bytes()
    )  # as it would be
    old = shutil.copytree(folder, tmp_path / "student")
    weights = (folder / "model.safetensors").stat().st_size
    assert weights + 1000 < (folder / "model.pt2").stat().st_size
    with (
        small_files(weights + 1000),
        pytest.raises(StorageError, match=r"student: cannot write: .* bytes needed") as error,
    ):
        save(network(), old)
    assert "\n" not in str(error.value)
    assert [p.name for p in tmp_path.iterdir()] == ["student"] and sorted(p.name for p in old.iterdir()) == FILES
    load_student(old)


@pytest.mark.parametrize(
    "change", [{"width": 3}, {"width": "4"}, {"upsample": "nearest"}, {"classes": 4}, {"encoder": "vgg"}]
)
def test_a_changed_config_is_one_line(folder, tmp_path, change):
    place = shutil.copytree(folder, tmp_path / "student")
    config = json.loads((place / "config.json").read_text()) | change
    (place / "config.json").write_text(json.dumps(config))
    with pytest.raises(TeacherError, match=r"not a readable student|model\.safetensors: ") as caught:
        load_student(place)
    assert "\n" not in str(caught.value)
