"""A run as a page: what it has reached first, then how it went and how it was made. Made from the files of its folder alone."""

from __future__ import annotations

import base64
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segkd import __version__
from segkd.foundation.errors import StorageError, one_line
from segkd.foundation.files import atomic_write, sha256, sweep
from segkd.foundation.terminal import spoken, without_empty_columns
from segkd.recipe.strict_yaml import parse, plain
from segkd.reporting import charts
from segkd.reporting.listing import as_object, logged
from segkd.reporting.templates import rendered
from segkd.runs import compress
from segkd.runs.export import REPORT
from segkd.runs.folder import PAGE

MOST_SAMPLES, MOST_BYTES = 5, 8_000_000
"""Pictures in a page, and bytes of all of them."""
BESIDE = (compress.INSPECTED, compress.AGREED, f"{compress.EXPORTED}/{REPORT}")
"""What a compression's folder holds that its page tells of, beside its run."""
POOR = 0.2
"""IoU below which a class is said not to be told apart."""
SAMPLE_WORDS = "synthetic image, the teacher's mask, the student's mask, and where they differ"
NOT_LOSSES = ("step", "seconds", "lr", "agreement", "largest_class", "diversity", "distance")


def keep(folder: Path, of: Path | None = None) -> str | None:
    """Have the page of a finished run in its folder, written unless it is there and up to date; a warning where it cannot be.

    That of a compression (`of`) lies in its own folder. The run has done what it was asked for, and nothing that happens here
    may undo that.
    """
    path = (of or folder) / PAGE
    try:
        if not up_to_date(folder, of):
            sweep(path.parent, f"{PAGE}-")  # what a killed one left
            atomic_write(path, page(folder, of))
    except Exception as error:  # a full disk as well as a fault of ours: `segkd report` tells the one from the other
        makes = "the same command" if of else f"segkd report {shlex.quote(str(folder))}"
        return f"warning: {path}: not written ({one_line(error, 300)}); {makes} makes it"
    return None


def up_to_date(folder: Path, of: Path | None = None) -> bool:
    """Whether a run's page is whole, and of what lies there now."""
    path = (of or folder) / PAGE
    if path.is_symlink() or not path.is_file():
        return False
    return path.read_bytes()[-200:].decode(errors="replace").rstrip().endswith(_stamp(folder, of))


def _stamp(folder: Path, of: Path | None) -> str:
    """The end of a page: of which results it is."""
    beside = [] if of is None else [of / name for name in BESIDE]
    found = [path.read_bytes() for path in (folder / "summary.json", *beside) if path.is_file()]
    return f"<!-- of results with sha256 {sha256(b''.join(found))} -->"


def page(folder: Path, of: Path | None = None) -> str:
    """The page of a finished run, self-contained; with what the compression in the folder `of` has found beside it.

    Raises:
        StorageError: no finished run is there, or its files are damaged.
    """
    summary, (about, recipe), lines = _summary(folder), _recipe(folder), logged(folder)
    taught = summary["method"] == "labels"
    theirs, ours = summary.get("teacher_per_class"), summary.get("per_class")
    inspected, agreed, exported = ({} if of is None else as_object(of / name) or {} for name in BESIDE)
    text = rendered(
        "report.html", name=summary["recipe"], lead=_lead(summary), cards=[*_cards(summary), *_agreed(agreed)],
        warnings=_warnings(summary, lines), classes=_classes(ours, theirs), has_teacher=bool(theirs),
        measured_on=_measured_on(summary, recipe), curves=_curves(lines),
        samples=_samples(folder / "samples"), sample_words="image, its labels, and the network's mask" if taught else SAMPLE_WORDS,
        inspected=[(each["level"], each["what"], each["said"]) for each in inspected.get("findings", ())], exported=_exported(exported),
        exported_on=f"{exported.get('machine')}, {exported.get('threads')} threads",
        sizes=_sizes(summary), limits=_limits(summary), about=list(about.items()), recipe=recipe, version=__version__, folder=of or folder,
    )  # fmt: skip
    return f"{text.rstrip()}\n{_stamp(folder, of)}\n"


