"""segkd from Python: `from segkd import distill, teach, compress, evaluate, visualize, load_student, Progress, SegkdError`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from operator import index
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from segkd import runs
from segkd.delivery.folder import LoadedStudent, load_student
from segkd.evaluation.confusion import save_confusion
from segkd.evaluation.inference import Inference
from segkd.foundation import terminal
from segkd.foundation.errors import ArgumentError, SegkdError
from segkd.foundation.files import check_target
from segkd.foundation.resize import Size
from segkd.machine.ambient import as_new
from segkd.models.own import OwnNetwork
from segkd.recipe import DistillRecipe, Recipe, TeachRecipe, load
from segkd.recipe.compression import Asked
from segkd.recipe.loading import Source
from segkd.recipe.sources import Overrides, recipe_name
from segkd.reporting import report
from segkd.runs.compress import RUN, Compression
from segkd.runs.evaluate import evaluate as measure
from segkd.runs.export import Choices, Format
from segkd.runs.trained import Model, Precision, Who, load_guide, load_model, of_student, own_teacher
from segkd.runs.visualize import Job, Kind, plan_drawings
from segkd.runs.visualize import visualize as draw
from segkd.training.game import Progress
from segkd.training.signals import StopFlag

__all__ = ["Progress", "SegkdError", "compress", "distill", "evaluate", "load_student", "teach", "visualize"]
Network = str | Path | LoadedStudent
"""What `load_student` returned, or what `segkd eval` takes: a student folder, a run folder, a checkpoint, or a recipe."""

Kinds = TypeVar("Kinds", bound=Recipe)


@as_new()
def distill(
    recipe: Source,
    overrides: Overrides = (),
    *,
    resume: str | Path = "auto",
    accept: Sequence[str] = (),
    quiet: bool = False,
    trust_pickle: bool = False,
    progress: Callable[[Progress], object] | None = None,
    method_file: str | Path | None = None,
    teacher_file: str | None = None,
    teacher: nn.Module | Callable[[], nn.Module] | None = None,
) -> dict[str, Any]:
    """Distil a student as a recipe says, and return the run's summary; a finished run only returns it.

    Args:
        recipe: a path, the name of a shipped recipe such as `quickstart`, or a dict of what stands in a recipe's file
            (`{"extends": "quickstart", "run": {"steps": 50}}`), whose paths are relative to the working directory.
        overrides: `key.sub=value`, as on the command line, or a dict: `{"run.steps": 50}`.
        resume: `auto` goes on where the run folder stands, `never` wants a new folder, or a checkpoint's path.
        accept: dotted keys in which the recipe may differ from that of the checkpoint.
        quiet: no progress on stderr.
        trust_pickle: also read weights that need pickle, which runs the code that they hold.
        progress: called after each step; what it raises ends the run, which goes on from its last checkpoint.
        method_file: a method of one's own, `FILE.py` for `method: FILE`, whose code is run; see docs/own_method.md.
        teacher_file: a teacher of one's own, `FILE.py:FUNCTION`, whose code is run; see docs/own_teacher.md.
        teacher: the same as a module, of which a copy is used, or as a function that builds one.

    Raises:
        SegkdError: one of its kinds, each with a one-line message and the exit code of the command.
    """
    own = None if method_file is None else _path("method_file", method_file)
    brought = _brought(teacher_file, teacher)
    loaded = _recipe(recipe, overrides, DistillRecipe, own, brought)
    options = _options(recipe, resume, accept, quiet, trust_pickle, progress)
    return _reported(loaded, runs.distill(loaded, replace(options, method_file=own, teacher=brought)))


@as_new()
def teach(
    recipe: Source,
    overrides: Overrides = (),
    *,
    resume: str | Path = "auto",
    accept: Sequence[str] = (),
    quiet: bool = False,
    trust_pickle: bool = False,
    progress: Callable[[Progress], object] | None = None,
) -> dict[str, Any]:
    """Train a network on labelled images as a recipe says, and return the run's summary; arguments as `distill`."""
    loaded = _recipe(recipe, overrides, TeachRecipe)
    return _reported(loaded, runs.teach(loaded, _options(recipe, resume, accept, quiet, trust_pickle, progress)))


