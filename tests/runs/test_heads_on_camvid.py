"""Teachers with other heads, inputs, classes and forms, on real CamVid: each student beats noise and an untrained one by far.

All are the shipped teacher in disguise, so that nothing has to be trained for them.
"""

import os
from pathlib import Path

import cv2
import pytest
import torch

from segkd import builders, distill
from segkd.data import catalogue
from segkd.recipe import load

pytestmark = [
    pytest.mark.slow, pytest.mark.realdata, pytest.mark.skipif("SEGKD_DATA" not in os.environ, reason="SEGKD_DATA is not set")
]  # fmt: skip
MARGIN = 0.1
ROAD, PAVEMENT, VOID = 3, 4, 11
SIZE = (128, 160)
QUICK = {
    "extends": "camvid_deeplab", "synth": {"size": list(SIZE), "replay": 20}, "data": {"final": "val"},
    "run": {"steps": 16, "device": "cpu", "eval_every": 1000, "save_every": 1000, "sample_every": 1000}, "game": {"logits": "full"},
}  # fmt: skip


class Disguised(torch.nn.Module):
    """The shipped teacher, with another input or output."""

    def __init__(self, head: str) -> None:
        super().__init__()
        self.network, self.head = builders.trained_network(load("camvid_deeplab", kind="distill").teacher), head

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits = self.network(images.expand(-1, 3, -1, -1) if self.head == "grey" else images)
        if self.head == "one logit":
            rest = [k for k in range(logits.shape[1]) if k not in (ROAD, PAVEMENT)]
            return logits[:, [ROAD, PAVEMENT]].logsumexp(1, keepdim=True) - logits[:, rest].logsumexp(1, keepdim=True)
        return logits.softmax(1) if self.head == "probabilities" else logits


@pytest.fixture
def ground(tmp_path: Path) -> Path:
    """CamVid's val with two classes, as a folder of one's own: what one walks or drives on, and all else."""
    root = Path(os.environ["SEGKD_DATA"], "camvid256")
    for kind in ("images", "masks"):
        (tmp_path / "ground" / kind / "val").mkdir(parents=True)
    for line in (root / "val.txt").read_text().splitlines()[:40]:
        image, mask = (root / part for part in line.split())
        (tmp_path / "ground/images/val" / image.name).symlink_to(image)
        ids = cv2.imread(str(mask), cv2.IMREAD_GRAYSCALE)
        two = ((ids == ROAD) | (ids == PAVEMENT)).astype("uint8")
        two[ids == VOID] = 255
        cv2.imwrite(str(tmp_path / "ground/masks/val" / f"{image.stem}.png"), two)
    (tmp_path / "ground/dataset.yaml").write_text("classes: [other, ground]\nignore: [255]\n")
    return tmp_path / "ground"


def exported(folder: Path) -> dict[str, object]:
    network = builders.trained_network(load("camvid_deeplab", kind="distill").teacher).eval()
    dynamic = {0: torch.export.Dim.AUTO}
    torch.export.save(
        torch.export.export(network, (torch.zeros(2, 3, *SIZE),), dynamic_shapes=(dynamic,)), folder / "it.pt2"
    )
    return {
        "arch": "exported",
        "encoder": None,
        "options": None,
        "recipe": None,
        "weights": str(folder / "it.pt2"),
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
    }


CASES = {
    "one logit": {"classes": ["other", "ground"]},
    "probabilities": {"output": "probabilities"},
    "grey": {"mean": [0.5], "std": [0.5]},
    "merged": {},
    "exported": {},
}


@pytest.mark.parametrize("head", CASES)
def test_the_student_beats_noise_and_an_untrained_one(head: str, tmp_path: Path, ground: Path) -> None:
    recipe = QUICK | {"teacher": {"weights": None, "mean": [0.5] * 3, "std": [0.5] * 3} | CASES[head]}
    own = {"teacher": Disguised(head)}
    if head == "merged":
        own, others = (
            {},
            [name for name in catalogue.classes_of("camvid").names if name not in ("road", "pavement")],
        )
        recipe["teacher"] = {"student_classes": {"ground": ["road", "pavement"], "other": others}}
    if head == "exported":
        own, recipe["teacher"] = {"trust_pickle": True}, exported(tmp_path)
    if head == "one logit":
        recipe["data"] = {"name": "folder", "root": str(ground), "final": "val"}
    plays = {
        "student": {"variant": "pictures"},
        "noise": {"method": "noise"},
        "untrained": {"method": "noise", "run": {"steps": 1}},
    }
    if head == "exported":  # no statistics can be seen
        plays["student"] = {"method": "kd", "synth": {"kind": "pictures", "pictures": ["leaves", "streets", "rooms"]}}
    miou = {}
    for name, play in plays.items():
        whole = recipe | {
            key: recipe.get(key, {}) | value if isinstance(value, dict) else value for key, value in play.items()
        }
        whole["run"] = whole["run"] | {"dir": str(tmp_path / name)}
        if name == "untrained":
            whole["student"] = {"optimizer": {"lr": 1e-12}}
        summary = distill(whole, quiet=True, **own)
        miou[name] = summary["student_miou_last"]
    print(head, {name: round(value, 3) for name, value in miou.items()}, "teacher", round(summary["teacher_miou"], 3))
    assert miou["student"] > max(miou["noise"], miou["untrained"]) + MARGIN, miou
