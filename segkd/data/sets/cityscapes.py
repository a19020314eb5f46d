"""Cityscapes with the 19 classes that are measured (Cordts and others, CVPR 2016; arXiv:1604.01685)."""

from __future__ import annotations

import numpy as np

from segkd.data.classes import IGNORE, coloured
from segkd.data.definition import LabelledSet, relabelling
from segkd.data.splits import Layout

CITYSCAPES = coloured(
    "cityscapes",
    (
        "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation", "terrain",
        "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle",
    ),
    "804080 f423e8 464646 66669c be9999 999999 faaa1e dcdc00 6b8e23 98fb98 4682b4 dc143c ff0000 00008e 000046 003c64 005064"
    " 0000e6 770b20",
)  # fmt: skip
IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
"""Of each class, its id in `_gtFine_labelIds.png`."""

_OF_IDS = relabelling(
    dict.fromkeys(range(34), IGNORE) | {label: index for index, label in enumerate(IDS)},
    "Cityscapes has label ids from 0 to 33",
)
_OF_TRAIN_IDS = relabelling(
    {index: index for index in range(19)} | {255: IGNORE},
    "Cityscapes has train ids from 0 to 18, and 255 for void; label ids are in files called ..._labelIds.png",
)


def label_ids(source: str, raw: np.ndarray) -> np.ndarray:
    """Label ids in a file that is called so, train ids in every other."""
    return (_OF_IDS if source.endswith("_labelIds.png") else _OF_TRAIN_IDS)(source, raw)


class Cityscapes(LabelledSet):
    """One split of Cityscapes, in the official folders.

    An image is `leftImg8bit/SPLIT/CITY/NAME_leftImg8bit.png` and its labels `gtFine/SPLIT/CITY/NAME_gtFine_labelTrainIds.png`
    where somebody made these, or else `..._labelIds.png`.
    """

    classes = CITYSCAPES
    labellings = {CITYSCAPES: label_ids}
    counts = {"train": 2975, "val": 500}
    sign = "leftImg8bit"
    final = "val"
    unlabelled = ("test",)  # its label files hold void alone
    obtained = (
        "is at https://www.cityscapes-dataset.com for those with an account: unpack leftImg8bit_trainvaltest.zip and"
        " gtFine_trainvaltest.zip in DIR, so that it holds leftImg8bit/train/CITY and gtFine/train/CITY"
    )

    def layout(self, split: str) -> Layout:
        """As the class says, for all images of the split alike."""
        made = next((self.root / "gtFine" / split).glob("*/*_gtFine_labelTrainIds.png"), None)
        kind = "labelIds" if made is None else "labelTrainIds"
        return Layout("leftImg8bit/{split}/{name}_leftImg8bit.png", f"gtFine/{{split}}/{{name}}_gtFine_{kind}.png")
