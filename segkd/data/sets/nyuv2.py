"""NYUv2 with 13 or 40 classes (Silberman, Hoiem, Kohli, Fergus, ECCV 2012): prepared, or in its official files."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from PIL import Image

from segkd.data.classes import IGNORE, Classes, listed
from segkd.data.definition import LabelledSet, Source, relabelling
from segkd.data.lists import read_lines
from segkd.data.pairing import files_of, paired
from segkd.data.samples import Report, Sample, label_error, refuse
from segkd.foundation.errors import DataError
from segkd.foundation.files import sha256

if TYPE_CHECKING:
    from segkd.data.prepare.staging import Staging

NYUV2_13 = listed("nyuv2_13", (
    "bed", "books", "ceiling", "chair", "floor", "furniture", "objects", "picture", "sofa", "table", "tv", "wall",
    "window",
))  # fmt: skip

NYUV2_40 = listed("nyuv2_40", (
    "wall", "floor", "cabinet", "bed", "chair", "sofa", "table", "door", "window", "bookshelf", "picture",
    "counter", "blinds", "desk", "shelves", "curtain", "dresser", "pillow", "mirror", "floor mat", "clothes",
    "ceiling", "books", "refridgerator", "television", "paper", "towel", "shower curtain", "box", "whiteboard",
    "person", "night stand", "toilet", "sink", "lamp", "bathtub", "bag", "otherstructure", "otherfurniture",
    "otherprop",
))  # fmt: skip

FRAMES, SPLITS, MAP_40, MAP_13 = "nyu_depth_v2_labeled.mat", "splits.mat", "classMapping40.mat", "class13Mapping.mat"
"""Frames and their 894 kinds of labels; the official split; 894 kinds to 40 classes; 40 classes to 13."""
PUBLIC = {
    FRAMES: Source("https://horatio.cs.nyu.edu/mit/silberman/nyu_depth_v2/nyu_depth_v2_labeled.mat", 2_972_037_809),
    SPLITS: Source(
        "https://horatio.cs.nyu.edu/mit/silberman/indoor_seg_sup/splits.mat", 2626,
        "6e081404491a8bfba2f066beaa9713ef6046f9007aa5f799f2a350506a580cee",
    ),
    MAP_40: Source("https://github.com/ankurhanda/nyuv2-meta-data/raw/master/classMapping40.mat"),
    MAP_13: Source("https://github.com/ankurhanda/nyuv2-meta-data/raw/master/class13Mapping.mat"),
}  # fmt: skip

_SMALL = 16_000_000  # bytes; a mapping or split has a few thousand


class OfficialFiles:
    """The files as they are published, MATLAB's; frames by number (from 1), read one at a time.

    h5py shows MATLAB's arrays with their axes reversed: an image (480,640,3) is (3,640,480) there. Transposing puts them
    right; rotating, which looks as right, mirrors every image.

    The large file is opened anew for each frame, which takes 0.3 ms of about 12: so there is no handle that a fork
    could share, a pickle could not carry, or the audit would miss.

    Attributes:
        count: how many frames there are.
        train, test: the numbers of the official split, sorted.
        tables: of 0 and each kind, the one of 40 classes; of 0 and each of these, the one of 13.
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
        self.tables = {40: _mapping(files[MAP_40], _variable(files[MAP_40], "mapClass"), 40)}
        if 13 in counts:
            struct = _variable(files[MAP_13], "classMapping13")
            if struct.dtype.names is None or "labels13" not in struct.dtype.names or struct.size != 1:
                raise DataError(f"{files[MAP_13]}: classMapping13 is no struct with labels13")
            self.tables[13] = _mapping(files[MAP_13], struct["labels13"].item(), 13)
            if len(self.tables[13]) != 41:
                raise DataError(f"{files[MAP_13]}: maps {len(self.tables[13]) - 1} classes, not 40")

    def read(self, frame: int) -> tuple[np.ndarray, np.ndarray]:
        """Image (H,W,3) uint8 RGB and labels (H,W) uint16 (0 unlabelled, kinds of things from 1) of a frame.

        Raises:
            DataError: it cannot be read, or a label is none of the kinds.
        """
        with self._opened() as (images, labels):
            image, kinds = images[frame - 1].transpose(2, 1, 0), labels[frame - 1].T
        known = len(self.tables[40]) - 1
        if not (allowed := kinds <= known).all():
            raise label_error(f"{self.path}: frame {frame}", kinds, allowed, f"there are {known} kinds, and 0 for none")
        return np.ascontiguousarray(image), np.ascontiguousarray(kinds)

    def ids(self, kinds: np.ndarray, count: int) -> np.ndarray:
        """Labels (H,W) as `read` gives them, as ids (H,W) uint8 of 40 or 13 classes: 0 is void, classes count from 1."""
        ids = self.tables[40][kinds]
        return ids if count == 40 else self.tables[count][ids]

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


