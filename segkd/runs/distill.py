"""`segkd distill`: a teacher without its images, a game, a student folder, and an honest summary."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import nn

from segkd import build
from segkd.data import catalogue
from segkd.data.classes import Classes
from segkd.delivery.folder import load_student, save_network, write_card
from segkd.evaluation.visualize import sample_grid, save_png
from segkd.foundation import audit, terminal
from segkd.foundation.errors import NumbersError
from segkd.foundation.files import RunLock, make_folder, sha256
from segkd.foundation.resize import side_of
from segkd.foundation.rng import alone
from segkd.machine import ranks
from segkd.models.adapters import flops_of, parameters_of
from segkd.models.taps import few_statistics
from segkd.models.teacher import Teacher, input_range
from segkd.models.trial import try_measured
from segkd.models.weights import weights_file
from segkd.recipe import DistillRecipe, expand_root
from segkd.runs import card
from segkd.runs.finished import finished
from segkd.runs.folder import (
    TEACHER,
    Bench,
    Guest,
    Options,
    begin,
    bench_of,
    finish,
    in_steps,
    plan_of,
    ran_on,
    rehearsal,
    run_folder,
    settled,
    warn,
)  # fmt: skip
from segkd.runs.labelled import Labelled, images_measured, labelled, score, unmeasured
from segkd.runs.planning import outlook
from segkd.training import checkpoint, loop, plan
from segkd.training.distiller import Distiller
from segkd.training.signals import StopFlag

APART = 0.1
"""Difference of their agreement with the teacher from which on averaged and live student are told to be apart."""


def distill(recipe: DistillRecipe, options: Options | None = None) -> dict:
    """Distil a teacher into a student; returns the summary. Resumes a run that its folder holds.

    Real labelled images are opened for measuring only; the summary counts them, apart from those that trained.
    """
    options, folder = options or Options(), Path(recipe.run.dir)
    done = finished(folder, recipe, options)
    if done is not None:
        return done
    if not options.quiet:
        for line in unmeasured(recipe):
            warn(line)
    audit.install()
    with alone():
        bench = bench_of(recipe, folder)
        with ranks.joined(bench.device):
            return _distill(recipe, options, replace(bench, bf16=ranks.told(bench.bf16)), folder)


def _distill(recipe: DistillRecipe, options: Options, bench: Bench, folder: Path) -> dict:
    """The run itself, in each of its processes."""
    opened_before = _opened(recipe)
    terminal.doing("preparing: the teacher")
    teacher = build.teacher_of(recipe.teacher, options.trust_pickle)
    teacher = teacher.to(bench.device, memory_format=torch.channels_last)
    watch, final = labelled(recipe, recipe.data.watch), labelled(recipe, recipe.data.final)
    build.check_classes(teacher, recipe.student, watch if final is None else final)
    terminal.doing("preparing: the student and the generator")
    recipe = in_steps(recipe, folder, lambda short: _trial(short, teacher, bench))
    with audit.phase("training"):
        game = build.distiller_of(recipe, teacher, bench.device, bench.bf16)
        bench = settled(bench, game)
    for data in (watch, final):
        for who, network in (("teacher", teacher), ("student", game.student.network)) if data is not None else ():
            try_measured(network, who, data[0].image.shape[:2], bench.device)
    if not ranks.rank() and any("statistics" in needs for needs in game.needs.values()):
        terminal.say(*few_statistics(teacher.network))
    facts = {**_sizes(recipe, game, teacher), "real_images_for_evaluation": images_measured(recipe, watch, final)}
    # All that can be wrong with the input has been said by now: only then is anything written.
    with run_folder(recipe, options.resume) as (stop, lock):
        end = partial(_end, recipe, options, game, teacher, bench, stop)
        if ranks.told(not checkpoint.listed(folder / "checkpoints")):
            _rehearse(end, folder, recipe, game, teacher, final, facts | ran_on(recipe, game, 0.0))
        about = {TEACHER: sha256(weights_file(Path(expand_root(recipe.teacher.weights))))}
        start, diary = begin(folder, recipe, options, bench, game, about)
        with audit.phase("training"):
            looks = _events(folder, recipe, game, teacher, watch, bench, stop, lock)
            first = plan.FirstSteps(game)
            events = replace(
                looks,
                progress=options.told(),
                opened=lambda: _opened(recipe) - opened_before,
                outlook=lambda: outlook(recipe, bench, first, loop.OUTLOOK),
            )
            loop.run(game, start, plan_of(recipe), events, diary, folder, recipe.as_dict(), stop)
        opened = sum(ranks.told(ranks.gathered(events.opened())))
        facts |= {
            "real_images_for_training": _real_images(recipe, game, start.opened + opened),
            **ran_on(recipe, game, diary.seconds),
        }
        return finish(folder, lock, end(folder, final, 4, facts))


def _end(
    recipe: DistillRecipe, options: Options, game: Distiller, teacher: Teacher, bench: Bench, stop: StopFlag, folder: Path,
    final: Labelled | None, batches: int, facts: dict[str, object],
) -> dict[str, object]:  # fmt: skip
    """What a run leaves when it is done: the student and its card in `folder`, and the summary, with `facts` in it."""
    student, classes = game.measured(recipe.run.headline), catalogue.classes_of(recipe.teacher.classes)
    if not ranks.rank():
        save_network(student.network, folder / "student", names=classes.names, palette=classes.palette,
                     mean=teacher.mean, std=teacher.std, stride=student.stride, shorter_side=side_of(recipe.data.size))  # fmt: skip
    summary = {
        "recipe": options.name or Path(recipe.run.dir).name, "method": recipe.method,
        "variant": recipe.variant if game.method.variants else None,
        **_judge(recipe, game, teacher, final, bench, stop),
        "agreement": game.agreement(student, batches), **facts, "refused_moves": game.refusals.total, "rollbacks": game.attempt,
    }  # fmt: skip
    if not ranks.rank():
        write_card(folder / "student", student.network, card.of_distilled(recipe, summary, len(final or ()) or None))
    return summary


def _rehearse(
    end: Callable[..., dict], folder: Path, recipe: DistillRecipe, game: Distiller, teacher: Teacher, final: Labelled | None,
    facts: dict[str, object],
) -> None:  # fmt: skip
    """Do before the first step, with what little is needed, all that is due after the last one, and throw it away.

    What cannot be measured, drawn, written or read back is an error now, and not when the student is trained.
    """
    few = None if final is None else Labelled(final, recipe.data.size, ranks.size())
    with rehearsal(folder) as place:
        with suppress(NumbersError):  # weights that have learnt nothing may well overflow
            end(place, few, 1, facts | {"real_images_for_training": 0})
        save_samples(
            place / "sample.png", game, teacher, catalogue.classes_of(recipe.teacher.classes), recipe.run.headline
        )
        if not ranks.rank():
            load_student(place)


def _sizes(recipe: DistillRecipe, game: Distiller, teacher: Teacher) -> dict[str, int | None]:
    """Parameters, and FLOPs at the size of the synthetic images: None, and a line, where they cannot be counted."""
    networks = {"student": game.student.network, "teacher": teacher}
    parameters = {f"{name}_parameters": parameters_of(network) for name, network in networks.items()}
    flops = {name: flops_of(network, *recipe.synth.size) for name, network in networks.items()}
    for name in (name for name, count in flops.items() if count is None):
        warn(f"warning: {name}: the operations of this network cannot be counted, and the summary will not tell them")
    return parameters | {f"{name}_flops": count for name, count in flops.items()}


def _trial(recipe: DistillRecipe, teacher: Teacher, bench: Bench) -> Distiller:
    """A game apart, to be measured."""
    game = build.distiller_of(recipe, teacher, bench.device, bench.bf16)
    settled(bench, game)
    return game


def _events(
    folder: Path,
    recipe: DistillRecipe,
    game: Distiller,
    teacher: Teacher,
    watch: Labelled | None,
    bench: Bench,
    stop: StopFlag,
    lock: RunLock | Guest,
) -> loop.Events:
    """What is looked at during the run: agreement and, where the recipe watches a split, the student's mIoU on it."""
    classes = catalogue.classes_of(recipe.teacher.classes)

    def look(step: int) -> dict[str, object]:
        students = {name: game.measured(name) for name in ("ema", "last")}
        known = {student: game.agreement(student) for student in dict.fromkeys(students.values())}
        agreement = {name: known[student] for name, student in students.items()}
        values: dict[str, object] = {"agreement": agreement[recipe.run.headline]}
        if abs(agreement["ema"] - agreement["last"]) > APART:
            game.notes.append(
                f"step {step}: the averaged student agrees with its teacher on {agreement['ema']:.0%} of synthetic pixels,"
                f" the live one on {agreement['last']:.0%}; run.headline says which is the result ({recipe.run.headline})"
            )
        if watch is not None:
            found = _scores(students, recipe, teacher, watch, bench, stop)
            values |= {f"val_miou_{name}": result["miou"] for name, result in found.items()}
        return values

    def sample(step: int) -> None:
        save_samples(folder / "samples" / f"{step:08d}.png", game, teacher, classes, recipe.run.headline)

    return loop.Events(look, sample, lock.check)


