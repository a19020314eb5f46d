"""The comparison: both loops in turn within one run, and ratios of medians, since machines are noisy."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from segkd.benchmark import pair
from segkd.benchmark.memory import peak_mb
from segkd.benchmark.phases import watched
from segkd.benchmark.reference import STUDENT_MOVES
from segkd.data import catalogue
from segkd.data.classes import Classes
from segkd.data.samples import Sample
from segkd.evaluation.evaluate import evaluate
from segkd.foundation import terminal
from segkd.machine.device import machine, seconds_of
from segkd.recipe import DistillRecipe
from segkd.runs.place import choose_precision, place_of
from segkd.training.distiller import Distiller

VERBS = {"segkd --help": ("--help",), "segkd recipes validate quickstart": ("recipes", "validate", "quickstart")}


def benchmark(
    recipe: DistillRecipe, alternations: int = 5, say: Callable[[str], None] = terminal.say
) -> dict[str, Any]:
    """Measure segkd's whole steps of `recipe` beside those of the reference loop; returns JSON values.

    `ratio` holds what the comparison is for: student_images_per_s (segkd's over the reference's), peak_memory (both in
    fp32), evaluator (over the bare forward). Utilisation is of a product of matrices, measured in the same run. The first
    step of each loop warms up.

    Raises:
        UsageError: the recipe has no loop to compare with.
    """
    place = place_of(recipe)
    device = place.device
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")  # fp32 in TF32, as torch's convolutions are anyway
    plain, game = pair.reference(recipe, device), pair.distiller(recipe, device, place.bf16)
    choose_precision(place, game)
    say("memory of both loops, each in a process of its own")
    memory = {who: peak_mb(recipe, who, device) for who in ("segkd", "reference")}
    kinds = {"fp32": torch.float32, **({"bf16": torch.bfloat16} if place.bf16 else {})}
    peaks = {name: _peak_flops(kind, device) for name, kind in kinds.items()}
    flops = {"reference": _flops(plain.play), "segkd": _flops_of(game)}
    times: dict[str, list[float]] = {"reference": [], "segkd": []}
    for turn in range(alternations):
        times["reference"].append(seconds_of(plain.play, device))
        times["segkd"].append(seconds_of(lambda step=2 + turn: game.play(step), device))
        say(
            f"turn {turn + 1}/{alternations}: reference {times['reference'][-1]:.2f} s, segkd {times['segkd'][-1]:.2f} s"
        )
    phases = watched(game, device)  # only now: to tell phases apart, a GPU is waited for between them
    for step in range(2 + alternations, 2 + 2 * alternations):
        game.play(step)
    spent = sum(phases.seconds.values())
    moves = {"reference": STUDENT_MOVES, "segkd": game.method.moves(2).count("student")}
    precision = {"reference": "fp32", "segkd": place.precision}
    loops = {}
    for who, measured in times.items():
        step = statistics.median(measured)
        loops[who] = {
            "precision": precision[who], "student_moves": moves[who], "step_seconds": step, "all_step_seconds": measured,
            "student_images_per_s": moves[who] * recipe.run.batch / step, "flops": flops[who],
            "utilisation": flops[who] / step / peaks[precision[who]], "peak_memory_mb": memory[who],
        }  # fmt: skip
    loops["segkd"]["phases"] = {name: seconds / spent for name, seconds in phases.seconds.items()}
    say("the evaluator, and the start of the verbs")
    judged = _evaluator(game.student.network, recipe, device, place.precision, alternations)
    ratio = {
        "student_images_per_s": loops["segkd"]["student_images_per_s"] / loops["reference"]["student_images_per_s"],
        "peak_memory": memory["segkd"] / memory["reference"],
        "evaluator": judged["evaluator_seconds"] / judged["forward_seconds"],
    }
    return {
        "ratio": ratio, **loops, "evaluator": judged, "start_seconds": {verb: _start(words) for verb, words in VERBS.items()},
        "peak_flops_per_s": peaks, "method": recipe.method, "variant": recipe.variant, "batch": recipe.run.batch,
        "size": list(recipe.synth.size), "random_teacher": not pair.has_weights(recipe), "alternations": alternations,
        "machine": machine(), "device": str(device), "threads": torch.get_num_threads(), "torch": str(torch.__version__),
    }  # fmt: skip


def described(found: dict[str, Any]) -> str:
    """The figures of `benchmark` as lines for a terminal."""
    lines = []
    for who in ("reference", "segkd"):
        loop = found[who]
        lines.append(
            f"{who:<10} {loop['step_seconds']:7.2f} s a step  {loop['student_images_per_s']:8.1f} student images/s"
            f"  {100 * loop['utilisation']:3.0f} % of the peak in {loop['precision']}  {loop['peak_memory_mb']:6.0f} MB in fp32"
        )
    ratio, judged = found["ratio"], found["evaluator"]
    lines += [f"  {100 * share:5.1f} %  {name}" for name, share in found["segkd"]["phases"].items()]
    lines.append(f"student images/s: {ratio['student_images_per_s']:.2f} times the reference's")
    lines.append(f"peak memory: {ratio['peak_memory']:.2f} of the reference's")
    lines.append(f"evaluator: {ratio['evaluator']:.2f} times the bare forward, {judged['images_per_s']:.0f} images/s")
    lines += [f"{verb}: {seconds:.2f} s" for verb, seconds in found["start_seconds"].items()]
    lines.append(f"{found['machine']}, {found['threads']} threads, torch {found['torch']}")
    return "\n".join(lines)


def _flops(play: Callable[[], object]) -> int:
    """Floating-point operations of one step, which warms up beside."""
    with FlopCounterMode(display=False) as counter:
        play()
    return int(counter.get_total_flops())


def _flops_of(game: Distiller) -> int:
    """Those of a step of segkd's, whose graphs, if it has any, are recorded in a second step: no counter sees a replay."""
    recording, game.networks.recording = game.networks.recording, False
    counted = _flops(lambda: game.play(1))
    game.networks.recording = recording
    if recording:
        game.play(1)
    return counted


