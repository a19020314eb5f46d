"""The student's folder: it loads without segkd and offline, gives the same logits, and says what it is."""

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
from huggingface_hub import ModelCard
from PIL import Image

from segkd.delivery.folder import LoadedStudent, load_student, save_network, write_card
from segkd.foundation.errors import ArgumentError, NumbersError, SegkdError, StorageError, TeacherError
from segkd.models.adapters import Adapter
from segkd.models.building import create_network
from segkd.models.weights import read_state
from tests.delivery.outside import MEAN, NAMES, PALETTE, STD, WITHOUT_SEGKD
from tests.waiting import PATIENCE

NETWORKS = {
    "options": ("FPN", "tu-resnet10t", {"channels": [16, 24, 32, 48], "decoder_pyramid_channels": 32}),
    "stride": (
        "DeepLabV3Plus",
        "tu-resnet10t",
        {"channels": [8, 8, 16, 16], "encoder_output_stride": 8, "decoder_channels": 16},
    ),
    "classic": ("unet", "mobilenet_v2", {"decoder_channels": [16, 8, 8, 4, 4]}),
}

OUTSIDER = (
    WITHOUT_SEGKD
    + """
import json
from pathlib import Path
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
    assert min(height, width) <= about["size"]["shorter_side"]
    image = numpy.pad(image, ((0, -height % multiple), (0, -width % multiple), (0, 0)), mode="edge")
    with torch.no_grad():
        logits = network(torch.from_numpy(image.transpose(2, 0, 1)[None].copy()))
    numpy.save(folder.with_suffix(".npy"), logits[0, :, :height, :width].numpy())
assert not any(name.split(".")[0] == "segkd" for name in sys.modules)
"""
)


def network(kind: str) -> torch.nn.Module:
    torch.manual_seed(0)
    made = create_network(*NETWORKS[kind][:2], len(NAMES), NETWORKS[kind][2])
    for module in made.modules():  # so that running statistics that were not saved would show
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
    with torch.no_grad():
        made.segmentation_head[0].weight *= 9  # masks of several classes
    return made.eval().to(memory_format=torch.channels_last)


def save(made: torch.nn.Module, folder: Path, shorter_side: int | None = 256) -> Path:
    about = {"mean": MEAN, "std": STD, "stride": Adapter(made, len(NAMES)).stride, "shorter_side": shorter_side}
    return save_network(made, folder, names=NAMES, palette=PALETTE, **about)


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
    done = subprocess.run(arguments, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=PATIENCE)
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


def test_the_config_keeps_the_options_and_no_weights_to_download(folders):
    config = json.loads((folders["options"] / "config.json").read_text())
    assert config["channels"] == [16, 24, 32, 48]
    assert config["encoder_weights"] is None


@pytest.mark.parametrize("kind", NETWORKS)
def test_the_card_tells_what_is_known_and_nothing_else(folders, kind, tmp_path):
    card = (folders[kind] / "README.md").read_text()
    head = card.split("---")[1]
    assert "license: other" in head
    assert "license: mit" not in card.lower()
    assert "licence of the teacher" in card
    assert "Hub" not in card and "Information Needed" not in card
    assert "3 classes: sky, road, car" in card and f"mean {MEAN}" in card and f"std {STD}" in card
    assert "shorter side has more than 256" in card and "has not been measured" in card
    known = shutil.copytree(folders[kind], tmp_path / "known")
    write_card(known, network(kind), ["mIoU 0.5 on a set", "agreement 0.9"])
    card = (known / "README.md").read_text()
    assert "- mIoU 0.5 on a set\n- agreement 0.9\n" in card and "has not been measured" not in card


