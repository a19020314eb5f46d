"""The student's folder: it loads without segkd and offline, gives the same logits, and says what it is."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from segkd.foundation.errors import StorageError, TeacherError
from segkd.models.adapters import Adapter, create_network
from segkd.models.student import LoadedStudent, load_student, preprocessed, save_network

MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]
NAMES, PALETTE = ["sky", "road", "car"], [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
NETWORKS = {
    "options": ("FPN", "tu-resnet10t", {"channels": [16, 24, 32, 48], "decoder_pyramid_channels": 32}),
    "stride": (
        "DeepLabV3Plus",
        "tu-resnet10t",
        {"channels": [8, 8, 16, 16], "encoder_output_stride": 8, "decoder_channels": 16},
    ),
    "classic": ("unet", "mobilenet_v2", {"decoder_channels": [16, 8, 8, 4, 4]}),
}

OUTSIDER = """
import json, sys
from pathlib import Path
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "segkd":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Blocker())
import numpy, torch
import segmentation_models_pytorch as smp
torch.set_num_threads(1)
for folder in map(Path, sys.argv[2:]):
    network = smp.from_pretrained(str(folder)).eval()
    about = json.loads((folder / "preprocess.json").read_text())
    assert about["channels"] == "RGB" and about["range"] == [0.0, 1.0]
    image = numpy.load(sys.argv[1]).astype(numpy.float32) / 255
    image = (image - numpy.float32(about["mean"])) / numpy.float32(about["std"])
    height, width = image.shape[:2]
    multiple = about["size"]["multiple_of"]
    image = numpy.pad(image, ((0, -height % multiple), (0, -width % multiple), (0, 0)), mode="edge")
    with torch.no_grad():
        logits = network(torch.from_numpy(image.transpose(2, 0, 1)[None].copy()))
    numpy.save(folder.with_suffix(".npy"), logits[0, :, :height, :width].numpy())
assert not any(name.split(".")[0] == "segkd" for name in sys.modules)
"""


def network(kind: str) -> torch.nn.Module:
    torch.manual_seed(0)
    made = create_network(*NETWORKS[kind][:2], len(NAMES), NETWORKS[kind][2])
    for module in made.modules():  # so that running statistics that were not saved would show
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
    return made.eval().to(memory_format=torch.channels_last)


def save(made: torch.nn.Module, folder: Path) -> Path:
    stride = Adapter(made, len(NAMES)).stride
    return save_network(made, folder, names=NAMES, palette=PALETTE, mean=MEAN, std=STD, stride=stride)


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (37, 51, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("students")
    return {kind: save(network(kind), place / kind) for kind in NETWORKS}


def own_logits(kind: str, image: np.ndarray) -> np.ndarray:
    x = (torch.from_numpy(image).float() / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
    with torch.no_grad():
        return Adapter(network(kind), len(NAMES))(x.permute(2, 0, 1)[None])[0].numpy()


def test_it_loads_offline_without_segkd_and_gives_the_same_logits(folders, image, tmp_path):
    np.save(tmp_path / "image.npy", image)
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "empty"), "OMP_NUM_THREADS": "1"}
    arguments = [sys.executable, "-I", "-c", OUTSIDER, str(tmp_path / "image.npy"), *map(str, folders.values())]
    done = subprocess.run(arguments, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    for kind, folder in folders.items():
        found, wanted = np.load(folder.with_suffix(".npy")), own_logits(kind, image)
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5, err_msg=kind)


@pytest.mark.parametrize("kind", NETWORKS)
def test_load_student_gives_the_same_network(folders, kind, image):
    student = load_student(folders[kind])
    wanted = network(kind).state_dict()
    assert all(torch.equal(value, wanted[key]) for key, value in student.network.state_dict().items())
    assert not student.training
    assert (student.names, student.palette) == (tuple(NAMES), tuple(map(tuple, PALETTE)))
    other = np.ascontiguousarray(image[:20, :33])
    masks = student.predict([image, other, image[::-1]])
    assert [mask.shape for mask in masks] == [(37, 51), (20, 33), (37, 51)]
    for mask, shown in zip(masks, (image, other, image[::-1].copy()), strict=True):
        assert mask.dtype == np.uint8
        agreement = (mask == own_logits(kind, shown).argmax(0)).mean()
        assert agreement > 0.999


def test_preprocessed_is_what_the_file_says(folders, image):
    about = json.loads((folders["options"] / "preprocess.json").read_text())
    x = preprocessed(image, about)
    assert x.shape == (1, 3, 64, 64)
    wanted = (image[36, 50] / 255 - np.array(MEAN)) / np.array(STD)
    np.testing.assert_allclose(x[0, :, 36, 50].numpy(), wanted, rtol=1e-5)
    np.testing.assert_allclose(x[0, :, 63, 63].numpy(), wanted, rtol=1e-5)


def test_the_config_keeps_the_options_and_no_weights_to_download(folders):
    config = json.loads((folders["options"] / "config.json").read_text())
    assert config["channels"] == [16, 24, 32, 48]
    assert config["encoder_weights"] is None


@pytest.mark.parametrize("kind", NETWORKS)
def test_the_licence_is_not_mit(folders, kind):
    card = (folders[kind] / "README.md").read_text()
    head = card.split("---")[1]
    assert "license: other" in head
    assert "license: mit" not in card.lower()
    assert "licence of the teacher" in card


def test_a_run_folder_is_as_good_as_its_student(folders, tmp_path):
    shutil.copytree(folders["options"], tmp_path / "student")
    assert isinstance(load_student(tmp_path), LoadedStudent)


def test_saving_again_replaces_the_folder(folders, tmp_path):
    folder = tmp_path / "student"
    folder.mkdir()
    (folder / "left-over").touch()
    assert save(network("options"), folder) == folder
    assert sorted(p.name for p in folder.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
        "preprocess.json",
    ]
    assert [p.name for p in tmp_path.iterdir()] == ["student"]


def test_a_failed_write_leaves_the_old_folder_whole(folders, tmp_path, small_files):
    folder = shutil.copytree(folders["options"], tmp_path / "student")
    with small_files(10_000), pytest.raises(StorageError, match="student: cannot write: .* bytes needed") as caught:
        save(network("options"), folder)
    assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["student"]
    load_student(folder)


def test_a_folder_that_is_no_folder(tmp_path):
    with pytest.raises(TeacherError, match="no config.json; name a student folder"):
        load_student(tmp_path / "nothing")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "preprocess.json"])
@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "noise"])
def test_a_damaged_folder_is_one_line(folders, tmp_path, name, damage):
    folder = shutil.copytree(folders["options"], tmp_path / "student")
    path = folder / name
    data = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes({"empty": b"", "cut": data[: len(data) // 2], "noise": b"\xff" * 50}[damage])
    with pytest.raises(TeacherError) as caught:
        load_student(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("config.json", {"_model_class": "NoSuchNet"}),
        ("config.json", {"_model_class": None}),
        ("config.json", {"classes": 4}),
        ("config.json", {"encoder_name": "resnet18"}),
        ("preprocess.json", {"size": {}}),
        ("preprocess.json", {"classes": 3}),
    ],
)
def test_a_changed_file_is_one_line(folders, tmp_path, name, change):
    folder = shutil.copytree(folders["options"], tmp_path / "student")
    (folder / name).write_text(json.dumps(json.loads((folder / name).read_text()) | change))
    with pytest.raises(TeacherError, match=r"not a readable student|model\.safetensors: ") as caught:
        load_student(folder)
    assert "\n" not in str(caught.value)
