"""What `segkd eval` and `segkd visualize` do: find a trained network, score it, draw its masks."""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import nn

from segkd import build
from segkd.data import nyuv2
from segkd.data.camvid import VOID
from segkd.data.classes import CAMVID, IGNORE, NYUV2_13, NYUV2_40, Classes, disagreement, known_as
from segkd.data.folder import Labels, labels_around
from segkd.data.images import read_image, read_mask
from segkd.data.samples import check_labels
from segkd.evaluation import visualize as drawing
from segkd.evaluation.evaluate import evaluate as score
from segkd.evaluation.evaluate import predict
from segkd.evaluation.inference import Inference
from segkd.foundation.errors import DataError, RecipeError, StorageError, TeacherError, UsageError
from segkd.foundation.files import atomic_write
from segkd.models.adapters import Adapter, load_weights
from segkd.models.student import LoadedStudent, load_student
from segkd.models.teacher import read_state
from segkd.recipe import Data, DistillRecipe, TeachRecipe, blocks, load, shipped, with_values
from segkd.recipe.sources import read_overrides
from segkd.recipe.strict_yaml import plain
from segkd.training import checkpoint

Who = Literal["teacher", "student"]
Size = Literal["protocol", "original"]
Precision = Literal["auto", "fp32", "bf16"]
Kind = Literal["panel", "mask", "overlay"]
SUFFIXES = (".png", ".jpg", ".jpeg")
"""The images of a folder; a file that is named on its own may be called anything."""


@dataclass(frozen=True)
class Model:
    """A trained network, ready to be measured.

    Attributes:
        network: normalised images (N,3,H,W) to logits (N,C,H,W), any H and W.
        classes: what its C logits stand for.
        mean, std: normalisation of RGB in [0,1].
        data, precision: as in the recipe that it comes from, where it comes with one.
        who: the side of the game that it played; a network that was taught from labels is a teacher.
    """

    network: nn.Module
    classes: Classes
    mean: Sequence[float]
    std: Sequence[float]
    data: Data | None = None
    precision: Precision = "auto"
    who: Who = "student"


def load_model(
    source: str | Path, who: Who | None = None, overrides: Sequence[str] = (), trust_pickle: bool = False
) -> Model:
    """The network that `source` stands for.

    Args:
        source: a student folder, a run folder, a checkpoint, or a recipe (a path, or the name of a shipped one).
        who: `teacher` is the teacher of the recipe, or of the recipe of the run; a recipe has nothing else to offer.
        overrides: `key.sub=value` on top of the recipe; a student folder has none.
        trust_pickle: also read a teacher that needs pickle, which runs the code that it holds.

    Raises:
        UsageError: nothing of the kind, a recipe without who="teacher", or overrides without a recipe; RecipeError
            for a wrong recipe.
        TeacherError: a folder without a network, or weights that are missing, damaged or do not fit.
        StorageError: a damaged checkpoint.
    """
    path = Path(source)
    if not path.exists() and str(source) not in shipped():
        raise UsageError(f"{source}: no such student folder, run folder, checkpoint or recipe")
    if (path / "preprocess.json").is_file():
        if overrides:
            raise UsageError(f"{path}: {overrides[0]}: a student folder has no recipe to change; name its run folder")
        return of_student(load_student(path))
    if (path / "recipe.yaml").is_file():
        recipe = load(path / "recipe.yaml", overrides)
        if isinstance(recipe, DistillRecipe) and who == "teacher":
            return _teacher(recipe, trust_pickle)
        return of_student(load_student(path), recipe)
    if path.is_dir():
        raise TeacherError(f"{path}: neither a student folder (preprocess.json) nor a run folder (recipe.yaml)")
    if path.suffix == ".ckpt":
        return _played(path, who, overrides, trust_pickle)
    if path.is_file() and path.suffix not in (".yaml", ".yml"):
        raise UsageError(f"{path}: not a student folder, run folder, checkpoint (.ckpt) or recipe (.yaml)")
    recipe = load(source, overrides)
    if who != "teacher":
        raise UsageError(f"{source}: a recipe holds no trained student: name its run folder, or add --who teacher")
    return _teacher(recipe, trust_pickle) if isinstance(recipe, DistillRecipe) else _taught(recipe, str(source))


