"""`segkd teach`: a network trained on labelled images, its best weights kept, rounded, measured and written down."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import torch

from segkd import build
from segkd.data import catalogue
from segkd.delivery.folder import load_student, save_network, write_card
from segkd.foundation import audit
from segkd.foundation.errors import NumbersError, StorageError, UsageError
from segkd.foundation.files import atomic_write, make_folder, refuse_irregular, sweep, write_failure
from segkd.foundation.resize import side_of
from segkd.foundation.rng import alone
from segkd.models.adapters import Adapter, flops_of, parameters_of
from segkd.models.tensors import to_safetensors
from segkd.models.weights import load_weights
from segkd.recipe import TeachRecipe, expand_root
from segkd.runs import card
from segkd.runs.finished import finished
from segkd.runs.folder import (
    Bench,
    Options,
    begin,
    bench_of,
    finish,
    in_steps,
    plan_of,
    ran_on,
    rehearsal,
    run_folder,
)  # fmt: skip
from segkd.runs.labelled import Labelled, images_measured, labelled, score
from segkd.runs.taking import check_made_by
from segkd.training import checkpoint, loop
from segkd.training.signals import StopFlag
from segkd.training.teaching import Teaching


def teach(recipe: TeachRecipe, options: Options | None = None) -> dict:
    """Train a network on labelled images; returns the summary. Resumes a run that its folder holds.

    The weights that are best on `data.watch` are kept (the last ones without it), rounded to fp16 where `output` asks
    for a file, and then measured once on `data.final`.
    """
    options, folder = options or Options(), Path(recipe.run.dir)
    done = finished(folder, recipe, options)
    if done is not None:
        return done
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError("segkd teach trains in one process: start it without torchrun")
    audit.install()
    with alone():
        return _teach(recipe, options, folder)


def _teach(recipe: TeachRecipe, options: Options, folder: Path) -> dict:
    """The run itself."""
    bench, mean, std = bench_of(recipe, folder), recipe.model.mean, recipe.model.std
    with audit.phase("training"):
        recipe = in_steps(recipe, folder, lambda short: build.teaching_of(short, bench.device, bench.bf16)[0])
        game, network = build.teaching_of(recipe, bench.device, bench.bf16)
    watch, final = labelled(recipe, recipe.data.watch), labelled(recipe, recipe.data.final)
    judged = game.player.headline if recipe.run.headline == "ema" else game.player.network
    with run_folder(recipe, options.resume) as (stop, lock):
        if recipe.output is not None:
            check_output(Path(recipe.output), options.name or folder.name)
        end = partial(_end, recipe, options, game, network, bench, stop)
        facts = {"real_images_for_training": 0 if recipe.data.name == "scenes" else len(game.samples),
                 "real_images_for_evaluation": images_measured(recipe, watch, final)}  # fmt: skip
        if not checkpoint.listed(folder / "checkpoints"):
            _rehearse(end, folder, recipe, judged, final, facts | ran_on(recipe, game, 0.0))
        start, diary = begin(folder, recipe, options, bench, game, {})

        def look(step: int) -> dict[str, object]:
            miou = score(judged, watch, recipe, bench, mean, std, stop)["miou"]
            best = game.offer(miou, step, judged)
            return {"val_miou": miou, "val_best": best}

        events = loop.Events(look if watch is not None else None, check=lock.check, progress=options.told())
        loop.run(game, start, plan_of(recipe), events, diary, folder, recipe.as_dict(), stop)
        time_and_place = ran_on(recipe, game, diary.seconds)
        network.load_state_dict(game.best["network"] or judged.state_dict())
        network.eval()
        if recipe.output is not None:
            # Round before measuring: the score is that of the file, not of what it was made from.
            load_weights(network.network, rounded(network), "the rounded weights")
        summary = end(folder, final, facts | time_and_place)
        if recipe.output is not None:
            write_teacher(Path(recipe.output), network, recipe, summary)
        return finish(folder, lock, summary)


def _end(
    recipe: TeachRecipe, options: Options, game: Teaching, network: Adapter, bench: Bench, stop: StopFlag, folder: Path,
    final: Labelled | None, facts: dict[str, object],
) -> dict[str, object]:  # fmt: skip
    """What a run leaves when it is done: the network and its card in `folder`, and the summary, with `facts` in it."""
    mean, std, classes = recipe.model.mean, recipe.model.std, catalogue.classes_of(recipe.model.classes)
    result = score(network, final, recipe, bench, mean, std, stop) if final is not None else {}
    save_network(network.network, folder / "model", names=classes.names, palette=classes.palette, mean=mean, std=std,
                 stride=network.stride, shorter_side=side_of(recipe.data.size))  # fmt: skip
    summary = {
        "recipe": options.name or Path(recipe.run.dir).name, "method": "labels", "variant": None,
        **_scores(recipe, game, result), **_sizes(network, result), **facts,
        "refused_moves": game.refusals.total, "rollbacks": game.attempt,
    }  # fmt: skip
    write_card(folder / "model", network.network, card.of_taught(recipe, summary))
    return summary


def _rehearse(
    end: Callable[..., dict], folder: Path, recipe: TeachRecipe, network: Adapter, final: Labelled | None,
    facts: dict[str, object],
) -> None:  # fmt: skip
    """Do before the first step, with one image, what is due after the last one, and throw it away: see `distill`."""
    few = None if final is None else Labelled(final, recipe.data.size, 1)
    with rehearsal(folder) as place, suppress(NumbersError):  # weights that have learnt nothing may well overflow
        model_card("rehearsal", recipe, end(place, few, facts))
        load_student(place)


def _scores(recipe: TeachRecipe, game: Teaching, result: dict) -> dict[str, object]:
    """What was measured, under the keys that a distilled student's summary has too."""
    best = game.best["step"]
    return {
        "student_miou": result.get("miou"), "student_miou_ema": None, "student_miou_last": result.get("miou"),
        "teacher_miou": None, "recovery": None, "agreement": None,
        "best_step": best or recipe.run.steps, "val_miou": game.best["miou"] if best else None,
        "per_class": result.get("per_class"), "pixel_accuracy": result.get("pixel_accuracy"), "images": result.get("images"),
    }  # fmt: skip


