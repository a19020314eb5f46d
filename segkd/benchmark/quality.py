"""How long until a student is a given share as good as its teacher: segkd beside the plain loop of the literature."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import Any

import torch

from segkd import builders
from segkd.benchmark import pair
from segkd.foundation import terminal
from segkd.foundation.errors import TeacherError, UsageError
from segkd.models.adapters import Adapter
from segkd.recipe import DistillRecipe
from segkd.runs.labelled import labelled, score
from segkd.runs.place import choose_precision, place_of
from segkd.training.signals import StopFlag

Measure = Callable[[], float]


def reach(
    play: Callable[[int], object], measure: Measure, target: float, *, every: float, limit: float,
    steps: int | None = None, say: Callable[[str], None] = terminal.say,
) -> dict[str, Any]:  # fmt: skip
    """Play steps until a look finds `target`, or `limit` seconds or `steps` are over; looks do not count as time.

    Args:
        play: one step; returns when the device has done it.
        measure: the mIoU that the student has now.
        every: seconds of playing between looks.

    Returns:
        `seconds` to the first look that reached `target` (None: none did), and `looks` with seconds, steps and miou.
    """
    looks: list[dict[str, float]] = []
    spent, step = 0.0, 0
    while True:
        began = time.perf_counter()
        play(step)
        spent, step = spent + time.perf_counter() - began, step + 1
        over = spent >= limit or step == steps
        if spent >= every * (len(looks) + 1) or over:
            looks.append({"seconds": spent, "steps": step, "miou": measure()})
            say(f"{spent / 60:6.1f} min  step {step}  mIoU {looks[-1]['miou']:.4f} of {target:.4f}")
            reached = looks[-1]["miou"] >= target
            if reached or over:
                return {"seconds": spent if reached else None, "looks": looks}


def time_to_quality(
    recipe: DistillRecipe,
    who: str,
    *,
    share: float,
    every: float,
    limit: float,
    say: Callable[[str], None] = terminal.say,
) -> dict[str, Any]:
    """Seconds until the student of `segkd`, or of the plain `reference`, has `share` of its teacher's mIoU on `data.watch`.

    segkd plays the recipe as it is, with its schedule, and is judged by its headline; the plain loop by its student.

    Raises:
        UsageError: nothing to watch, or no plain loop to compare with.
        TeacherError: the teacher's weights are missing.
    """
    place = place_of(recipe)
    watch = labelled(recipe, recipe.data.watch)
    if watch is None:
        raise UsageError("data.watch: null; name the labelled split that quality is watched on")
    if not pair.has_weights(recipe):
        raise TeacherError(f"{recipe.teacher.weights}: no such weights file; a random teacher has no quality to reach")
    teacher = builders.teacher_of(recipe.teacher).to(place.device, memory_format=torch.channels_last)

    def miou(network: torch.nn.Module) -> float:
        return score(network, watch, recipe.teacher, place, StopFlag())["miou"]

    if who == "segkd" and recipe.run.budget is not None:
        raise UsageError("run.budget: name run.steps instead; the schedule of a run to be timed must be known")
    best = miou(teacher)
    say(f"{who}, seed {recipe.run.seed}: the teacher has {best:.4f} on {recipe.data.watch}")
    if who == "segkd":
        game = builders.distiller_of(recipe, teacher, place.device, place.bf16)
        choose_precision(place, game)
        step_of, steps, precision = game.play, recipe.run.steps, game.precision

        def student() -> torch.nn.Module:
            return game.monitor.measured(recipe.run.headline)
    else:
        torch.manual_seed(recipe.run.seed)
        loop = pair.reference(recipe, place.device)
        steps, precision = None, "fp32"

        def student() -> torch.nn.Module:
            """A copy, for images of any size: an adapter makes the network that it wraps quicker."""
            return Adapter(copy.deepcopy(loop.student), teacher.classes)

        def step_of(step: int) -> None:
            loop.play()

    def play(step: int) -> None:
        step_of(step)
        if place.device.type == "cuda":
            torch.cuda.synchronize(place.device)

    found = reach(play, lambda: miou(student()), share * best, every=every, limit=limit, steps=steps, say=say)
    return {
        "who": who, "seed": recipe.run.seed, "precision": precision, "teacher_miou": best, "share": share, "limit": limit,
        **found,
    }  # fmt: skip