@pytest.mark.parametrize("kind", NETWORKS)
def test_it_lies_as_smp_pushes_it_to_the_hub_with_a_card_that_has_its_metadata(folders, kind, tmp_path):
    """`push_to_hub` uploads what `save_pretrained` writes; the card's block is what the hub's own reader finds."""
    import segmentation_models_pytorch as smp

    made = smp.from_pretrained(folders[kind])
    made.save_pretrained(tmp_path / "pushed")
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "pushed" / name).read_bytes() == (folders[kind] / name).read_bytes()
    again, state = smp.from_pretrained(tmp_path / "pushed").state_dict(), read_state(tmp_path / "pushed")
    assert all(
        torch.equal(value, again[key]) and torch.equal(value, state[key]) for key, value in made.state_dict().items()
    )
    assert ModelCard.load(folders[kind] / "README.md").data.to_dict() == {
        "license": "other", "library_name": "segmentation-models-pytorch", "pipeline_tag": "image-segmentation",
        "tags": ["semantic-segmentation", "pytorch", "segkd"],
    }  # fmt: skip


def test_the_lines_of_the_card_run(image, tmp_path, monkeypatch, one_thread):
    """As they stand, and on a photo larger than the student is shown; with segkd and without the same mask."""
    photo = np.asarray(Image.fromarray(image).resize((620, 400)))
    for side in (256, None):
        folder = save(network("stride"), tmp_path / str(side), side)
        Image.fromarray(photo).save(folder / "photo.png")
        monkeypatch.chdir(folder)
        blocks = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
        assert len(blocks) == 2 and len(blocks[0].strip().splitlines()) == 5 and "segkd" not in blocks[1]
        wanted = load_student(folder).predict(photo)
        assert len(np.unique(wanted)) > 1
        for block, least in zip(blocks, (1, 0.999), strict=True):
            photographed = block.replace("np.zeros((480, 640, 3), np.uint8)", "np.asarray(Image.open('photo.png'))")
            photographed = photographed.replace('Image.new("RGB", (640, 480))', "Image.open('photo.png')")
            as_they_stand, shown = {}, {"Image": Image}
            exec(block, as_they_stand)
            exec(photographed, shown)
            assert as_they_stand["mask"].shape == (480, 640)
            assert (shown["mask"] == wanted).mean() >= least


@pytest.mark.parametrize("channels", [1, 4])
def test_networks_of_other_channels(tmp_path, monkeypatch, one_thread, channels):
    """A folder says of what images they are; with segkd and without the same mask, and RGB becomes grey for one channel."""
    made = create_network("FPN", "tu-resnet10t", len(NAMES), NETWORKS["options"][2], channels=channels).eval()
    folder = save_network(made, tmp_path / "it", names=NAMES, palette=PALETTE, mean=[0.5] * channels, std=[0.25] * channels,
                          stride=32, shorter_side=256)  # fmt: skip
    student, random = load_student(folder), np.random.default_rng(0)
    assert student.channels == channels
    assert json.loads((folder / "preprocess.json").read_text())["channels"] == ("grey" if channels == 1 else 4)
    image = random.integers(0, 256, (300, 400, 4 if channels == 4 else 3), np.uint8)
    if channels == 1:
        grey = np.asarray(Image.fromarray(image).convert("L"))
        masks = student.predict([grey, grey[..., None], grey[..., None].repeat(3, axis=2)])
        assert all((mask == masks[0]).all() for mask in masks)
        small = np.asarray(Image.fromarray(image).resize((341, 256), Image.Resampling.BILINEAR).convert("L"))
    else:
        small = np.stack([np.asarray(Image.fromarray(image[..., k]).resize((341, 256), 2)) for k in range(4)], axis=2)
    x = torch.tensor(small.reshape(256, 341, channels)).permute(2, 0, 1)[None].float().div(255).sub(0.5).div(0.25)
    with torch.no_grad():
        logits = made(torch.nn.functional.pad(x, (0, 11, 0, 0), mode="replicate"))[..., :341]
        wanted = torch.nn.functional.interpolate(logits, (300, 400), mode="bilinear").argmax(1)[0].numpy()
    assert (student.predict(image) == wanted).mean() > 0.999
    monkeypatch.chdir(folder)
    Image.fromarray(image).save("photo.png")
    for block in re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL):
        exec(block, as_they_stand := {})
        assert as_they_stand["mask"].shape == (480, 640)
        picture = block.replace("np.zeros((480, 640, 4), np.uint8)", "np.asarray(Image.open('photo.png'))")
        picture = picture.replace("np.zeros((480, 640), np.uint8)", "np.asarray(Image.open('photo.png'))")
        exec(picture.replace('Image.new("RGB", (640, 480))', "Image.open('photo.png')"), shown := {"Image": Image})
        assert (shown["mask"] == wanted).mean() > 0.999
    for wrong in (
        image[..., :2],
        image.astype(float),
        "photo.png",
        Image.fromarray(image),
        torch.zeros(channels, 8, 8),
    ):
        with pytest.raises(ArgumentError, match=r"expected an image .*\(H,W,[14]\)"):
            student.predict(wrong)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"in_channels": 3}))
    with pytest.raises(TeacherError, match="images of 3 channels, but of [14] in preprocess.json"):
        load_student(folder)


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_every_file_may_be_read_by_whom_the_umask_lets(folders, tmp_path, umask):
    before = os.umask(umask)
    try:
        folder = save(network("options"), tmp_path / "student")
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o666 & ~umask}


