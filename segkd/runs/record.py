"""`segkd record`: the statistics of a user's images in a recipe's teacher, for methods that compare with them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from segkd.data.photos import Photos
from segkd.data.resize import reduced
from segkd.foundation import terminal
from segkd.foundation.channels import FROM_PYTHON, READ, in_channels, name_of
from segkd.foundation.errors import DataError
from segkd.foundation.files import atomic_write, check_target, refuse_irregular
from segkd.models.recorded import RecordedStatistics, record
from segkd.models.teacher import Teacher
from segkd.recipe import DistillRecipe
from segkd.runs.distill import Distillation
from segkd.runs.options import Options
from segkd.runs.place import place_of


def record_images(recipe: DistillRecipe, folder: Path, out: Path, options: Options) -> RecordedStatistics:
    """Write into `out` what the images of a folder, and of those below it, leave in the recipe's teacher.

    Each is shown whole, its shorter side reduced to 256 pixels.

    Raises:
        TeacherError: the teacher cannot be loaded, or shows no statistics.
        DataError: there is no image, or one is damaged.
        UsageError, StorageError: `out` cannot be written.
    """
    check_target(out)
    refuse_irregular(out)
    run = Distillation(recipe, options)
    with run.blaming():
        photos = Photos(folder)
        terminal.say(*photos.notes)
        run.place = place_of(recipe)
        run.load_teacher()
        if run.teacher.channels not in READ:
            raise DataError(f"the teacher takes images of {name_of(run.teacher.channels)}, and {FROM_PYTHON}")
        found = record(run.teacher, _images(photos, run.teacher))
    atomic_write(out, found.to_bytes())
    return found


def _images(photos: Photos, teacher: Teacher) -> Iterator[Tensor]:
    device = teacher.device
    mean, std = (torch.tensor(value, device=device).view(1, -1, 1, 1) for value in (teacher.mean, teacher.std))
    for index in range(len(photos)):
        terminal.doing(f"recording: image {index + 1} of {len(photos)}")
        pixels = torch.from_numpy(in_channels(reduced(photos[index]).image, teacher.channels)).to(device)
        yield (pixels.permute(2, 0, 1)[None].float() / 255 - mean) / std
