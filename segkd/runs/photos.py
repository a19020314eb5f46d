"""Images without labels: all that lie in a folder and below it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from segkd.data.formats.header import GREY, PALETTE
from segkd.data.image_files import MAX_PIXELS
from segkd.data.images import read_image
from segkd.data.samples import FileSet, Sample
from segkd.foundation.errors import DataError
from segkd.runs.drawings import described, images_of


class Photos(FileSet):
    """The images of a folder and of those below it, by their paths; each is turned as its EXIF says.

    Args:
        folder: hidden files, earlier drawings of segkd, and files of other kinds are left out; `notes` tell how many.

    Raises:
        DataError: there is no image, or the folder holds masks beside its images, which would be taken for photos (a
            folder `masks` beside `images`, or a grey or palette PNG of the name that an image in colour has); when an
            image is asked for: it is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if (folder / "images").is_dir() and (folder / "masks").is_dir():
            images = folder / "images"
            raise DataError(f"{folder}: holds masks too; name {images}, or describe the masks in a dataset.yaml there")
        self.notes: list[str] = []
        self.paths = [path for path, _ in images_of(folder, None, self.notes.append)]
        if (pair := _mask_among(self.paths)) is not None:
            raise DataError(f"{pair[0]}: seems to be the mask of {pair[1]}; name the folder of the images alone")

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, index: int) -> Sample:
        """One image without a mask. Raises DataError."""
        path = self.paths[index]
        said = described(path, None)
        most = said.most_pixels or MAX_PIXELS
        image = read_image(path, apply_orientation=True, value_range=said.value_range, most_pixels=most)
        return Sample(path.relative_to(self.folder).as_posix(), image, None)


def _mask_among(paths: Sequence[Path]) -> tuple[Path, Path] | None:
    """The first file that seems to be a mask, and its image."""
    of_stem: dict[str, list[Path]] = {}
    for path in paths:
        of_stem.setdefault(path.stem, []).append(path)
    for same in of_stem.values():
        masks = [path for path in same if len(same) > 1 and _holds_ids(path)]
        if masks and len(masks) < len(same):
            return masks[0], next(path for path in same if path not in masks)
    return None


def _holds_ids(path: Path) -> bool:
    """Whether a file is a grey or palette PNG, by its header; one that cannot be read is told when it is asked for."""
    try:
        with path.open("rb") as file:
            head = file.read(26)
    except OSError:
        return False
    return head.startswith(b"\x89PNG") and len(head) == 26 and head[25] in (GREY, PALETTE)
