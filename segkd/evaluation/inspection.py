"""What a teacher is like, seen without any image that it was trained on: its layers, its answers, and what they allow.

The procedural street scenes stand for photographs: their colours and edges are like those of photographs, which is all that
a network's first layer sees.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from segkd.evaluation.collapse import ONE_CLASS, class_shares
from segkd.foundation import audit
from segkd.foundation.channels import RGB, stands_in
from segkd.foundation.errors import UsageError
from segkd.models.adapters import Adapter
from segkd.models.family import Size
from segkd.models.recorded import RecordedStatistics
from segkd.models.taps import BatchNormTap, BatchStatistics, batchnorm_layers, norm_of, untrained
from segkd.models.teacher import Teacher, input_range
from segkd.models.trial import ONE_EACH, computed
from segkd.procedural.scenes import render

Level = Literal["green", "amber", "red"]
LEVELS: tuple[Level, ...] = ("green", "amber", "red")
FIRST_SEED = 1_000_000
"""Where the seeds of street scenes begin: with those of the val images of the data set `scenes`, which train nobody."""
LEAST = 192, 256
"""Height and width below which scenes are not drawn: the smaller they are, the less are their pixels like a photograph's."""
NORMALISATIONS = {
    "ImageNet's mean and std": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "mean 0.5 and std 0.5": ((0.5,) * 3, (0.5,) * 3),
    "mean 0 and std 1, of 0..1": ((0.0,) * 3, (1.0,) * 3),
    "numbers of 0..255": ((0.0,) * 3, (1 / 255,) * 3),
}
"""Those that are common."""
APART, FAR, BETTER = 0.4, 1.5, 0.2
"""Natural logarithms of how many times wider or narrower than in training the maps of a first layer are: beyond `APART` the
normalisation is doubtful, where a common one is nearer by `BETTER`; beyond `FAR` it is another scale altogether. Networks of
ImageNet, CamVid and NYUv2 with the right one were at most 0.3 off."""
SEEN = 0.001
"""A class that fewer pixels than this share of a kind of images have was not seen in it."""


@dataclass(frozen=True)
class Finding:
    """One thing about a teacher: how good it is, what was looked at, what was seen, and what to do about it."""

    level: Level
    what: str
    said: str
    advice: str = ""

    @property
    def told(self) -> str:
        """What was seen, and what to do about it if anything."""
        return f"{self.said}; {self.advice}" if self.advice else self.said


def verdict(findings: Sequence[Finding]) -> Level:
    """The worst level."""
    return max((finding.level for finding in findings), key=LEVELS.index, default="green")


def layers(network: nn.Module) -> Finding:
    """Its normalisation layers, by kind and by the part of the network in which they are."""
    found: Counter[tuple[str, str]] = Counter()
    for name, module in network.named_modules():
        if (kind := norm_of(module)) is not None:
            found[kind, name.partition(".")[0]] += 1
    kinds: dict[str, dict[str, int]] = {}
    for (kind, place), count in found.items():
        kinds.setdefault(kind, {})[place] = count
    told = [
        f"{sum(places.values())} {kind} ({', '.join(f'{count} in {place}' for place, count in places.items())})"
        for kind, places in kinds.items()
    ]
    return Finding("green", "layers", ", ".join(told) or "no normalisation layer")


def statistics(network: nn.Module, needed: bool, recorded: RecordedStatistics | None = None) -> Finding:
    """Whether its BatchNorm layers remember images; `needed`: the recipe's method compares statistics with them.

    Those that were recorded stand for them.
    """
    if recorded is not None:
        return Finding(
            "green", "statistics", f"of {len(recorded.layers)} layers, recorded from {recorded.images} images"
        )
    tracked = batchnorm_layers(network)
    count = len(tracked)
    others = sum(norm_of(module) is not None for module in network.modules()) - count
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    biased = sum(module.bias is not None for module in convolutions)
    biased = 0 if others > count else biased  # beside LayerNorm they have one, folded or not
    folded = f"{biased} of {len(convolutions)} convolutions have a bias, as where BatchNorm was folded into them"
    fresh = untrained(tracked)
    level: Level = "red" if needed else "amber"
    advice = "set weights.bn=0, or record those of images: segkd record" if needed else "a method without weights.bn"
    if not tracked:
        said = f"none: no BatchNorm layer has any{f'; {folded}' if 2 * biased > len(convolutions) else ''}"
        return Finding(level, "statistics", said, advice)
    if 2 * len(fresh) > count:
        said = f"{len(fresh)} of {count} BatchNorm layers were never trained ({fresh[0]}, ...)"
        return Finding(level, "statistics", said, advice)
    if fresh:
        said = f"{count - len(fresh)} of {count} BatchNorm layers were trained; not {fresh[0]}"
        return Finding("amber", "statistics", said, "see whether the whole file was taken")
    if others > count:
        said = f"kept by {count} of {count + others} normalisation layers: they say little of its images"
        return Finding("amber", "statistics", said, "expect less, or record those of images of your own: segkd record")
    said = f"all {count} BatchNorm layers were trained"
    if biased > 2 * count:
        return Finding("amber", "statistics", f"{said}, but {folded}", "bring the unfolded teacher, if there is one")
    return Finding("green", "statistics", said)


