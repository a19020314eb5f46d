"""Networks of transformers as teachers: built as the folders of their weights say, and answering as they do there."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from segkd.builders import teacher_of
from segkd.foundation.errors import RecipeError, TeacherError, UsageError
from segkd.models.adapters import Adapter
from segkd.models.building import create_network, fitting_mb
from segkd.models.own import OwnNetwork
from segkd.models.taps import FeatureTap
from segkd.models.weights import load_weights, read_state
from segkd.recipe.blocks import Teacher as Block
from tests.waiting import PATIENCE

transformers = pytest.importorskip("transformers")
SEGFORMER, UPERNET, AUTO = (
    f"{name}ForSemanticSegmentation" for name in ("Segformer", "UperNet", "AutoModel")
)  # fmt: skip
STAGES = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}
OUT = {"out_features": ["stage1", "stage2", "stage3", "stage4"]}
VIT = {"image_size": 64, "hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 32}
SIDES = {"fusion_hidden_size": 16, "neck_hidden_sizes": [8, 8, 16, 16], "backbone_out_indices": [0, 1, 2, 3]}


def configs():
    backbones = {
        "resnet": transformers.ResNetConfig(embedding_size=8, **STAGES, **OUT),
        "swin": transformers.SwinConfig(
            image_size=64, embed_dim=8, depths=[1] * 4, num_heads=[1, 2, 2, 4], window_size=4, **OUT
        ),
    }
    upernets = {
        f"upernet-{name}": transformers.UperNetConfig(backbone_config=each, hidden_size=16, auxiliary_channels=8, num_labels=5)
        for name, each in backbones.items()
    }  # fmt: skip
    return upernets | {
        "segformer": transformers.SegformerConfig(
            **STAGES, num_attention_heads=[1, 2, 3, 4], decoder_hidden_size=32, num_labels=5
        ),
        "dpt": transformers.DPTConfig(**VIT, **SIDES, is_hybrid=False, num_labels=5),
        "mobilenet_v2": transformers.MobileNetV2Config(num_labels=5, depth_multiplier=0.35, output_stride=16),
    }


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Path:
    """Of each, one that `save_pretrained` wrote."""
    root = tmp_path_factory.mktemp("saved")
    for name, config in configs().items():
        torch.manual_seed(1)
        transformers.AutoModelForSemanticSegmentation.from_config(config).save_pretrained(root / name)
    return root


def loaded(folder: Path, arch: str, classes: int = 5, channels: int = 3) -> Adapter:
    state, given = read_state(folder), {"block": "teacher", "channels": channels}
    network = create_network(arch, None, classes, {}, megabytes=fitting_mb(state), folder=folder, **given)
    load_weights(network, state, folder.name)
    return Adapter(network, classes, channels=channels).eval()


def theirs(folder: Path, images: torch.Tensor) -> torch.Tensor:
    network = transformers.AutoModelForSemanticSegmentation.from_pretrained(folder).eval()
    return F.interpolate(network(images).logits, images.shape[-2:], mode="bilinear", align_corners=False)


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "arch", "head"),
    [("segformer", SEGFORMER, 4), ("upernet-resnet", UPERNET, 1), ("upernet-swin", UPERNET.lower(), 1),
     ("segformer", AUTO, 4), ("mobilenet_v2", AUTO, 16)],
)  # fmt: skip
def test_a_folder_answers_as_it_does_in_transformers(folders, name, arch, head, capfd):
    adapter = loaded(folders / name, arch)
    said = capfd.readouterr().err.splitlines()
    assert adapter.head_stride == head and len(said) == (arch.lower() == UPERNET.lower())
    assert all(f"{name}: left out auxiliary_head." in line for line in said)
    for size in ((64, 96), (67, 90)):
        images = torch.randn(2, 3, *size)
        torch.testing.assert_close(adapter(images), theirs(folders / name, images), rtol=1e-4, atol=1e-5)
    images = torch.randn(2, 3, 64, 96)
    torch.testing.assert_close(adapter.from_head(adapter(images, at_head=True)), adapter(images))
    with FeatureTap(adapter.network, adapter.features).open() as maps:
        adapter(images)
    assert maps and all(each.dim() == 4 for each in maps)


@torch.no_grad()
def test_one_that_takes_images_of_one_size_only_is_shown_those(folders):
    adapter = loaded(folders / "dpt", AUTO)
    assert adapter.sizes.fixed == (64, 64)
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(adapter(images), theirs(folders / "dpt", images), rtol=1e-4, atol=1e-5)
    assert adapter(torch.randn(1, 3, 50, 70)).shape == (1, 5, 50, 70)


@torch.no_grad()
def test_one_that_is_shown_blue_before_red_takes_segkds_images(tmp_path):
    torch.manual_seed(1)
    sides = {"hidden_sizes": [16, 24, 32], "neck_hidden_sizes": [8, 8, 16, 16, 24, 24, 32]}
    config = transformers.MobileViTConfig(num_labels=5, **sides)
    transformers.MobileViTForSemanticSegmentation(config).save_pretrained(tmp_path)
    transformers.MobileViTImageProcessor().save_pretrained(tmp_path)
    images = torch.rand(1, 3, 64, 96)
    torch.testing.assert_close(loaded(tmp_path, AUTO)(images), theirs(tmp_path, images.flip(1)), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_one_logit_is_two_classes(tmp_path, capsys):
    config = configs()["segformer"]
    config.num_labels = 1
    torch.manual_seed(1)
    network = transformers.SegformerForSemanticSegmentation(config).eval()
    network.save_pretrained(tmp_path)
    block = Block(arch=SEGFORMER, classes=["background", "crack"], weights=str(tmp_path))
    teacher, images = teacher_of(block), torch.randn(1, 3, 64, 96)
    assert "teacher: one logit, of a sigmoid: above 0 it is crack" in capsys.readouterr().err
    ours, alone = teacher(images, at_head=True), network(images).logits
    torch.testing.assert_close(ours.softmax(1)[:, 1:], alone.sigmoid())


def changed(folders: Path, tmp_path: Path, name: str = "segformer", **values: object) -> Path:
    folder = tmp_path / "changed"
    folder.mkdir()
    for file in (folders / name).iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | values))
    return folder


@pytest.mark.parametrize(
    ("arch", "values", "words"),
    [
        (SEGFORMER, {"auto_map": {"AutoConfig": "code.Config"}}, r"config.json: asks for code of its own \(auto_map\), "),
        (AUTO, {"backbone_config": {"auto_map": {"AutoConfig": "code.Config"}}}, "asks for code of its own"),
        (UPERNET, {}, f"config.json: describes a segformer: set arch: {SEGFORMER}$"),
        (SEGFORMER, {"id2label": {"0": "a", "1": "b"}}, "config.json: 2 classes, and the recipe's teacher has 5$"),
        (SEGFORMER, {"num_channels": 1}, "config.json: 1 channels of an image, and the recipe's teacher has 3$"),
        (SEGFORMER, {"quantization_config": {"load_in_8bit": True}}, r"config.json: quantised weights \(quantization_con"),
        (SEGFORMER, {"model_type": None}, f"teacher: {SEGFORMER} cannot be built: "),
        (SEGFORMER, {"hidden_sizes": [80000] * 4}, "it asks for more than the [0-9,]+ MB that it may take"),
        (SEGFORMER, {"decoder_hidden_size": 64}, r"decode_head.+: expected shape \(64.*\), found \(32"),
        (SEGFORMER, {"depths": [1, 1, 1, 2]}, "missing segformer.*; check arch"),
    ],
)  # fmt: skip
def test_what_a_folder_cannot_ask_for(folders, tmp_path, arch, values, words):
    with pytest.raises((TeacherError, RecipeError), match=words) as caught:
        loaded(changed(folders, tmp_path, **values), arch)
    assert "\n" not in str(caught.value)


@torch.no_grad()
def test_weights_in_half_precision_are_computed_in_fp32(folders, tmp_path):
    folder, images = tmp_path / "half", torch.randn(1, 3, 64, 64)
    transformers.SegformerForSemanticSegmentation.from_pretrained(folders / "segformer").half().save_pretrained(folder)
    assert json.loads((folder / "config.json").read_text())["dtype"] == "float16"
    ours = loaded(folder, SEGFORMER)(images)
    torch.testing.assert_close(ours, theirs(folders / "segformer", images), rtol=0.01, atol=0.01)


def test_one_that_somebody_has_changed_is_taken_as_it_is():
    network = transformers.SegformerForSemanticSegmentation(configs()["segformer"])
    network.decode_head.classifier = torch.nn.Conv2d(32, 3, 1)  # and its configuration still says five
    made = OwnNetwork.given(network).built()
    adapter = Adapter(made, 3).eval()
    assert adapter.head_stride == 4 and adapter(torch.randn(1, 3, 40, 64)).shape == (1, 3, 40, 64)


def test_a_tensor_too_many_is_no_part_of_it_under_an_older_name_either(folders, tmp_path):
    folder = changed(folders, tmp_path)
    state = load_file(folder / "model.safetensors")
    old = next(key for key in state if "linear_c.0" in key)
    save_file(state | {old.replace("c.0", "c.7"): state[old].clone()}, folder / "model.safetensors")
    with pytest.raises(
        TeacherError, match=r"not the weights of this network: unexpected decode_head.linear_.*\.7\.proj"
    ):
        loaded(folder, SEGFORMER)


@torch.no_grad()
def test_networks_of_grey_images(tmp_path):
    backbone = transformers.ResNetConfig(embedding_size=8, num_channels=1, **STAGES, **OUT)
    others = {"num_attention_heads": [1, 2, 3, 4], "decoder_hidden_size": 32, "num_labels": 5, "num_channels": 1}
    kinds = {
        SEGFORMER: transformers.SegformerConfig(**STAGES, **others),
        UPERNET: transformers.UperNetConfig(
            backbone_config=backbone, hidden_size=16, auxiliary_channels=8, num_labels=5
        ),
    }
    for arch, config in kinds.items():
        transformers.AutoModelForSemanticSegmentation.from_config(config).save_pretrained(tmp_path / arch)
        adapter, images = loaded(tmp_path / arch, arch, channels=1), torch.randn(2, 1, 64, 96)
        assert adapter.head_stride == (4 if arch == SEGFORMER else 1)
        torch.testing.assert_close(adapter(images), theirs(tmp_path / arch, images))
    with pytest.raises(TeacherError, match="1 channels of an image, and the recipe's teacher has 3"):
        loaded(tmp_path / SEGFORMER, SEGFORMER)


def test_weights_without_their_folder(folders, tmp_path):
    file = folders / "segformer" / "model.safetensors"
    with pytest.raises(TeacherError, match=f"no folder with a config.json: teacher.weights of {SEGFORMER} is one of"):
        create_network(SEGFORMER, None, 5, {}, folder=file)
    with pytest.raises(RecipeError, match="described by the folder of its weights, which only a teacher has"):
        create_network(SEGFORMER, None, 5, {})
    with pytest.raises(RecipeError, match=f"{SEGFORMER} has no option 'depths'$"):
        create_network(SEGFORMER, None, 5, {"depths": [1]}, folder=folders / "segformer")
    for name, arch in (("segformer", SEGFORMER), ("upernet-resnet", UPERNET)):
        with pytest.raises(
            TeacherError, match=f"the weights of a {arch}: set teacher.arch={arch} and teacher.encoder=null"
        ):
            load_weights(create_network("FPN", "tu-resnet10t", 5, {}), read_state(folders / name), "x")


def test_without_transformers_the_line_says_what_to_install(folders, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UsageError, match=r"need transformers: pip install 'segkd\[hf\]'$"):
        create_network(SEGFORMER, None, 5, {}, folder=folders / "segformer")


def test_it_is_imported_for_its_networks_only():
    tried = (
        "import sys; from segkd.models.building import create_network; from segkd.models.adapters import Adapter;"
        "Adapter(create_network('FPN', 'tu-resnet10t', 5, {}), 5); assert 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", tried], check=True, timeout=PATIENCE)
