"""What a run knows of the network that it made, in lines for the card beside it. Equal runs write equal cards."""

from __future__ import annotations

from typing import Any

from segkd.foundation.channels import name_of
from segkd.foundation.errors import one_line
from segkd.recipe import DistillRecipe, Recipe, TeachRecipe, expand_root
from segkd.recipe.blocks import Data
from segkd.runs.trained import seen_at


def of_distilled(recipe: DistillRecipe, summary: dict[str, Any], images: int | None) -> list[str]:
    """The lines of a distilled student; `images` is how many its mIoU was measured on (None: it was not)."""
    teacher, trained = recipe.teacher, summary["real_images_for_training"]
    variant = f" ({summary['variant']})" if summary["variant"] else ""
    lines = [
        f"Distilled from {_network(teacher.arch, teacher.encoder)}, {summary['teacher_parameters'] / 1e6:.2f} M parameters,"
        f" by segkd: {summary['method']}{variant}, {_length(recipe, summary)}, weights: {_headline(recipe)}. Real images"
        f" that it trained on: {trained or 'none'}."
    ]
    if summary["statistics_recorded_from"] is not None:
        count = summary["statistics_recorded_from"]
        lines.append(f"In the place of its teacher's own, statistics recorded from {count} images.")
    if teacher.student_classes is not None:
        made = (f"{name} of {', '.join(names)}" for entry in teacher.student_classes for name, names in entry.items())
        lines.append(one_line(f"Its classes are made of its teacher's: {'; '.join(made)}.", 4096))
    if summary["student_miou"] is None:
        lines.append("Its mIoU is not known: no labelled images measured it.")
    else:
        lines.append(
            f"mIoU {summary['student_miou']:.4f} on {_set(recipe.data, images)}; its teacher's there is"
            f" {summary['teacher_miou']:.4f}. In measuring, {seen_at(recipe.data.size)}."
        )
    if summary["agreement"] is not None:
        lines.append(
            f"Agreement {summary['agreement']:.4f}: the share of pixels of synthetic images, held out from its training, to"
            " which it gives the class that its teacher gives. That is no mIoU, and no measurement on photos."
        )
    return lines


def of_taught(recipe: TeachRecipe, summary: dict[str, Any]) -> list[str]:
    """The lines of a network that labelled images taught."""
    lines = [
        f"Taught by segkd on {_set(recipe.data, summary['real_images_for_training'] or None, recipe.data.train)}:"
        f" {_length(recipe, summary)}, weights of step {summary['best_step']}."
    ]
    if summary["student_miou"] is None:
        return [*lines, "Its mIoU is not known: no split was measured."]
    measured = f"mIoU {summary['student_miou']:.4f} on {_set(recipe.data, summary['images'])}."
    return [*lines, f"{measured} In measuring, {seen_at(recipe.data.size)}."]


def of_file(title: str, recipe: TeachRecipe, summary: dict) -> str:
    """The card beside the file of a trained network: what it is, how it was made, what it scores, who may use it."""
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
        f" input {name_of(model.channels)}, (x / 255 - mean) / std with mean {list(model.mean)} and std {list(model.std)}.\n\n"
        f"Made by `segkd teach {summary['recipe']}` in {summary['steps']} steps, {summary['seconds'] / 60:.0f} minutes on"
        f" {summary['machine']} ({summary['precision']}); the weights of step {summary['best_step']}"
        f"{', the best on ' + data.watch if data.watch else ''}.\n\nLicence: {licence}.\n\n{measured}"
    )


def _length(recipe: Recipe, summary: dict[str, Any]) -> str:
    return f"recipe {one_line(summary['recipe'])}, {summary['steps']} steps of batch {recipe.run.batch}, seed {recipe.run.seed}"


def _network(arch: str, encoder: str | None) -> str:
    unnamed = {"module": "a network from a file of its own", "exported": "an exported program"}
    return unnamed.get(arch.lower()) or one_line(f"{arch} with encoder {encoder}" if encoder else arch)


def _headline(recipe: DistillRecipe) -> str:
    averaged = recipe.run.headline != "last" and recipe.student.ema > 0
    if recipe.run.headline == "agreement":
        return "those that agreed best with the teacher on synthetic images when they were looked at"
    return f"averaged over the steps (ema {recipe.student.ema:g})" if averaged else "those of the last step"


def _set(data: Data, images: int | None, split: str | None = None) -> str:
    """A split in words, with its number of images where that is known."""
    name = expand_root(str(data.root)).resolve().name if data.name == "folder" else data.name
    return one_line(f"{name} {split or data.final}{f' ({images} images)' if images else ''}")