def _stage(place: Staging, source: str | None, public: Mapping[str, Source]) -> None:
    """Each frame as three PNG files of its own size, with the lists and the names of the classes."""
    official = OfficialFiles(_official_files(place, source, public))
    frames = [*official.train, *official.test]
    for done, frame in enumerate(frames, start=1):
        image, kinds = official.read(frame)
        made = {"images": image, "labels40": official.ids(kinds, 40), "labels13": official.ids(kinds, 13)}
        for folder, pixels in made.items():
            target, data = place.staging / folder / f"{frame:04d}.png", _png(pixels)
            if not target.is_file() or target.read_bytes() != data:
                place.stage(f"{folder}/{frame:04d}.png", data)
        place.progress("frames", done, len(frames))
    told = {
        "void": 0,
        "classes40": NYUV2_40.names,
        "classes13": NYUV2_13.names,
        "map40to13": official.tables[13].tolist(),
    }
    place.stage("classes.json", json.dumps(told, indent=1).encode())
    for split, chosen in (("test", official.test), ("train", official.train)):
        place.stage(f"{split}.txt", "".join(f"{frame:04d}\n" for frame in chosen).encode())


def _official_files(place: Staging, source: str | None, public: Mapping[str, Source]) -> dict[str, Path]:
    """Where NYUv2's four files are: given, in what is given, beside the large one, or downloaded."""
    from segkd.data.prepare.download import is_url

    found: dict[str, Path] = {}
    if source is not None and source.lower().endswith(".mat") and is_url(source):
        found[FRAMES] = place.fetched(FRAMES, Source(source))
    elif source is not None:
        path = place.given(source)
        if path.is_file() and path.suffix.lower() == ".mat":
            beside = {name: path.parent / name for name in public}
            found = {name: file for name, file in beside.items() if file.is_file()} | {FRAMES: path}
        else:
            found = _members_called(place, path, list(public))
        for name, file in found.items():
            place.recorded(name, file, source)
            known = public[name].sha256
            if known is not None and sha256(file) != known:
                place.say(f"warning: {file}: not the published {name}, whose sha256 is {known}")
    return {name: found.get(name) or place.fetched(name, address) for name, address in public.items()}


def _members_called(place: Staging, path: Path, names: list[str]) -> dict[str, Path]:
    """The files of these names in a folder, or in an archive and then copied out of it."""
    from segkd.data.prepare.archives import opened

    found: dict[str, Path] = {}
    with opened(path) as archive:
        for name in names:
            members = [member for member in archive.sizes if Path(member).name == name]
            if len(members) > 1:
                raise DataError(f"{path}: holds {len(members)} files called {name}: {', '.join(members[:3])}")
            if members and path.is_dir():
                found[name] = path / members[0]
            elif members:
                found[name] = place.downloads / name
                place.extracted(archive, members[0], found[name])
    if FRAMES not in found:
        raise DataError(f"{path}: holds no {FRAMES}")
    return found


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


