"""`segkd record`: statistics of a user's images in a recipe's teacher."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from segkd.cli.options import OVERRIDES, RECIPE, TEACHER_FILE, TRUST, Named, with_debug
from segkd.foundation import terminal


@click.command()
@RECIPE
@click.argument("images", type=Named())
@OVERRIDES
@click.option("--out", type=Named(), required=True, metavar="FILE", help="The .safetensors to write.")
@TEACHER_FILE
@TRUST
@with_debug
def record(
    recipe: str, images: Path, overrides: tuple[str, ...], out: Path, teacher_file: str | None, trust_pickle: bool
) -> None:
    """Record what the images of a folder leave in the recipe's teacher.

    RECIPE may also be the folder of a run. With teacher.statistics=FILE a run compares with these statistics in place of
    those that BatchNorm layers remember, which a teacher without such layers has not.
    """
    from segkd import recipe as recipes

    resolved = Path(recipe) / "recipe.yaml"
    source = str(resolved) if resolved.is_file() else recipe
    loaded = recipes.load(source, overrides, "distill", own_teacher=teacher_file)
    with terminal.Live("preparing: loading torch"):
        from segkd import runs
        from segkd.models.own import OwnNetwork
        from segkd.runs.record import record_images

        own = None if teacher_file is None else OwnNetwork.in_file(teacher_file)
        found = record_images(loaded, images, out, runs.Options(trust_pickle=trust_pickle, teacher=own))
    flags = [*([] if teacher_file is None else ["--teacher-file", teacher_file]), *["--trust-pickle"] * trust_pickle]
    values = [value for value in overrides if value.partition("=")[0].strip() != "teacher.statistics"]
    if (Path(loaded.run.dir) / "recipe.yaml").is_file():
        values.append(f"run.dir={loaded.run.dir}-recorded")  # the run that is there has no such statistics
    following = shlex.join([source, *flags, *values, f"teacher.statistics={out}"])
    terminal.deliver(
        f"{out}: statistics of {len(found.layers)} layers, recorded from {found.images} images",
        f"next: segkd distill {following}",
    )
