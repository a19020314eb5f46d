"""Small sets of images and masks in folders, for the tests of how they are found and read."""

from pathlib import Path

import numpy as np
from PIL import Image

NAMES = "classes: [road, car, tree]\n"


def picture(seed: int, height: int = 6, width: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def ids(seed: int, height: int = 6, width: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 3, (height, width), dtype=np.uint8)


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def filled(root: Path, *places: str, text: str = NAMES) -> Path:
    """A folder with an image or a mask at each place (a mask where `mask`, `gt` or `label` is in its name)."""
    for seed, place in enumerate(places):
        mask = any(word in place.lower() for word in ("mask", "gt", "label", "annotation", "segmentationclass"))
        write(root / place, ids(seed) if mask else picture(seed))
    root.mkdir(exist_ok=True)
    (root / "dataset.yaml").write_text(text)
    return root