class NYUv2(LabelledSet):
    """One split of NYUv2; frames are read and checked when asked for.

    `root` holds either the prepared layout (`images/0001.png` or `.jpg`, `labels13/0001.png`, `labels40/0001.png`
    with 0 for void and classes from 1, `train.txt` and `test.txt` with a number a line) or the official files
    (`nyu_depth_v2_labeled.mat`, `splits.mat`, `classMapping40.mat` and, for 13 classes, `class13Mapping.mat`). Where
    both are, the prepared one is read.

    Splits: `test` is the official one; of the official training frames `val` is a fixed eighth and `train` the rest;
    `trainval` is both. `val` is taken in blocks of ten, since neighbouring frames show the same room.

    Attributes:
        ids: the numbers of the frames, from 1.
    """

    labellings = {
        NYUV2_40: relabelling({0: IGNORE} | {i + 1: i for i in range(40)}, "NYUv2 has 1 to 40, and 0 for void"),
        NYUV2_13: relabelling({0: IGNORE} | {i + 1: i for i in range(13)}, "NYUv2 has 1 to 13, and 0 for void"),
    }
    counts = {"train": 700, "val": 95, "test": 654}  # the 795 published for training are held here as train and val
    alone = True
    public, made = PUBLIC, ["labels40", "labels13", "images", "classes.json", "test.txt", "train.txt"]
    stage = staticmethod(_stage)

    def __init__(self, root: str | os.PathLike[str], split: str, classes: int = 40, report: Report = refuse) -> None:
        """As of every set; with 13 or 40 classes, which an official file may lack. Raises DataError."""
        if classes not in (13, 40):
            raise DataError(f"nyuv2 has 13 or 40 classes, not {classes}; set classes to nyuv2_13 or nyuv2_40")
        self.root, self.classes = Path(root), NYUV2_13 if classes == 13 else NYUV2_40
        self._official: OfficialFiles | None = None
        if (self.root / "images").is_dir() and (self.root / "train.txt").is_file():
            chosen = {f"{frame:04d}": f"{frame:04d}" for frame in frames_of(split, *self._prepared())}
            files = (files_of(self.root, pattern) for pattern in ("images/{name}.*", f"labels{classes}/{{name}}.png"))
            self.pairs = paired(*files, report, chosen, strays=False)
            self.ids = [int(image.stem) for image, _ in self.pairs]
        elif (self.root / FRAMES).is_file():
            files = {name: self.root / name for name in (FRAMES, SPLITS, MAP_40, MAP_13)}
            self._official = OfficialFiles(files, (classes,))
            self.ids = frames_of(split, self._official.train, self._official.test)
        else:
            told = f"neither images/ and train.txt (see segkd data prepare) nor {FRAMES}"
            raise DataError(f"{self.unpacked(root)}: no NYUv2: {told}")

    @classmethod
    def at(cls, root: Path, split: str, classes: Classes | None, report: Report = refuse) -> Self:
        """With 13 or 40 classes, as `classes` has."""
        return cls(root, split, 40 if classes is None else len(classes), report)

    @classmethod
    def labellings_in(cls, root: Path) -> Sequence[Classes | None]:
        """Those that a folder has; that of 40 classes where it is not there at all."""
        if (root / "images").is_dir():
            return [found for found in cls.labellings if (root / f"labels{len(found)}").is_dir()] or [NYUV2_40]
        return [NYUV2_40, NYUV2_13] if (root / MAP_13).is_file() else [NYUV2_40]

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, index: int) -> Sample:
        """One frame, of whichever files there are; see `LabelledSet.read`."""
        if self._official is None:
            return super().read(index)
        frame, files = self.ids[index], self._official
        image, kinds = files.read(frame)
        mask = self.labellings[self.classes](f"{files.path}: frame {frame}", files.ids(kinds, len(self.classes)))
        return Sample(f"{FRAMES}/{frame:04d}", image, mask)

    def _prepared(self) -> tuple[list[int], list[int]]:
        """The official two splits, as the lists of a prepared folder have them."""
        labels = self.root / f"labels{len(self.classes)}"
        if not labels.is_dir():
            raise DataError(f"{labels}: no such folder; it holds the labels of {len(self.classes)} classes")
        train, test = (_numbers(self.root / f"{name}.txt") for name in ("train", "test"))
        if both := set(train) & set(test):
            raise DataError(f"{self.root / 'test.txt'}: frame {min(both)} is also in train.txt")
        return train, test


def frames_of(split: str, train: Sequence[int], test: Sequence[int]) -> list[int]:
    """The frames of a split, given the official two."""
    train = sorted(train)
    held_out = [(position // 10) % 8 == 7 for position in range(len(train))]
    splits = {
        "train": [frame for frame, held in zip(train, held_out, strict=True) if not held],
        "val": [frame for frame, held in zip(train, held_out, strict=True) if held],
        "trainval": train,
        "test": sorted(test),
    }
    if split not in splits:
        raise DataError(f"nyuv2 has no split '{split}'; there are {', '.join(splits)}")
    if not splits[split]:
        raise DataError(f"nyuv2: no frames in {split}: the official training frames are {len(train)}")
    return splits[split]


def _numbers(path: Path) -> list[int]:
    """The frame numbers of a list, one a line."""
    found: dict[int, int] = {}
    for number, text in read_lines(path):
        if not (text.isascii() and text.isdigit() and 0 < int(text[:9]) and len(text) < 9):
            raise DataError(f"{path}:{number}: expected the number of a frame, from 1, found '{text[:40]}'")
        if int(text) in found:
            raise DataError(f"{path}:{number}: frame {int(text)} stands on line {found[int(text)]} already")
        found[int(text)] = number
    return list(found)
