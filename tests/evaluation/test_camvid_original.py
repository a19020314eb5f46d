"""CamVid at its original size: `segkd.evaluate` against a network loaded by hand, other readers and another count."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
from safetensors.torch import load_file

from segkd import evaluate

ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.realdata,
    pytest.mark.skipif("SEGKD_DATA" not in os.environ, reason="SEGKD_DATA is not set"),
]


def counted_by_hand(root: Path) -> np.ndarray:
    """The confusion (11,11), rows = labels, of the shipped CamVid teacher on the 480x360 images that `test.txt` lists."""
    network = smp.DeepLabV3Plus(
        "tu-resnet10t",
        encoder_weights=None,
        classes=11,
        decoder_channels=192,
        channels=[48, 96, 192, 384],
        stem_width=24,
    )
    network.load_state_dict(load_file(ROOT / "recipes/teachers/camvid_deeplabv3plus.safetensors"))
    network.eval()
    counts = np.zeros((11, 11), np.int64)
    for line in (root / "test.txt").read_text().splitlines():
        image, label = (root / word.removeprefix("/SegNet/CamVid/") for word in line.split())
        pixels = cv2.imread(str(image))[:, :, ::-1].astype(np.float32)
        pixels = cv2.copyMakeBorder(pixels, 0, 8, 0, 0, cv2.BORDER_REPLICATE)  # 360 is no multiple of 16
        with torch.inference_mode():
            logits = network(torch.from_numpy((pixels / 255 - 0.5) / 0.5).permute(2, 0, 1)[None])
        predicted, truth = logits[0, :, :360].argmax(0).numpy(), cv2.imread(str(label), cv2.IMREAD_UNCHANGED)
        assert truth.shape == predicted.shape == (360, 480)
        counted = truth < 11  # 11 is void
        counts += np.bincount(11 * truth[counted].astype(int) + predicted[counted], minlength=121).reshape(11, 11)
    return counts


def first_images(folder: Path, count: int) -> Path:
    """The first `count` lines of the published list, beside links to the real folders."""
    real = Path(os.environ["SEGKD_DATA"]) / "camvid_test"
    for name in ("test", "testannot"):
        (folder / name).symlink_to(real / name)
    lines = (real / "test.txt").read_text().splitlines(keepends=True)
    assert len(lines) == 233 and lines[0].startswith("/SegNet/CamVid/test/")
    (folder / "test.txt").write_text("".join(lines[:: len(lines) // count][:count]))
    return folder


@pytest.mark.parametrize("count", [4, pytest.param(233, marks=pytest.mark.slow)])
def test_the_shipped_teacher_at_480x360(tmp_path: Path, count: int) -> None:
    root = first_images(tmp_path, count)
    how = {"who": "teacher", "data": "camvid", "root": str(root), "split": "test", "size": "original"}
    scores = evaluate(ROOT / "recipes/camvid_deeplab.yaml", **how, device="cpu", precision="fp32")
    wanted = counted_by_hand(root)
    found = np.array(scores["confusion"])
    assert scores["images"] == count and scores["size"] == [360, 480]
    assert np.array_equal(found.sum(1), wanted.sum(1))  # the labels are the same to the pixel
    assert np.abs(found - wanted).sum() <= 2e-5 * wanted.sum()  # batches of eight round otherwise than single images
    union = wanted.sum(0) + wanted.sum(1) - np.diag(wanted)
    assert scores["miou"] == pytest.approx((np.diag(wanted)[union > 0] / union[union > 0]).mean(), abs=1e-4)
    assert scores["miou"] > 0.35