def _judge(
    recipe: DistillRecipe, game: Distiller, teacher: Teacher, final: Labelled | None, bench: Bench, stop: StopFlag
) -> dict[str, object]:
    """The mIoU of teacher and student on the final split; every value None without one."""
    networks = {"ema": game.measured("ema"), "last": game.measured("last"), "teacher": teacher}
    scores = dict.fromkeys(networks, {}) if final is None else _scores(networks, recipe, teacher, final, bench, stop)
    best, judged = scores[recipe.run.headline].get("miou"), scores["teacher"].get("miou")
    return {
        "student_miou": best, "student_miou_ema": scores["ema"].get("miou"), "student_miou_last": scores["last"].get("miou"),
        "teacher_miou": judged, "recovery": best / judged if best is not None and judged else None,
        "per_class": scores[recipe.run.headline].get("per_class"), "teacher_per_class": scores["teacher"].get("per_class"),
    }  # fmt: skip


def _scores(
    networks: dict[str, nn.Module],
    recipe: DistillRecipe,
    teacher: Teacher,
    data: Labelled,
    bench: Bench,
    stop: StopFlag,
) -> dict[str, dict]:
    """The scores of networks by name; one that has two names is measured once, as a student without an average."""
    terminal.doing("evaluating")
    known = {
        network: score(network, data, recipe, bench, teacher.mean, teacher.std, stop)
        for network in dict.fromkeys(networks.values())
    }
    return {name: known[network] for name, network in networks.items()}