@pytest.fixture(scope="module")
def student(folders) -> LoadedStudent:
    return load_student(folders["options"])


def test_one_image_gives_one_mask_and_a_list_a_list(student, image):
    mask = student.predict(image)
    assert mask.shape == image.shape[:2] and mask.dtype == np.uint8
    (alone,) = student.predict([image])
    assert (alone == mask).all() and student.predict([]) == []
    for several in (np.stack([image, image[::-1]]), (image, image[::-1]), iter([image, image[::-1]])):
        found = student.predict(several)
        assert isinstance(found, list) and len(found) == 2 and (found[0] == mask).all()
    image.setflags(write=False)
    assert (student.predict(image) == mask).all()


WRONG = {
    "float": lambda i: i.astype(np.float32) / 255,
    "float64": lambda i: i / 255,
    "half": lambda i: (i / 255).astype(np.float16),
    "uint16": lambda i: i.astype(np.uint16) * 257,
    "int64": lambda i: i.astype(np.int64),
    "bool": lambda i: i > 100,
    "grey": lambda i: i[..., 0],
    "grey with an axis": lambda i: i[..., :1],
    "grey and alpha": lambda i: i[..., :2],
    "RGBA": lambda i: np.concatenate([i, i[..., :1]], 2),
    "channels first": lambda i: i.transpose(2, 0, 1),
    "empty": lambda i: i[:0],
    "no shape": lambda i: np.uint8(3),
    "an object": lambda i: np.array([i, None], object)[:1],
    "five axes": lambda i: i[None, None],
    "one axis": lambda i: i[0, 0],
    "five channels": lambda i: np.concatenate([i, i[..., :2]], 2),
    "big-endian": lambda i: i.astype(">u2"),
    "masked": lambda i: np.ma.masked_array(i, i > 9),
    "text": lambda i: np.full((4, 4, 3), "a"),
    "path": lambda i: "photo.jpg",
    "Path": lambda i: Path("photo.jpg"),
    "tensor": lambda i: torch.from_numpy(i.copy()),
    "float tensor": lambda i: torch.rand(3, 8, 8),
    "PIL": lambda i: Image.fromarray(i),
    "bytes": lambda i: i.tobytes(),
    "nothing": lambda i: None,
    "a number": lambda i: 3,
    "lists": lambda i: i.tolist(),
    "a dict": lambda i: {"image": i},
}


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("kind", WRONG)
def test_what_is_no_image_is_one_line_that_says_what_is(student, image, kind, alone):
    wrong = WRONG[kind](image)
    with pytest.raises(ArgumentError, match=r"expected an RGB image as a NumPy array \(H,W,3\) of uint8") as caught:
        student.predict(wrong if alone else [image, wrong])
    assert "\n" not in str(caught.value) and "sparse" not in str(caught.value)
    assert isinstance(caught.value, TypeError) and isinstance(caught.value, SegkdError)
    assert alone or str(caught.value).startswith("images[1]: ")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_input_goes_into_the_numbers_of_the_network(folders, image, dtype):
    student = load_student(folders["options"])
    wanted = student.predict(image)
    assert (student.to(dtype).predict(image) == wanted).mean() > 0.9


