"""The files of NYUv2 as they are published: MATLAB's, one of them HDF5 with 1449 frames and 2.8 GB.

h5py shows MATLAB's arrays with their axes reversed: an image (480,640,3) is (3,640,480) there. Transposing puts them
right; rotating, which looks as right, mirrors every image.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from segkd.data.samples import label_error
from segkd.foundation.errors import DataError

FRAMES, SPLITS, MAP_40, MAP_13 = "nyu_depth_v2_labeled.mat", "splits.mat", "classMapping40.mat", "class13Mapping.mat"
"""Frames and their 894 kinds of labels; the official split; 894 kinds to 40 classes; 40 classes to 13."""

_SMALL = 16_000_000  # bytes; a mapping or split has a few thousand


class OfficialFiles:
    """Frames by number (from 1), read one at a time.

    The large file is opened anew for each frame, which takes 0.3 ms of about 12: so there is no handle that a fork
    could share, a pickle could not carry, or the audit would miss.

    Attributes:
        count: how many frames there are.
        train, test: the numbers of the official split, sorted.
    """

    def __init__(self, files: Mapping[str, Path], counts: tuple[int, ...] = (40, 13)) -> None:
        """Look at the files and read the small ones.

        Args:
            files: where the files called `FRAMES`, `SPLITS`, `MAP_40` and, for 13 classes, `MAP_13` lie.
            counts: 40, 13 or both: the numbers of classes that `ids` will be asked for.

        Raises:
            DataError: a file is missing, damaged or not what its name says.
        """
        self.path = files[FRAMES]
        for name in (FRAMES, SPLITS, MAP_40, *([MAP_13] if 13 in counts else [])):
            if not files[name].is_file():
                raise DataError(
                    f"{files[name]}: missing; NYUv2's official files are {FRAMES}, {SPLITS} and the mappings"
                )
        with self._opened() as (images, labels):
            shapes = f"images {images.shape} {images.dtype}, labels {labels.shape} {labels.dtype}"
            fitting = labels.ndim == 3 and images.shape == (labels.shape[0], 3, *labels.shape[1:])
            if not fitting or images.dtype != np.uint8 or labels.dtype not in (np.uint8, np.uint16):
                raise DataError(
                    f"{self.path}: expected images (N,3,W,H) uint8 and labels (N,W,H) uint16, found {shapes}"
                )
            self.count = len(labels)
        self.train, self.test = (self._split(files[SPLITS], name) for name in ("trainNdxs", "testNdxs"))
        if both := set(self.train) & set(self.test):
            raise DataError(f"{files[SPLITS]}: frame {min(both)} is in both splits")
        self._classes = {40: _mapping(files[MAP_40], _variable(files[MAP_40], "mapClass"), 40)}
        if 13 in counts:
            struct = _variable(files[MAP_13], "classMapping13")
            if struct.dtype.names is None or "labels13" not in struct.dtype.names or struct.size != 1:
                raise DataError(f"{files[MAP_13]}: classMapping13 is no struct with labels13")
            self._classes[13] = _mapping(files[MAP_13], struct["labels13"].item(), 13)
            if len(self._classes[13]) != 41:
                raise DataError(f"{files[MAP_13]}: maps {len(self._classes[13]) - 1} classes, not 40")

    def read(self, frame: int) -> tuple[np.ndarray, np.ndarray]:
        """Image (H,W,3) uint8 RGB and labels (H,W) uint16 (0 unlabelled, kinds of things from 1) of a frame.

        Raises:
            DataError: it cannot be read, or a label is none of the kinds.
        """
        with self._opened() as (images, labels):
            image, kinds = images[frame - 1].transpose(2, 1, 0), labels[frame - 1].T
        known = len(self._classes[40]) - 1
        if not (allowed := kinds <= known).all():
            raise label_error(f"{self.path}: frame {frame}", kinds, allowed, f"there are {known} kinds, and 0 for none")
        return np.ascontiguousarray(image), np.ascontiguousarray(kinds)

    def ids(self, kinds: np.ndarray, count: int) -> np.ndarray:
        """Labels (H,W) as `read` gives them, as ids (H,W) uint8 of 40 or 13 classes: 0 is void, classes count from 1."""
        ids = self._classes[40][kinds]
        return ids if count == 40 else self._classes[count][ids]

    @property
    def map_40_to_13(self) -> list[int]:
        """Of void (0) and each of the 40 classes, the one of 13."""
        return self._classes[13].tolist()

    @contextmanager
    def _opened(self) -> Iterator[tuple[Any, Any]]:
        """The arrays of images and labels in the large file, which is closed afterwards."""
        import h5py

        try:
            with h5py.File(self.path, "r") as file:
                for name in ("images", "labels"):
                    if not isinstance(file.get(name), h5py.Dataset):
                        raise DataError(f"{self.path}: holds no array called {name}")
                yield file["images"], file["labels"]
        except (OSError, KeyError, RuntimeError, ValueError) as error:  # what HDF5 says about a damaged file
            reason = " ".join(str(error).split())
            raise DataError(f"{self.path}: damaged, or not HDF5 ({reason}); fetch it again") from error

    def _split(self, path: Path, name: str) -> list[int]:
        values = _variable(path, name)
        if values.dtype.kind not in "iu" or not values.size:
            raise DataError(f"{path}: {name} holds no frame numbers")
        found = sorted(int(value) for value in values.ravel())
        if found[0] < 1 or found[-1] > self.count or len(set(found)) != len(found):
            has = f"runs from {found[0]} to {found[-1]}, with {len(found) - len(set(found))} repeated"
            raise DataError(f"{path}: {name} {has}; {self.path} has frames 1 to {self.count}")
        return found


def _variable(path: Path, name: str) -> np.ndarray:
    """An array of a small MATLAB 5 file."""
    from scipy.io import loadmat

    if path.stat().st_size > _SMALL:
        raise DataError(f"{path}: {path.stat().st_size} bytes; at most {_SMALL} are read")
    try:
        found = loadmat(path, variable_names=[name])
    except Exception as error:  # a dozen types for damaged files, MemoryError for sizes that they make up among them
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path}: damaged, or not of MATLAB 5 ({reason}); fetch it again") from error
    if name not in found:
        raise DataError(f"{path}: holds no {name}")
    return found[name]


def _mapping(path: Path, values: Any, count: int) -> np.ndarray:
    """A table (K+1,) uint8 from ids to classes 1 to `count`; 0 stays 0."""
    values = np.asarray(values)
    if values.dtype.kind not in "iu" or not values.size or values.min() < 1 or values.max() > count:
        raise DataError(f"{path}: the mapping does not lead to classes 1 to {count}")
    return np.concatenate([[0], values.ravel()]).astype(np.uint8)