def _opened(recipe: DistillRecipe) -> int:
    """Images opened or rendered for training in this process so far; it may have done other runs before this one.

    A stream's are not counted here: each part of a run opens them, and they are no more for that.
    """
    if recipe.synth.kind == "images":
        return 0
    return audit.count("training") + audit.count("rendered")


def _real_images(recipe: DistillRecipe, game: Distiller, opened: int) -> int:
    """How many images that are not synthetic trained the student: those that it was shown, or else what the audit saw."""
    # A stream's labels, which nobody looks at, are files that the audit sees too.
    return len(game.source) if recipe.synth.kind == "images" else opened


def save_samples(path: Path, game: Distiller, teacher: Teacher, classes: Classes, headline: str, rows: int = 4) -> None:
    """The grid of a step: synthetic image | teacher mask | student mask | disagreement. The first process writes it."""
    images = next(iter(game.held_out(1)))[:rows]  # by all, whose BatchNorm may be one
    network = game.measured(headline)
    if ranks.rank():
        return
    guide, student = (list(ids.to(torch.uint8).numpy()) for ids in game.masks(images, network))
    low, high = (value.view(1, 3, 1, 1).to(images.device) for value in input_range(teacher.mean, teacher.std))
    pixels = (
        ((images - low) / (high - low) * 255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    )
    make_folder(path.parent)
    save_png(path, sample_grid(list(pixels), guide, student, classes))
