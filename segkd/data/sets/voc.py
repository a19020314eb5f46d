"""Pascal VOC 2012, segmentation, with 20 classes and the background (Everingham and others, IJCV 2015)."""

from __future__ import annotations

from pathlib import Path

from segkd.data.classes import IGNORE, coloured
from segkd.data.definition import LabelledSet, relabelling
from segkd.data.splits import Layout

VOC = coloured(
    "voc",
    (
        "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
        "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
    ),
    "000000 800000 008000 808000 000080 800080 008080 808080 400000 c00000 408000 c08000 400080 c00080 408080 c08080 004000"
    " 804000 00c000 80c000 004080",
)  # fmt: skip
LISTS = "ImageSets/Segmentation"


class Voc(LabelledSet):
    """One split of VOC 2012, in the official folders, or in the `VOCdevkit/VOC2012` that its archive makes.

    `ImageSets/Segmentation/SPLIT.txt` lists names, or pairs "image mask" by their paths; the image of a name is
    `JPEGImages/NAME.jpg` and its mask `SegmentationClass/NAME.png`, or of `trainaug`, with the further labels of SBD
    (Hariharan and others, ICCV 2011), `SegmentationClassAug/NAME.png`.
    """

    classes = VOC
    labellings = {
        VOC: relabelling({i: i for i in range(21)} | {255: IGNORE}, "VOC has 0 to 20, and 255 for void"),
    }
    counts = {"train": 1464, "val": 1449, "trainval": 2913, "trainaug": 10582}
    sign, places = "JPEGImages", ("VOCdevkit/VOC2012", "VOC2012")
    final = "val"
    unlabelled = ("test",)
    one_size = False
    obtained = (
        "is at http://host.robots.ox.ac.uk/pascal/VOC/voc2012: unpack VOCtrainval_11-May-2012.tar in DIR, so that it, or"
        " VOCdevkit/VOC2012 in it, holds JPEGImages, SegmentationClass and ImageSets/Segmentation"
    )

    def layout(self, split: str) -> Layout:
        """As the class says."""
        masks = "SegmentationClassAug" if split == "trainaug" else "SegmentationClass"
        return Layout("JPEGImages/{name}.jpg", f"{masks}/{{name}}.png", f"{LISTS}/{{split}}.txt")

    @classmethod
    def splits(cls, root: Path) -> list[str]:
        """train and val, and trainaug where it is listed; trainval is the first two again."""
        augmented = (cls.unpacked(root) / LISTS / "trainaug.txt").is_file()
        return ["train", "val", *(["trainaug"] if augmented else [])]