def _peak_flops(dtype: torch.dtype, device: torch.device) -> float:
    """Floating-point operations a second of a product of square matrices, which keeps the device busy for milliseconds."""
    side = 8192 if device.type == "cuda" else 2048
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    times = [seconds_of(lambda: left @ right, device) for _ in range(6)]
    return 2 * side**3 / statistics.median(times[1:])


class _Pictures:
    """Random labelled images of CamVid's size, in memory."""

    def __init__(self, classes: Classes, count: int) -> None:
        rng = np.random.default_rng(0)
        self.classes = classes
        self._samples = [
            Sample(str(i), rng.integers(0, 256, (256, 341, 3), np.uint8), rng.integers(0, len(classes), (256, 341), np.uint8))
            for i in range(count)
        ]  # fmt: skip

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Sample:
        return self._samples[index]

    def __iter__(self):  # noqa: ANN204
        return iter(self._samples)


def _evaluator(
    network: nn.Module, recipe: DistillRecipe, device: torch.device, precision: Any, turns: int, batch: int = 8
) -> dict[str, float]:
    """The evaluator on images in memory, beside the student's forward alone on the same batches, in turn."""
    data, block = _Pictures(catalogue.classes_of(recipe.teacher.classes), 6 * batch), recipe.teacher
    ready = torch.randn(batch, 3, 256, 341, device=device)

    def judge() -> None:
        evaluate(network, data, mean=block.mean, std=block.std, device=device, precision=precision, batch=batch)

    def forward() -> None:
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            for _ in range(len(data) // batch):
                network(ready)

    training = network.training
    network.eval()
    times = [(seconds_of(judge, device), seconds_of(forward, device)) for _ in range(1 + turns)][1:]
    network.train(training)
    whole, bare = (statistics.median(column) for column in zip(*times, strict=True))
    return {"evaluator_seconds": whole, "forward_seconds": bare, "images_per_s": len(data) / whole}


def _start(words: tuple[str, ...]) -> float:
    """The median time of a verb in a fresh process."""
    root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    command, environment = [sys.executable, "-m", "segkd", *words], {**os.environ, "PYTHONPATH": path}

    def run() -> None:
        subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)

    return statistics.median([seconds_of(run, torch.device("cpu")) for _ in range(4)][1:])