def pictures(teacher: Teacher, size: Size, count: int) -> dict[str, Tensor]:
    """Images in the teacher's input space (N,K,H,W), N up to `count`: street scenes, noise, and flat ones; no file is opened.

    They have `size`, or more where that is small and the teacher takes it.
    """
    if teacher.family.made_for(teacher.network) is None:
        size = max(size[0], LEAST[0]), max(size[1], LEAST[1])
    device = teacher.device
    low, high = (value.view(1, -1, 1, 1) for value in input_range(teacher.mean, teacher.std))
    draw = torch.Generator().manual_seed(FIRST_SEED)
    channels = teacher.channels
    flat = torch.cat([torch.tensor([0.0, 0.5, 1.0])[:, None].expand(-1, channels), torch.eye(channels)[:3] / 2])
    kinds = {
        "street scenes": scenes(size, count, channels),
        "noise": torch.rand(min(count, 2), channels, *size, generator=draw),
        "flat images": flat[:count, :, None, None].expand(-1, -1, *size),
    }
    return {kind: (low + (high - low) * images).to(device) for kind, images in kinds.items()}


@cache
def scenes(size: Size, count: int, channels: int = RGB) -> Tensor:
    """Street scenes (N,K,H,W) in 0..1; where they are not RGB, every channel is their grey."""
    with audit.phase("none"):  # nothing of a run is made of them
        images = np.stack([render(FIRST_SEED + number, size)[0] for number in range(count)])
    images = np.stack([stands_in(image, channels) for image in images])
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255


def normalisation(teacher: Teacher, size: Size, count: int) -> Finding | None:
    """Whether its first layer sees what it saw in training; None where that layer has no statistics."""
    device = teacher.device
    images = scenes(size, count, teacher.channels).to(device)

    def off(mean: Sequence[float], std: Sequence[float]) -> float | None:
        """The natural logarithm of how much wider than in training the maps behind the first convolution are."""
        mean_, std_ = (torch.tensor(value, device=device).view(1, -1, 1, 1) for value in (mean, std))
        found = first_statistics(teacher, (images - mean_) / std_)
        if found is None:
            return None
        ratio = found.var.clamp_min(1e-12) / found.running_var.clamp_min(1e-12)
        return float(ratio.log().median()) / 2

    own = off(teacher.mean, teacher.std)
    if own is None:
        return None
    said = f"street scenes are {np.exp(own):.2g} times as varied in the first layer as its training images"
    others = {name: off(mean, std) for name, (mean, std) in NORMALISATIONS.items() if teacher.channels == RGB}
    others = others or {
        name: off(mean[:1], std[:1]) for name, (mean, std) in NORMALISATIONS.items() if len({*mean}) == 1
    }
    name, best = min(others.items(), key=lambda item: abs(item[1]))
    if abs(own) <= APART or abs(best) > abs(own) - BETTER:
        return Finding("green", "normalisation", said)
    level: Level = "red" if abs(own) > FAR else "amber"
    nearer = f"{said}, and {np.exp(best):.2g} times with {name}"
    return Finding(level, "normalisation", nearer, "see how it was trained; set teacher.mean and teacher.std")


class _Seen(Exception):
    """The first BatchNorm has been reached."""