def _agreed(found: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    if "agreement" not in found:
        return []
    return [("agreement", _number(found["agreement"]), f"with the teacher, on {found['images']:,} photos")]


def _exported(found: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """A head, and a row for each file and for the networks that it was tried beside; without columns in which nothing stands."""

    def row(name: str, each: Mapping[str, Any]) -> tuple[str, ...]:
        size = f"{each['bytes'] / 1e6:.1f}" if "bytes" in each else ""
        shares = (f"{each[key]:.4f}" if key in each else "" for key in ("agreement", "miou"))
        return name, size, f"{each['milliseconds']:.1f}", *shares, "" if each.get("passed", True) else "failed"

    rows = [row(f"{who}, PyTorch", found[who]) for who in ("teacher", "student") if who in found]
    rows += [row(name, each) for name, each in found.get("files", {}).items()]
    return without_empty_columns([("", "MB", "ms an image", "agreement", "mIoU", ""), *rows]) if rows else []


def _summary(folder: Path) -> dict[str, Any]:
    path = folder / "summary.json"
    try:
        found = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise StorageError(f"{folder}: no summary.json: a report is of a finished run") from error
    except (OSError, ValueError) as error:
        raise StorageError(f"{path}: damaged; the run's own command makes it again") from error
    if not isinstance(found, dict) or not {"recipe", "method", "steps", "seconds"} <= found.keys():
        raise StorageError(f"{path}: no summary of a finished run; the run's own command goes on with it")
    return found


def _recipe(folder: Path) -> tuple[dict[str, str], str]:
    """What the recipe's file says of the run, and the recipe."""
    try:
        text = (folder / "recipe.yaml").read_text("utf-8")
    except (OSError, ValueError):
        return {}, ""
    head = [line[2:].partition(": ") for line in text.splitlines() if line.startswith("# ")]
    return {name: value for name, _, value in head if not name.startswith("sha256 of")}, re.sub(
        r"\A(#.*\n)+\n?", "", text
    )


def _lead(summary: Mapping[str, Any]) -> str:
    variant = f" ({summary['variant']})" if summary.get("variant") else ""
    real = summary.get("real_images_for_training") or 0
    what = "trained with labels" if summary["method"] == "labels" else f"distilled by {summary['method']}{variant}"
    images = "No real image trained it." if not real else f"{real:,} real images trained it."
    recorded = summary.get("statistics_recorded_from")
    images += f" Statistics were recorded from {recorded:,} images." if recorded else ""
    return f"A network {what}, {summary['steps']:,} steps in {spoken(summary['seconds'])} on {summary.get('machine', 'an unknown machine')}. {images}"


def _number(value: object, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _cards(summary: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    cards = []
    if summary.get("student_miou") is not None:
        cards.append(("mIoU", _number(summary["student_miou"]), "of the student"))
        if summary.get("teacher_miou") is not None:
            cards.append(("teacher", _number(summary["teacher_miou"]), "its mIoU"))
            cards.append(
                (
                    "recovery",
                    f"{100 * summary['recovery']:.1f} %" if summary.get("recovery") else "–",
                    "of the teacher's mIoU",
                )
            )
    else:
        cards.append(("mIoU", "–", "was not measured: no labels were given"))
    for key, words in (
        ("agreement", "with the teacher, on synthetic images"),
        ("agreement_shown", "on images as the student was shown them"),
    ):
        if summary.get(key) is not None:
            cards.append((key.replace("_shown", ""), _number(summary[key]), words))
    return cards


def _warnings(summary: Mapping[str, Any], lines: Sequence[Mapping[str, Any]]) -> list[str]:
    notes = [
        (f"step {line['step']}: ", str(line[key]))
        for line in lines for key in ("note", "wrong", "rolled_back") if key in line
    ]  # fmt: skip
    found = [step + note.removeprefix(step) for step, note in notes]  # some say it themselves
    refused = summary.get("refused_moves") or 0
    return [*([f"{refused} updates were refused, since numbers were none"] if refused else []), *dict.fromkeys(found)][
        :20
    ]


def _classes(
    ours: Mapping[str, float | None] | None, theirs: Mapping[str, float | None] | None
) -> list[dict[str, Any]]:
    rows = []
    for name, value in (ours or {}).items():
        other = (theirs or {}).get(name)
        rows.append({
            "name": name, "student": _number(value), "teacher": _number(other),
            "student_share": round(100 * (value or 0), 1), "teacher_share": round(100 * (other or 0), 1),
        })  # fmt: skip
    return rows


def _measured_on(summary: Mapping[str, Any], recipe: str) -> str:
    try:
        data = plain(parse(recipe, str)[0])["data"]
        return f"{data['name']} {data['final']}"
    except (KeyError, TypeError, ValueError):
        return "the final split"


def _curves(lines: Sequence[Mapping[str, Any]]) -> str | None:
    """Losses, and what evaluations have found, against steps, as SVG; None: nothing was logged."""
    series: dict[str, list[tuple[int, float]]] = {}
    for line in lines:
        for name, value in line.items():
            if isinstance(value, float) and name not in ("seconds", "lr"):
                series.setdefault(name, []).append((line["step"], value))
    series = {name: points for name, points in series.items() if len(points) > 1}  # one point is no curve
    looked = [name for name in series if name.startswith(("agreement", "val_miou", "classes_shown"))]
    losses = [name for name in series if name not in (*looked, *NOT_LOSSES) and not name.endswith("_shown")]
    panels = [(title, names) for title, names in (("losses", losses), ("evaluations", looked)) if names]
    if not panels:
        return None

    def draw(axes: Any, panel: tuple[str, list[str]]) -> None:
        title, names = panel
        for at, name in enumerate(names):
            marker = "." if title != "losses" else None
            axes.plot(*zip(*series[name], strict=True), **charts.look_of(at), marker=marker, label=name)
        axes.set(title=title, xlabel="steps")

    return charts.inline(charts.drawn(panels, (9, 3.6), draw))


def _samples(folder: Path) -> list[tuple[int, str]]:
    """Steps, and their pictures in base64, evenly over the run."""
    paths = sorted(path for path in folder.glob("*.png") if path.stem.isdigit()) if folder.is_dir() else []
    if len(paths) > MOST_SAMPLES:
        paths = [paths[round(at * (len(paths) - 1) / (MOST_SAMPLES - 1))] for at in range(MOST_SAMPLES)]
    found, left = [], MOST_BYTES
    for path in paths:
        left -= path.stat().st_size
        if left >= 0:
            found.append((int(path.stem), base64.b64encode(path.read_bytes()).decode()))
    return found


def _sizes(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    found = []
    for who in ("student", "teacher"):
        if summary.get(f"{who}_parameters"):
            flops = summary.get(f"{who}_flops")
            found.append((f"{who}: parameters", f"{summary[f'{who}_parameters'] / 1e6:.2f} M"))
            found.append(
                (f"{who}: operations an image", "not counted" if flops is None else f"{flops / 1e9:.2f} GFLOPs")
            )
    found.append(("memory at most", f"{summary.get('peak_memory_mb', 0):,} MB"))
    return found


def _limits(summary: Mapping[str, Any]) -> list[str]:
    """What speaks against taking it as it is."""
    found = []
    if summary.get("student_miou") is None:
        found.append(
            "Decisions of any kind, before it has been measured with labels: agreement with a teacher is no accuracy."
        )
    poor = [name for name, value in (summary.get("per_class") or {}).items() if value is not None and value < POOR]
    if poor:
        found.append(f"Telling {', '.join(poor)} from the rest: their IoU is below {POOR:g}.")
    found.append(
        "Images of other scenes, cameras or seasons than its teacher's training images: nothing here was measured on such."
    )
    found.append("Keeping what its teacher has learnt private: a student can leak what a teacher memorised.")
    found.append(
        "Uses that the licence of the teacher, or of the data that it was trained on, forbids: its weights follow them."
    )
    return found
