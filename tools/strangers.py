"""Three teachers of the panel as strangers make theirs: a plain PyTorch loop on CamVid, and no part of segkd.

python tools/strangers.py lraspp|unpooling|segformer OUT [--steps 1600] [--threads 1]

What is written is what torchvision's training scripts write, the network beside optimiser, schedule and arguments; of
Hugging Face's SegFormer the folder of `save_pretrained`, with its processor. How it goes stands in OUT with the suffix .jsonl.
"""

import argparse
import importlib.util
import json
import os
import time
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.segmentation import lraspp_mobilenet_v3_large

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
CLASSES, VOID, CROP, BATCH = 11, 11, 192, 8


def network(name: str) -> nn.Module:
    """One of the two, from random weights."""
    if name == "lraspp":
        return lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=CLASSES)
    if name == "segformer":
        from transformers import SegformerConfig, SegformerForSemanticSegmentation

        names = dict(
            enumerate(json.loads(Path(os.environ["SEGKD_DATA"], "camvid256/classes.json").read_text())["classes"])
        )
        return SegformerForSemanticSegmentation(
            SegformerConfig(id2label=names, label2id={name: k for k, name in names.items()})
        )
    file = Path(__file__).resolve().parents[1] / "recipes/panel/unpooling.py"
    spec = importlib.util.spec_from_file_location("unpooling", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.build()


def read(split: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Each image (H,W,3) RGB of CamVid's split with its class ids (H,W)."""
    folder = Path(os.environ["SEGKD_DATA"], "camvid256")
    pairs = [line.split() for line in (folder / f"{split}.txt").read_text().splitlines() if line.strip()]
    return [
        (
            cv2.cvtColor(cv2.imread(str(folder / image)), cv2.COLOR_BGR2RGB),
            cv2.imread(str(folder / label), cv2.IMREAD_GRAYSCALE),
        )
        for image, label in pairs
    ]


def changed(image: np.ndarray, label: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A crop of another scale, half of them mirrored, some lighter or darker."""
    scale = random.uniform(0.8, 1.8)
    size = [max(CROP, round(side * scale)) for side in image.shape[1::-1]]
    image = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
    label = cv2.resize(label, size, interpolation=cv2.INTER_NEAREST)
    top, left = (int(random.integers(side - CROP + 1)) for side in label.shape)
    image, label = (each[top : top + CROP, left : left + CROP] for each in (image, label))
    if random.random() < 0.5:
        image, label = image[:, ::-1], label[:, ::-1]
    return np.clip(image * random.uniform(0.7, 1.3), 0, 255).astype(np.uint8), label


def shown(images: np.ndarray) -> Tensor:
    """(N,H,W,3) RGB as the network takes it."""
    return ((torch.from_numpy(images).float() / 255 - MEAN) / STD).permute(0, 3, 1, 2).contiguous()


def logits(model: nn.Module, images: Tensor) -> Tensor:
    """(N,C,H,W), of torchvision's networks too."""
    found = model(images)
    if hasattr(found, "logits"):
        return F.interpolate(found.logits, images.shape[2:], mode="bilinear", align_corners=False)
    return found["out"] if isinstance(found, dict) else found


@torch.no_grad()
def miou(model: nn.Module, pairs: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """On images padded to sides of a multiple of 32."""
    confusion = np.zeros((CLASSES, CLASSES))
    for image, label in pairs:
        height, width = label.shape
        x = F.pad(shown(image[None]), (0, -width % 32, 0, -height % 32), mode="replicate")
        found = logits(model.eval(), x)[0, :, :height, :width].argmax(0).numpy()
        known = label != VOID
        np.add.at(confusion, (label[known], found[known]), 1)
    hit = confusion.diagonal()
    return float(np.nanmean(hit / (confusion.sum(0) + confusion.sum(1) - hit)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=("lraspp", "unpooling", "segformer"))
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=1600)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    random, begun = np.random.default_rng(0), time.time()
    model, train, val = network(args.name), read("train"), read("val")
    share = np.bincount(np.concatenate([label.ravel() for _, label in train]), minlength=VOID + 1)[:CLASSES]
    rare = torch.tensor((share.mean() / share) ** 0.5, dtype=torch.float32).clamp(max=4)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, weight_decay=2e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.lr, args.steps, pct_start=0.05)
    for step in range(args.steps):
        chosen = [changed(*train[place], random) for place in random.integers(len(train), size=BATCH)]
        images, labels = (np.stack(each) for each in zip(*chosen, strict=True))
        found = logits(model.train(), shown(images))
        loss = F.cross_entropy(found, torch.from_numpy(labels).long(), rare, ignore_index=VOID)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if (step + 1) % 200 == 0:
            line = {"step": step + 1, "loss": round(loss.item(), 4), "seconds": round(time.time() - begun, 1)}
            if (step + 1) % 800 == 0 or step + 1 == args.steps:
                line["val_miou"] = round(miou(model, val), 4)
            with args.out.with_suffix(".jsonl").open("a") as log:
                log.write(json.dumps(line) + "\n")
    if args.name == "segformer":
        from transformers import SegformerImageProcessor

        model.save_pretrained(args.out)
        SegformerImageProcessor(image_mean=MEAN.tolist(), image_std=STD.tolist()).save_pretrained(args.out)
        return
    saved = {
        "model": model.state_dict(), "optimizer": optimizer.state_dict(), "lr_scheduler": schedule.state_dict(),
        "epoch": args.steps * BATCH // len(train), "args": args,
    }  # fmt: skip
    torch.save(saved, args.out)


if __name__ == "__main__":
    main()