@torch.no_grad()
def first_statistics(teacher: Teacher, images: Tensor) -> BatchStatistics | None:
    """Those of a BatchNorm right behind the first layer with weights; None where there is none there."""
    tap, weighted, handles = BatchNormTap(teacher.network), [], []
    if not tap.layers:
        return None  # a program's submodules take no hook

    def reached(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if len(weighted) == 1 and module in tap.layers.values():
            raise _Seen
        weighted.append(module)
        if len(weighted) > 1:
            raise _Seen

    with tap.open() as found:
        for module in teacher.network.modules():
            if next(module.children(), None) is None and next(module.parameters(recurse=False), None) is not None:
                handles.append(module.register_forward_pre_hook(reached))
        try:
            teacher(images)
        except _Seen:
            pass
        finally:
            for handle in handles:
                handle.remove()
    return found[0] if len(weighted) == 1 and found else None


def answers(teacher: Teacher, shown: Mapping[str, Tensor], bf16: bool = False) -> Iterator[Finding]:
    """What it answers to kinds of images: whether that is finite, how sure it is, and which classes it ever gives."""
    seen, most, logits = {}, {}, {}
    with torch.no_grad(), torch.autocast(next(iter(shown.values())).device.type, torch.bfloat16, enabled=bf16):
        maps = Adapter.forward(teacher, next(iter(shown.values()))[:1]).shape[1]  # before classes are merged
    if maps != teacher.classes:
        yield Finding("red", "classes", f"{maps} maps for {teacher.classes} classes", ONE_EACH)
        return
    for kind, images in shown.items():
        with torch.no_grad(), torch.autocast(images.device.type, torch.bfloat16, enabled=bf16):
            logits[kind] = teacher(images).float()
        if not logits[kind].isfinite().all():
            advice = "its weights are damaged, or its numbers overflow: set run.precision=fp32, or bring another"
            yield Finding("red", "answers", f"not finite for {kind}", advice)
            return
        shares = class_shares(logits[kind])
        seen[kind], most[kind] = set(torch.nonzero(shares >= SEEN).flatten().tolist()), float(shares.max())
    first = next(iter(logits.values()))
    spread, sure = float(first.std(1).mean()), float(first.softmax(1).amax(1).mean())
    yield Finding("green", "answers", f"logits spread by {spread:.3g} over the classes; {sure:.0%} sure on average")
    ever = set().union(*seen.values())
    never = [name for number, name in enumerate(teacher.names) if number not in ever]
    kinds = ", ".join(f"{len(classes)} on {kind}" for kind, classes in seen.items())
    said = f"{len(ever)} of {len(teacher.names)} classes ({kinds})"
    if len(ever) == 1 and min(most.values()) >= ONE_CLASS:
        only = teacher.names[next(iter(ever))]
        advice = "its weights, mean or std are not those that it was trained with"
        yield Finding("red", "classes", f"nothing but {only}, whatever it is shown", advice)
    elif 2 * len(ever) < len(teacher.names):
        advice = "a student learns no class that never comes: watch largest_class in metrics.jsonl"
        yield Finding(
            "amber", "classes", f"{said}; never {', '.join(never[:4])}{' ...' if len(never) > 4 else ''}", advice
        )
    else:
        yield Finding("green", "classes", said)


def gradients(teacher: Teacher, images: Tensor, needed: bool) -> Finding:
    """Whether a gradient comes back to the images; `needed`: the recipe's method moves images by it."""
    x = images[:2].clone().requires_grad_()
    level: Level = "red" if needed else "amber"
    advice = "take a method that asks for none (method=noise, or kd with synth.kind=folder)" if needed else ""
    with computed("teacher: no gradient", advice):
        logits = teacher(x).float()
        slope = torch.autograd.grad(logits.square().mean(), x)[0] if logits.requires_grad else torch.zeros_like(x)
    if not slope.isfinite().all():
        return Finding(level, "gradients", "not finite at the image", advice)
    if not slope.abs().max() > 0:
        return Finding(level, "gradients", "none reach the image", advice)
    return Finding("green", "gradients", "reach the image, and are finite")


def shape(teacher: Teacher) -> Finding:
    """Which sizes it takes, and at which size it answers."""
    fixed = teacher.sizes.fixed or teacher.family.made_for(teacher.network)
    sizes = (
        "images of any size"
        if teacher.stride == 1
        else f"sides that are multiples of {teacher.stride}; others are padded"
    )
    if fixed:
        sizes = f"images of {fixed[0]}x{fixed[1]} alone"
    head = "at the image's size" if teacher.head_stride == 1 else f"at 1/{teacher.head_stride} of the image's sides"
    return Finding("green", "sizes", f"{sizes}; its head answers {head}")


def answering(teacher: Teacher, shown: Mapping[str, Tensor], bf16: bool, moves: bool) -> list[Finding]:
    """All that is found by showing it images; `moves`: the recipe's method moves images by its gradient.

    One that takes other sizes only, as an exported program may, is not judged by them.
    """
    first = next(iter(shown.values()))
    size = tuple(first.shape[-2:])
    try:
        with computed(f"images of {size[0]}x{size[1]} cannot be computed", "how it answers is not known", UsageError):
            seen = normalisation(teacher, size, len(first))
            told = [*([] if seen is None else [seen]), *answers(teacher, shown, bf16)]
            return [*told, gradients(teacher, first, moves)]
    except UsageError as error:
        said, _, advice = str(error).rpartition("; ")
        return [Finding("amber", "answers", said, advice)]


def doubts(teacher: Teacher, size: Size, bf16: bool) -> list[str]:
    """What speaks against a teacher at a quick look at images of a size (H,W), a line each."""
    seen = answering(teacher, pictures(teacher, size, 2), bf16, False)
    found = [finding for finding in seen if finding.level != "green"]
    return [f"warning: teacher: {finding.what}: {finding.told}" for finding in found]