def _sizes(network: Adapter, result: dict) -> dict[str, int | None]:
    """Parameters, and FLOPs at the size that was measured (None where that was mixed, nothing was, or they cannot be counted)."""
    size = result.get("size")
    flops = flops_of(network, *size) if isinstance(size, list) else None
    return {"student_parameters": parameters_of(network), "student_flops": flops}


def rounded(network: Adapter) -> dict[str, torch.Tensor]:
    """The network's tensors in fp16, but for running statistics, which the BatchNorm judge compares with, in fp32."""
    return {
        key: value.half() if value.is_floating_point() and "running_" not in key else value
        for key, value in network.network.state_dict().items()
    }


def check_output(path: Path, recipe: str) -> None:
    """Make the folder of a teacher's file and of its card.

    Raises:
        StorageError: they could not be written at the end, or would replace what another recipe or somebody else made.
    """
    make_folder(path.parent)
    for file in (path, path.with_suffix(".md")):
        refuse_irregular(file)
    check_made_by(path, recipe)
    probe = path.parent / f".tmp-{path.name}-{os.getpid()}"  # whether one may write there, only writing tells
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise StorageError(f"{write_failure(path, 0, error)}; choose another output") from error


def write_teacher(path: Path, network: Adapter, recipe: TeachRecipe, summary: dict) -> None:
    """The fp16 weights at `path`, and beside them a model card with how they were made and what they score."""
    make_folder(path.parent)
    for file in (path, path.with_suffix(".md")):
        sweep(path.parent, f"{file.name}-")
    atomic_write(path, to_safetensors(rounded(network), format="pt", recipe=str(summary["recipe"])))
    atomic_write(path.with_suffix(".md"), model_card(path.stem, recipe, summary))


def model_card(title: str, recipe: TeachRecipe, summary: dict) -> str:
    """The card of a trained network: what it is, how it was made, what it scores, who may use it."""
    model, data = recipe.model, recipe.data
    encoder = f" with encoder {model.encoder}" if model.encoder else ""
    subject, licence = data.name, f"research use: trained on {data.name} images"
    if data.name == "scenes":
        licence = "MIT, as the code: its training images are procedural"
    elif data.name == "folder":
        subject, licence = expand_root(str(data.root)).resolve().name, "it follows that of the training images"
    measured = ""
    if summary["student_miou"] is not None:
        rows = "".join(
            f"| {name} | {'-' if iou is None else f'{iou:.3f}'} |\n" for name, iou in summary["per_class"].items()
        )
        measured = f"mIoU on {data.final}: {summary['student_miou']:.4f} ({summary['images']} images).\n\n| class | IoU |\n|---|---|\n{rows}"
    return (
        f"# {title}\n\n{model.arch}{encoder}, {summary['student_parameters'] / 1e6:.2f} M parameters, for {subject};"
        f" input RGB, (x / 255 - mean) / std with mean {list(model.mean)} and std {list(model.std)}.\n\n"
        f"Made by `segkd teach {summary['recipe']}` in {summary['steps']} steps, {summary['seconds'] / 60:.0f} minutes on"
        f" {summary['machine']} ({summary['precision']}); the weights of step {summary['best_step']}"
        f"{', the best on ' + data.watch if data.watch else ''}.\n\nLicence: {licence}.\n\n{measured}"
    )