def _reported(recipe: Recipe, summary: dict[str, Any]) -> dict[str, Any]:
    """The summary of a finished run, whose folder has its page now; one process of several writes it."""
    if terminal.speaks():  # the processes' group is gone
        _write_pages(Path(recipe.run.dir))
    return summary


def _write_pages(run: Path, compression: Path | None = None) -> None:
    with StopFlag().listening():  # the run is finished: a signal that comes now has nothing to stop
        for of in dict.fromkeys((None, compression)):
            if (line := report.keep(run, of)) is not None:
                terminal.say(line)


@as_new()
def compress(
    teacher: str | Path | None,
    values: Sequence[str] = (),
    *,
    out: str | Path,
    student: str | None = None,
    budget: str | None = None,
    format: Format = "onnx",
    int8: bool = False,
    images: str | Path | None = None,
    quiet: bool = False,
    trust_pickle: bool = False,
    progress: Callable[[Progress], object] | None = None,
    teacher_file: str | None = None,
) -> dict[str, Any]:
    """From a teacher to a student as a file: look at it, write a recipe, distil, export, and a page; each once, below `out`.

    Args:
        teacher: a recipe, or the weights of a teacher that `values` describe; None: `teacher_file` builds it with its weights.
        values: `key=value`, as on the command line.
        out: a new folder, or that of the same compression, which goes on.
        student: ARCH or ARCH:ENCODER; None: the recipe's, or a DeepLabV3Plus on tu-resnet10t.
        budget: the run's time, as `2h`; None: as many steps as the recipe or `values` say, or 300.
        format, int8: as for `segkd export`.
        images: a folder of photos without labels: student and file are tried on them, too.
        quiet, trust_pickle, progress, teacher_file: as for `distill`.

    Returns:
        `inspect`, `summary`, `export`, and with `images` also `agreement`: what each stage has found.

    Raises:
        SegkdError: one of its kinds; a TeacherError where the teacher cannot be distilled, a NumbersError where the file
            does not answer as the student does: all that was made before is there.
    """
    _check_callable(progress)
    _one_of("format", format, ("onnx", "pt2"))
    named = teacher if isinstance(teacher, str | None) else str(_path("teacher", teacher))  # a path would fold hf://
    folder, own = _path("out", out), _brought(teacher_file, None)
    asked = Asked(named, student, budget, (values,) if isinstance(values, str) else tuple(values), teacher_file)
    options = runs.Options(
        folder.resolve().name, quiet=quiet, trust_pickle=trust_pickle, progress=progress, teacher=own
    )
    choices = Choices(format, int8, images=None if images is None else _path("images", images))
    compression = Compression(asked, folder, options, choices)
    try:
        return compression.run()
    finally:
        if (folder / RUN / "summary.json").is_file():  # where its export fails, too
            _write_pages(folder / RUN, folder)


