"""The folder of the real data sets, and a NYUv2 of a few small frames in both of its forms."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

KINDS = 894


@pytest.fixture
def real() -> Path:
    if "SEGKD_DATA" not in os.environ:
        pytest.skip("SEGKD_DATA is not set")
    return Path(os.environ["SEGKD_DATA"])


@dataclass
class Nyu:
    """Frames as a camera and an annotator saw them, and how to write them down.

    `images` (N,H,W,3) uint8 and `kinds` (N,H,W) of 0 to 894; `to_40` and `to_13` map kinds to 40 classes and those to
    13, each from 1 with 0 for void.
    """

    images: np.ndarray
    kinds: np.ndarray
    train: Sequence[int] = (2, 3, 5)
    test: Sequence[int] = (4, 1)
    to_40: np.ndarray = field(default_factory=lambda: _mapping(1, KINDS, 40))
    to_13: np.ndarray = field(default_factory=lambda: _mapping(2, 40, 13))

    def ids(self, classes: int) -> np.ndarray:
        """(N,H,W) uint8, 0 for void and classes from 1."""
        return self.to_40[self.kinds] if classes == 40 else self.to_13[self.to_40[self.kinds]]

    def write_official(self, root: Path) -> Path:
        """MATLAB's files: HDF5 behind a block of 512 bytes with all axes reversed, and three small ones of MATLAB 5."""
        root.mkdir(parents=True, exist_ok=True)
        path = root / "nyu_depth_v2_labeled.mat"
        with h5py.File(path, "w", userblock_size=512) as file:
            file.create_dataset("images", data=self.images.transpose(0, 3, 2, 1), compression="gzip")
            file.create_dataset("labels", data=self.kinds.transpose(0, 2, 1), compression="gzip")
        with path.open("r+b") as raw:
            raw.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")
        columns = {"trainNdxs": np.array([self.train], np.uint16).T, "testNdxs": np.array([self.test], np.uint16).T}
        savemat(root / "splits.mat", columns)
        savemat(root / "classMapping40.mat", {"mapClass": self.to_40[None, 1:]})
        struct = {"labels13": self.to_13[None, 1:], "classNames": np.array([["bed"]], object)}
        savemat(root / "class13Mapping.mat", {"classMapping13": struct})
        return root

    def write_prepared(self, root: Path) -> Path:
        """PNG files in folders, and lists."""
        for folder in ("images", "labels40", "labels13"):
            (root / folder).mkdir(parents=True)
        for frame in (*self.train, *self.test):
            Image.fromarray(self.images[frame - 1]).save(root / "images" / f"{frame:04d}.png")
            for classes in (40, 13):
                Image.fromarray(self.ids(classes)[frame - 1]).save(root / f"labels{classes}" / f"{frame:04d}.png")
        for name, frames in (("train", self.train), ("test", self.test)):
            (root / f"{name}.txt").write_text("".join(f"{frame:04d}\n" for frame in frames))
        return root


def _mapping(seed: int, count: int, classes: int) -> np.ndarray:
    drawn = np.random.default_rng(seed).integers(1, classes + 1, count, dtype=np.uint8)
    return np.concatenate([np.zeros(1, np.uint8), drawn])


@pytest.fixture
def nyu() -> Nyu:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (5, 12, 16, 3), dtype=np.uint8)
    return Nyu(images, random.integers(0, KINDS + 1, (5, 12, 16), dtype=np.uint16))