def of_student(student: LoadedStudent, recipe: DistillRecipe | TeachRecipe | None = None) -> Model:
    """A loaded student (or a network that a teach recipe made) with what its recipe says about measuring."""
    classes = known_as(student.names) or Classes("custom", student.names, student.palette)
    who: Who = "teacher" if isinstance(recipe, TeachRecipe) else "student"
    if recipe is None:
        return Model(student, classes, student.mean, student.std)
    return Model(student, classes, student.mean, student.std, recipe.data, recipe.run.precision, who)


def _teacher(recipe: DistillRecipe, trust_pickle: bool) -> Model:
    block = recipe.teacher
    network = build.teacher_of(block, trust_pickle)
    classes = build.classes_of(block.classes)
    return Model(network, classes, block.mean, block.std, recipe.data, recipe.run.precision, "teacher")


def _taught(recipe: TeachRecipe, source: str) -> Model:
    """The network in a teach recipe's output file."""
    if recipe.output is None:
        raise UsageError(f"{source}: the recipe names no output file; name the folder of its run")
    adapter, classes = _built(recipe.model, recipe.model)
    load_weights(adapter.network, read_state(Path(recipe.output), made_by=source), recipe.output)
    model = recipe.model
    return Model(adapter.eval(), classes, model.mean, model.std, recipe.data, recipe.run.precision, "teacher")


def _played(path: Path, who: Who | None, overrides: Sequence[str], trust_pickle: bool) -> Model:
    """The network in a checkpoint: averaged, where there is an average and the headline is its score."""
    state = checkpoint.load(path)
    kind = TeachRecipe if "model" in state["recipe"] else DistillRecipe
    recipe = _changed(kind.model_validate(state["recipe"]), overrides)
    if isinstance(recipe, DistillRecipe) and who == "teacher":
        return _teacher(recipe, trust_pickle)
    if isinstance(recipe, DistillRecipe):
        (adapter, classes), face = _built(recipe.student, recipe.teacher), recipe.teacher
        player, averaged, who = state["game"]["student"], recipe.run.headline == "ema", "student"
    else:
        (adapter, classes), face = _built(recipe.model, recipe.model), recipe.model
        player, averaged, who = state["game"]["player"], True, "teacher"
    weights = player["network"]
    if averaged and player["average"]:
        inner = "module."  # of the AveragedModel, which also holds a counter
        weights = {key.removeprefix(inner): value for key, value in player["average"].items() if key.startswith(inner)}
    load_weights(adapter, weights, str(path))
    return Model(adapter.eval(), classes, face.mean, face.std, recipe.data, recipe.run.precision, who)


def _built(network: blocks.Model | blocks.Student, face: blocks.Model) -> tuple[Adapter, Classes]:
    """A network of the recipe with the classes of `face`, its weights still to be loaded."""
    classes = build.classes_of(face.classes)
    return Adapter(build.network_of(network, len(classes)), len(classes)), classes


def _changed(recipe: DistillRecipe | TeachRecipe, overrides: Sequence[str]) -> DistillRecipe | TeachRecipe:
    """The recipe of a checkpoint with command-line values on top."""
    tree, errors = read_overrides(overrides)
    if errors:
        raise RecipeError(errors)
    return with_values(recipe, dict(_leaves(plain(tree), "")))