@pytest.mark.parametrize("channels_last", [True, False])
def test_a_mask_does_not_depend_on_the_mode_nor_leave_it(folders, image, channels_last):
    """In train mode its masks would be those of one image's statistics, and its own would be gone."""
    student = load_student(folders["options"])
    wanted, before = student.predict(image), {k: v.clone() for k, v in student.state_dict().items()}
    student.train()
    student.network.encoder.eval()
    if channels_last:
        student.to(memory_format=torch.channels_last)
    assert (student.predict(image) == wanted).mean() > 0.999
    assert student.training and not student.network.encoder.training
    assert all(torch.equal(value, before[key]) for key, value in student.state_dict().items())


def test_logits_that_are_not_finite_are_no_mask(folders, image):
    student = load_student(folders["options"])
    with torch.no_grad():
        student.network.segmentation_head[0].weight[1] = torch.inf
    with pytest.raises(NumbersError, match="not finite"):
        student.predict(image)


def test_it_is_shown_what_it_was_measured_at_and_masks_have_the_images_own_size(folders, tmp_path):
    photo = np.random.default_rng(1).integers(0, 256, (30, 47, 3), dtype=np.uint8)
    photo = np.asarray(Image.fromarray(photo).resize((470, 300), Image.Resampling.BICUBIC))
    student = load_student(folders["options"])
    assert student.shorter_side == 256 and student.size_known
    shown = []
    handle = student.network.register_forward_pre_hook(lambda module, given: shown.append(tuple(given[0].shape[-2:])))
    assert student.predict(photo).shape == (300, 470)
    assert student.predict(photo, size="original").shape == (300, 470)
    assert student.predict(photo, size=64).shape == (300, 470)
    assert shown == [(256, 416), (320, 480), (64, 128)]
    assert (student.predict(photo) == student.predict(photo, "protocol")).all()
    for wrong in ("full", 0, -3, 2.5, True, (300, 470)):
        with pytest.raises(ArgumentError, match="expected protocol, original, or the pixels"):
            student.predict(photo, size=wrong)
    handle.remove()

    original = load_student(save(network("options"), tmp_path / "original", None))
    assert original.shorter_side is None and original.size_known
    assert (original.predict(photo) == student.predict(photo, "original")).all()
    assert (original.predict(photo) != student.predict(photo)).any()

    about = json.loads((tmp_path / "original" / "preprocess.json").read_text())
    for key in ("shorter_side", "reduce", "enlarge"):  # a folder of an older version
        about["size"].pop(key)
    (tmp_path / "original" / "preprocess.json").write_text(json.dumps(about))
    old = load_student(tmp_path / "original")
    assert (old.shorter_side, old.size_known) == (256, False)
    assert (old.predict(photo) == student.predict(photo)).all()


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
        ("preprocess.json", {"size": {"multiple_of": 32, "shorter_side": 0}}),
        ("preprocess.json", {"size": {"multiple_of": 32, "shorter_side": "256"}}),
        ("preprocess.json", {"size": {"multiple_of": 32, "shorter_side": 1e9}}),
        ("preprocess.json", {"classes": 3}),
        ("preprocess.json", {"channels": "BGR"}),
        ("preprocess.json", {"range": [0.0, 255.0]}),
        ("preprocess.json", {"mean": [True, 0.5, 0.5]}),
    ],
)
def test_a_changed_file_is_one_line(folders, tmp_path, name, change):
    folder = shutil.copytree(folders["options"], tmp_path / "student")
    (folder / name).write_text(json.dumps(json.loads((folder / name).read_text()) | change))
    with pytest.raises(TeacherError, match=r"not a readable student|model\.safetensors: ") as caught:
        load_student(folder)
    assert "\n" not in str(caught.value)
