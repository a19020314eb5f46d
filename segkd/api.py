"""segkd from Python: `from segkd import distill, teach, evaluate, load_student`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from segkd import runs
from segkd.evaluation.confusion import save_confusion
from segkd.evaluation.inference import Inference
from segkd.foundation.files import check_target
from segkd.models.student import LoadedStudent, load_student
from segkd.recipe import DistillRecipe, TeachRecipe, find, load
from segkd.recipe.sources import CHECKOUT, PACKAGED
from segkd.runs.evaluate import Size
from segkd.runs.evaluate import evaluate as measure
from segkd.runs.trained import Precision, Who, load_model, of_student

__all__ = ["distill", "evaluate", "load_student", "teach"]


def distill(
    recipe: str | Path,
    overrides: Sequence[str] = (),
    *,
    resume: str = "auto",
    accept: Sequence[str] = (),
    quiet: bool = False,
    trust_pickle: bool = False,
) -> dict[str, Any]:
    """Distil a student as a recipe says, and return the run's summary; a finished run only returns it.

    Args:
        recipe: a path, or the name of a shipped recipe such as `quickstart`.
        overrides: `key.sub=value`, as on the command line.
        resume: `auto` goes on where the run folder stands, `never` wants a new folder, or a checkpoint's path.
        accept: dotted keys in which the recipe may differ from that of the checkpoint.
        quiet: no progress on stderr.
        trust_pickle: also read weights that need pickle, which runs the code that they hold.

    Raises:
        SegkdError: one of its kinds, each with a one-line message and the exit code of the command.
    """
    loaded = load(recipe, overrides, "distill")
    assert isinstance(loaded, DistillRecipe)
    return runs.distill(loaded, runs.Options(recipe_name(recipe), resume, tuple(accept), quiet, trust_pickle))


def teach(
    recipe: str | Path,
    overrides: Sequence[str] = (),
    *,
    resume: str = "auto",
    accept: Sequence[str] = (),
    quiet: bool = False,
    trust_pickle: bool = False,
) -> dict[str, Any]:
    """Train a network on labelled images as a recipe says, and return the run's summary; arguments as `distill`."""
    loaded = load(recipe, overrides, "teach")
    assert isinstance(loaded, TeachRecipe)
    return runs.teach(loaded, runs.Options(recipe_name(recipe), resume, tuple(accept), quiet, trust_pickle))


def evaluate(
    model: str | Path | LoadedStudent,
    *,
    data: str | None = None,
    root: str | None = None,
    split: str | None = None,
    size: Size | None = None,
    slide: tuple[int, int] | None = None,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    confusion: str | Path | None = None,
    who: Who | None = None,
    device: str = "auto",
    precision: Precision | None = None,
) -> dict[str, Any]:
    """Score a network on a labelled set.

    Args:
        model: what `load_student` returned, or what `segkd eval` takes: a student folder, a run folder, a checkpoint,
            or a recipe with who="teacher".
        data, root, split, size, precision: as in the recipe of the run, where they are not given.
        slide: height and width of overlapping windows whose logits are averaged; None: the whole image.
        scales, flip: probabilities are averaged over these scales of the image, and over its mirror image.
        confusion: a PNG file for the picture of the confusion matrix.

    Returns:
        `miou`, `per_class`, `pixel_accuracy`, `fw_iou`, `absent`, `images`, `size`, `confusion` (pixels, a row for each
        label) and `options` (what was used).

    Raises:
        SegkdError: as `Inference`, `check_target`, `runs.trained.load_model` and `runs.evaluate.evaluate`.
    """
    inference = Inference(None if slide is None else tuple(slide), tuple(scales), flip)
    if confusion is not None:
        check_target(confusion)
    loaded = of_student(model) if isinstance(model, LoadedStudent) else load_model(model, who)
    scores = measure(
        loaded, data=data, root=root, split=split, size=size, inference=inference, device=device, precision=precision
    )
    if confusion is not None:
        save_confusion(confusion, scores)
    return scores


def recipe_name(source: str | Path) -> str:
    """What a run's summary calls its recipe: the name of a shipped one, which any command takes, or the file's stem."""
    path = find(source).resolve()
    for folder in (PACKAGED, CHECKOUT):
        if path.is_relative_to(folder.resolve()):
            return path.relative_to(folder.resolve()).with_suffix("").as_posix()
    return path.stem