def _leaves(tree: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def evaluate(
    model: Model,
    *,
    data: str | None = None,
    root: str | None = None,
    split: str | None = None,
    size: Size | None = None,
    inference: Inference | None = None,
    device: str = "auto",
    precision: Precision | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Score a model on a labelled set, by the rules of `segkd.evaluation.evaluate`; same keys, and `options`.

    What is not given is as in the model's recipe: the data set, its root and size, its final split (or `test`), the
    precision. `inference` shows the network windows, scales or mirror images of each image. `progress(done, total)` is
    called after every batch. `options` are the data, split, size, slide, scales, flip and precision that were used.

    Raises:
        UsageError: no data set, neither given nor in a recipe.
        DataError: the set cannot be read, or its classes are not as many, or not called, as the model's.
    """
    own = model.data
    name = data or (own.name if own is not None else None)
    if name is None:
        raise UsageError("nothing to measure on: give --data camvid|nyuv2|folder --root DIR, or --data scenes|rooms")
    if own is not None and own.name == name:
        root, split, size = root or own.root, split or own.final, size or own.size
    split, size, inference = split or "test", size or "protocol", inference or Inference()
    labelled = build.dataset(name, root, split, model.classes)
    if wrong := disagreement(model.classes.names, labelled.classes, "model"):
        raise DataError(wrong)
    place, bf16 = _bench(device, precision or model.precision)
    precision = "bf16" if bf16 else "fp32"
    scores = score(
        inference.of(model.network).to(place), labelled, mean=model.mean, std=model.std, device=place,
        precision=precision, size=size, progress=progress,
    )  # fmt: skip
    options = {"data": name, "split": split, "size": size, **inference.as_dict(), "precision": precision}
    return {**scores, "options": options}


def _bench(device: str, precision: Precision) -> tuple[torch.device, bool]:
    """Device and whether networks run in bf16, resolved."""
    if not re.fullmatch(r"auto|cpu|mps|cuda(:[0-9]{1,3})?", device):
        raise UsageError(f"device {device}: expected auto, cpu, cuda or cuda:N")
    place = build.device_of(device)
    return place, build.bf16_of(precision, place)


@dataclass(frozen=True)
class Job:
    """One image to be drawn: its file, its ground truth if there is one, and the file that will show it.

    `labels` says what the ground truth's file holds, where a `dataset.yaml` does; else the classes do.
    """

    image: Path
    truth: Path | None
    out: Path
    labels: Labels | None = None


def plan_drawings(
    sources: Sequence[str | Path], out: str | Path, kind: Kind, classes: Classes, masks: str | Path | None = None
) -> list[Job]:
    """What `visualize` will read and write, with every input read once, so that a bad one stops all before the first.

    The images are named one by one or by their folder (not its subfolders). A drawing is called STEM_KIND.png;
    images that share a stem get STEM-2, STEM-3 and so on, in the order given. Masks mean what the `dataset.yaml` in
    their folder or above it says, else they hold ids as the data set of these classes does.

    Raises:
        DataError: a file that is missing or damaged, a folder without images, an image without mask, a label that is
            neither one of `classes` nor ignore, or a `dataset.yaml` of other classes.
        UsageError: a drawing would replace one of the images.
    """
    images = list(dict.fromkeys(image for source in sources for image in _images(Path(source))))
    labels = None if masks is None else labels_around(Path(masks))
    if labels is not None and (wrong := disagreement(classes.names, labels.classes, "model")):
        raise DataError(wrong)
    taken: set[str] = set()
    jobs = []
    for image in images:
        truth = None if masks is None else Path(masks) / f"{image.stem}.png"
        if truth is not None and not truth.is_file():
            raise DataError(f"{truth}: no such mask for {image}")
        jobs.append(Job(image, truth, Path(out) / f"{_free(image.stem, taken)}_{kind}.png", labels))
    inputs = {path.resolve() for job in jobs for path in (job.image, job.truth) if path is not None}
    for job in jobs:
        if job.out.resolve() in inputs:
            raise UsageError(f"{job.out}: would replace an image or mask that is to be drawn; choose another --out")
        _read(job, classes)
    return jobs


def visualize(
    model: Model, jobs: Sequence[Job], kind: Kind = "panel", *, teacher: Model | None = None, device: str = "auto",
    precision: Precision | None = None, done: Callable[[Job], None] | None = None,
) -> None:  # fmt: skip
    """Draw the masks of a model, one PNG for each job, each whole or absent; images keep their size.

    `panel`: image | ground truth | teacher | student | disagreement, as far as they are there; `mask`: class ids with
    the palette, which `read_mask` gives back; `overlay`: the image tinted by its mask. `done` is called after each.

    Raises:
        DataError: teacher and student have other classes.
        StorageError: the folder or a drawing cannot be written.
    """
    if teacher is not None:
        check_same_classes(teacher, model)
    place, bf16 = _bench(device, precision or model.precision)
    players = [player for player in (model, teacher) if player is not None]
    for player in players:
        player.network.to(place)
    for job in jobs:
        image, truth = _read(job, model.classes)
        found = [
            predict(player.network, [image], mean=player.mean, std=player.std, device=place,
                    precision="bf16" if bf16 else "fp32")[0]
            for player in players
        ]  # fmt: skip
        _make_folder(job.out.parent)
        atomic_write(job.out, _drawing(kind, image, truth, found, model))
        if done is not None:
            done(job)


def check_same_classes(teacher: Model, model: Model) -> None:
    """Raises DataError where two models that are to be compared have other classes: their numbers, or the first name."""
    ours, theirs = model.classes, teacher.classes
    if len(ours) != len(theirs):
        raise DataError(f"classes disagree: teacher {len(theirs)}, {model.who} {len(ours)}")
    if wrong := disagreement(theirs.names, ours, "teacher"):
        raise DataError(f"{wrong}, whose classes the {model.who} has")


def _drawing(kind: Kind, image: np.ndarray, truth: np.ndarray | None, found: list[np.ndarray], model: Model) -> bytes:
    """The PNG of one job; `found` are the masks of the model and, where there is one, of its teacher."""
    classes, mask = model.classes, found[0]
    if kind == "mask":
        picture = Image.fromarray(mask)
        picture.putpalette([channel for colour in classes.palette for channel in colour])
    elif kind == "overlay":
        picture = Image.fromarray(drawing.overlay(image, mask, classes))
    else:
        lone_teacher = len(found) == 1 and model.who == "teacher"
        teacher, student = (mask, None) if lone_teacher else (found[1] if len(found) == 2 else None, mask)
        picture = Image.fromarray(drawing.panel(image, truth, teacher, student, classes=classes))
    buffer = io.BytesIO()
    picture.save(buffer, "png")
    return buffer.getvalue()


def _images(source: Path) -> list[Path]:
    if not source.is_dir():
        return [source]
    found = sorted(path for path in source.iterdir() if path.suffix.lower() in SUFFIXES)
    if not found:
        raise DataError(f"{source}: no images in this folder ({', '.join(SUFFIXES)})")
    return found


def _free(stem: str, taken: set[str]) -> str:
    """The stem, or the first of STEM-2, STEM-3, ... that no other drawing has."""
    numbered = (stem if number == 1 else f"{stem}-{number}" for number in itertools.count(1))
    # Folded: some file systems hold A and a for one name.
    name = next(name for name in numbered if name.casefold() not in taken)
    taken.add(name.casefold())
    return name


def _read(job: Job, classes: Classes) -> tuple[np.ndarray, np.ndarray | None]:
    """Image and class ids; an image alone is turned as its EXIF says, one with a mask is refused if it is turned."""
    image = read_image(job.image, apply_orientation=job.truth is None)
    if job.truth is None:
        return image, None
    truth = read_mask(job.truth) if job.labels is None else job.labels.read(job.truth)
    if truth.shape != image.shape[:2]:
        raise DataError(f"{job.truth}: the mask is {truth.shape}, the image {image.shape[:2]} (height, width)")
    if job.labels is not None:
        return image, truth
    if classes in (NYUV2_13, NYUV2_40):
        return image, nyuv2.class_ids(str(job.truth), truth, len(classes))
    if classes == CAMVID:
        truth = np.where(truth == VOID, IGNORE, truth)  # its files have an id of their own for void
    check_labels(str(job.truth), truth, len(classes))
    return image, truth.astype(np.uint8)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{folder}: cannot make the folder ({error.strerror}); choose another --out") from error
