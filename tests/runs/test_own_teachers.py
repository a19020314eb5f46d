"""Teachers of other libraries, as docs/own_teacher.md says: one recipe, one command, a student; measured and drawn."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from segkd import load_student
from segkd.cli.main import main
from segkd.models.building import create_network
from segkd.recipe.strict_yaml import dump
from tests.pictures import encoded, photo

PAGE = (Path(__file__).parents[2] / "docs" / "own_teacher.md").read_text("utf-8")
SMALL = {
    "extends": "base/ddad.yaml",
    "student": {"arch": "DeepLabV3Plus", "encoder": "tu-resnet10t",
                "options": {"channels": [8, 8, 8, 8], "stem_width": 8, "decoder_channels": 8}},
    "synth": {"size": [32, 64], "width": 4, "replay": 2},
    "data": {"name": None},
    "run": {"steps": 2, "batch": 2, "device": "cpu", "precision": "fp32", "dir": "made"},
}  # fmt: skip


def lraspp(path: Path) -> None:
    from torchvision.models.segmentation import lraspp_mobilenet_v3_large

    network = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=11)
    with torch.no_grad():
        network(torch.randn(2, 3, 64, 64))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    told = {"optimizer": optimizer.state_dict(), "epoch": 29, "args": argparse.Namespace(lr=0.1)}
    torch.save({"model": network.state_dict(), **told}, path)


def segformer(path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.SegformerConfig(
        hidden_sizes=[8, 16, 24, 32], depths=[1] * 4, num_attention_heads=[1, 2, 3, 4], decoder_hidden_size=16, num_labels=11
    )  # fmt: skip
    network = transformers.SegformerForSemanticSegmentation(config)
    with torch.no_grad():
        network(torch.randn(2, 3, 64, 64))
    network.save_pretrained(path)
    transformers.SegformerImageProcessor().save_pretrained(path)


def deeplab(path: Path) -> None:
    network = create_network("DeepLabV3Plus", "tu-resnet10t", 11, {})
    with torch.no_grad():
        network(torch.randn(2, 3, 64, 64))
    save_file(network.state_dict(), path)


@pytest.mark.parametrize(
    ("section", "write", "known"),
    [
        ("torchvision", lraspp, (11, 0.485, 0.229)),
        ("Hugging Face", segformer, (11, 0.485, 0.229)),
        ("A student of fewer classes", deeplab, (4, 0.5, 0.5)),
    ],
)
def test_the_page_is_what_happens(section, write, known, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    said = re.search(rf"## {section}\n.*?```yaml\n(.*?)```", PAGE, re.DOTALL)[1]
    write(Path(re.search(r"weights: (\S+)", said)[1]))
    Path("my.yaml").write_text(dump(SMALL) + said)
    Path("photos").mkdir()
    Path("photos/one.png").write_bytes(encoded(photo(40, 60)))
    assert main(["recipes", "validate", "my.yaml"]) == 0
    assert main(["distill", "my.yaml", "game.student_moves=1"]) == 0
    student = load_student("made/student")
    assert (student.classes, student.mean[0], student.std[0]) == known
    assert main(["visualize", "made", "photos", "--out", "drawn", "--teacher", "my.yaml"]) == 0
    assert [path.name for path in Path("drawn").iterdir()] == ["one_panel.png"]
    assert "bug" not in capsys.readouterr().err