@as_new()
def evaluate(
    model: Network,
    overrides: Overrides = (),
    *,
    data: str | None = None,
    root: str | Path | None = None,
    split: str | None = None,
    size: Size | None = None,
    against: Network | None = None,
    slide: tuple[int, int] | None = None,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    confusion: str | Path | None = None,
    who: Who | None = None,
    device: str = "auto",
    precision: Precision | None = None,
    trust_pickle: bool = False,
    teacher_file: str | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> dict[str, Any]:
    """Score a network on a labelled set, or compare it with another one on any images.

    Args:
        model: what `load_student` returned, or what `segkd eval` takes: a student folder, a run folder, a checkpoint,
            or a recipe with who="teacher".
        overrides: values on top of the model's recipe, as for `distill`.
        data, root, split, precision: as in the recipe of the run, where they are not given.
        size: what the network is shown: `protocol` a shorter side of at most 256 pixels, `original` images as they are,
            or a number of pixels; None: what it was made and measured at.
        against: a second network (a recipe's or a run's teacher, or a student) with which the agreement is measured, on
            the same images; with data="folder", a root that holds no dataset.yaml needs no labels.
        slide: height and width of overlapping windows whose logits are averaged; None: the whole image.
        scales, flip: probabilities are averaged over these scales of the image, and over its mirror image.
        confusion: a PNG file for the picture of the confusion matrix.
        teacher_file: the teacher of a recipe or a run, where that is one of your own, as for `distill`.
        progress: called with the numbers of images done and of all.

    Returns:
        `miou`, `per_class`, `pixel_accuracy`, `fw_iou`, `absent`, `images`, `size`, `confusion` (pixels, a row for each
        label), `options` (what was used) and `notes` (lines about it). With `against` also `agreement` (share of
        pixels), `agreement_miou` and `agreement_per_class` (the other network's masks taken for the truth),
        `agreement_absent` and `agreement_confusion`; without labels only these.

    Raises:
        SegkdError: as `Inference`, `check_target`, `load_model` and `runs.evaluate`.
    """
    _check_callable(progress)
    for name, value in (("data", data), ("split", split)):
        if not isinstance(value, (str, type(None))):
            raise ArgumentError(f"{name}: expected text, got {_named(value)}")
    place = None if root is None else str(_path("root", root))
    inference = _inference(slide, scales, flip)
    if confusion is not None:
        check_target(_path("confusion", confusion), ".png")
    own = _own(teacher_file, who, "against", against)
    scores = measure(
        _network(model, who, overrides, trust_pickle, own), data=data, root=place, split=split,
        size=size, inference=inference, against=_guide("against", against, trust_pickle, own), confusion=confusion is not None,
        device=str(device), precision=precision, progress=progress,
    )  # fmt: skip
    if confusion is not None:
        save_confusion(confusion, scores)
    return scores


@as_new()
def visualize(
    model: Network,
    images: str | Path | Iterable[str | Path],
    out: str | Path,
    *,
    kind: Kind = "panel",
    teacher: Network | None = None,
    masks: str | Path | None = None,
    size: Size | None = None,
    slide: tuple[int, int] | None = None,
    who: Who | None = None,
    device: str = "auto",
    precision: Precision | None = None,
    trust_pickle: bool = False,
    teacher_file: str | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> list[Path]:
    """Draw the masks that a network gives to image files, and return the drawings' paths.

    Args:
        model, who, size, slide, teacher_file, progress: as for `evaluate`; a mask has the size of its image all the same.
        images: files, or folders of them, one or several.
        out: the folder for the drawings; made if it is missing.
        kind: `panel` (all side by side with a legend), `mask` (a palette PNG of class ids) or `overlay`.
        teacher: a second network, drawn beside the first: a recipe's or a run's teacher, or a student folder.
        masks: a folder with ground truth, STEM.png.

    Raises:
        SegkdError: as `Inference`, `load_model`, `plan_drawings` and `runs.visualize`.
    """
    _check_callable(progress)
    _one_of("kind", kind, ("panel", "mask", "overlay"))
    alone = isinstance(images, (str, PathLike)) or hasattr(images, "__array__") or not isinstance(images, Iterable)
    sources = [_path("images", source) for source in ([images] if alone else images)]
    if not sources:
        raise ArgumentError("images: expected the paths of files or folders, got none")
    own, inference = _own(teacher_file, who, "teacher", teacher), _inference(slide, (1.0,), False)
    loaded = _network(model, who, (), trust_pickle, own)
    guide = _guide("teacher", teacher, trust_pickle, own)
    jobs = plan_drawings(sources, _path("out", out), kind, loaded.classes, masks, mapping=loaded.mapping)
    drawn: list[Path] = []

    def done(job: Job) -> None:
        drawn.append(job.out)
        if progress is not None:
            progress(len(drawn), len(jobs))

    draw(
        loaded, jobs, kind, teacher=guide, size=size, inference=inference, device=str(device), precision=precision, done=done
    )  # fmt: skip
    return drawn


def _brought(teacher_file: str | None, teacher: object) -> OwnNetwork | None:
    if teacher_file is not None:
        if teacher is not None:
            raise ArgumentError("teacher: teacher_file brings one too: leave one of them out")
        return OwnNetwork.in_file(str(_path("teacher_file", teacher_file)))
    if teacher is not None and not callable(teacher):  # a module is
        raise ArgumentError(f"teacher: expected a module or a function that builds one, got {_named(teacher)}")
    return None if teacher is None else OwnNetwork.given(teacher)


def _recipe(
    source: Source, overrides: Overrides, kind: type[Kinds], method_file: Path | None = None,
    own: OwnNetwork | None = None,
) -> Kinds:  # fmt: skip
    if not isinstance(source, (str, PathLike, Mapping)):
        raise ArgumentError(f"recipe: expected a path, the name of a shipped recipe, or a dict, got {_named(source)}")
    _check_overrides(overrides)
    name = "distill" if kind is DistillRecipe else "teach"
    loaded = load(source, overrides, name, method_file=method_file, own_teacher=own and own.name)
    assert isinstance(loaded, kind)
    return loaded


def _check_overrides(overrides: object) -> None:
    if not isinstance(overrides, (str, Sequence, Mapping)) or isinstance(overrides, bytes):
        raise ArgumentError(f'overrides: expected ["key.sub=value", ...] or a dict, got {_named(overrides)}')


def _options(
    recipe: Source, resume: str | Path, accept: Sequence[str], quiet: bool, trust_pickle: bool,
    progress: Callable[[Progress], object] | None,
) -> runs.Options:  # fmt: skip
    if not isinstance(accept, Iterable):
        raise ArgumentError(f"accept: expected dotted keys, got {_named(accept)}")
    keys = (accept,) if isinstance(accept, str) else tuple(accept)
    _check_callable(progress)
    return runs.Options(recipe_name(recipe), str(_path("resume", resume)), keys, quiet, trust_pickle, progress)


def _inference(slide: Sequence[int] | None, scales: Sequence[float], flip: bool) -> Inference:
    try:
        return Inference(None if slide is None else tuple(index(side) for side in slide), tuple(scales), flip)
    except TypeError as error:
        if isinstance(error, SegkdError):
            raise
        raise ArgumentError(
            f"slide {slide!r}, scales {scales!r}: expected (height, width) in pixels or None, and a list of factors"
        ) from error


def _own(teacher_file: str | None, who: Who | None, name: str, guide: Network | None) -> OwnNetwork | None:
    other = None if guide is None or isinstance(guide, LoadedStudent) else _path(name, guide)
    return own_teacher(None if teacher_file is None else str(_path("teacher_file", teacher_file)), who, other)


def _network(
    model: Network, who: Who | None, overrides: Overrides, trust_pickle: bool, own: OwnNetwork | None = None
) -> Model:
    _one_of("who", who, (None, "teacher", "student"))
    _check_overrides(overrides)
    if isinstance(model, LoadedStudent):
        if overrides or who == "teacher":
            raise ArgumentError("a loaded student has neither recipe nor teacher: name its run folder")
        return of_student(model)
    if not isinstance(model, (str, PathLike)):
        known = "what load_student returned, a student or run folder, a checkpoint, or a recipe's path"
        raise ArgumentError(f"model: expected {known}, got {_named(model)}")
    return load_model(model, who, overrides, trust_pickle, own if who == "teacher" else None)


def _guide(name: str, model: Network | None, trust_pickle: bool, own: OwnNetwork | None = None) -> Model | None:
    if model is None or isinstance(model, LoadedStudent):
        return None if model is None else of_student(model)
    return load_guide(_path(name, model), trust_pickle, own)


def _path(name: str, value: object) -> Path:
    if not isinstance(value, (str, PathLike)):
        arrays = "; for arrays there is load_student(...).predict" if name == "images" else ""
        raise ArgumentError(f"{name}: expected a path, got {_named(value)}{arrays}")
    return Path(value)


def _one_of(name: str, value: object, known: Sequence[object]) -> None:
    if value not in known:
        raise ArgumentError(f"{name} {value!r}: expected {', '.join(map(str, known))}")


def _check_callable(progress: object) -> None:
    if progress is not None and not callable(progress):
        raise ArgumentError(f"progress: expected a function, got {_named(progress)}")


def _named(value: object) -> str:
    """What a wrong argument is, in words."""
    return "None" if value is None else f"an object of type {type(value).__name__}"
