"""The table of a comparison, as Markdown, CSV and a page, and its curves of mIoU against time."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from segkd import __version__
from segkd.foundation.files import atomic_write, make_folder
from segkd.recipe.comparison import LABELS, ORIGINALS
from segkd.reporting import charts
from segkd.reporting.templates import rendered
from segkd.runs.compare import Result
from segkd.training.log import SCORES

COLUMNS = (
    ("steps", "steps", "{:,.0f}"), ("mIoU", "student_miou", "{:.3f}"), ("last", "student_miou_last", "{:.3f}"), ("recovery", "recovery", "{:.3f}"),
    ("of kd", "of_kd", "{:.3f}"), ("agreement", "agreement", "{:.3f}"), ("minutes", "minutes", "{:.1f}"),
    ("MB", "peak_memory_mb", "{:,.0f}"),
)  # fmt: skip
"""Heading, key and form of each figure. `of kd`: mIoU as a share of what kd on the original images reaches."""


@dataclass(frozen=True)
class Row:
    """What the runs of one method on one recipe have reached, over seeds.

    Attributes:
        real: real images that trained the student; None where no run is done.
        figures: for each key of COLUMNS the values that are known, one a run.
        missing: why runs are not there, a line each.
    """

    recipe: str
    name: str
    runs: int
    real: int | None
    figures: dict[str, list[float]]
    missing: tuple[str, ...]

    def mean(self, key: str) -> float | None:
        """Over the runs; None: none has it."""
        return fmean(self.figures[key]) if self.figures[key] else None


def rows(results: Sequence[Result]) -> list[Row]:
    """A row for each method on each recipe, the best first."""
    groups: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        groups.setdefault((result.cell.recipe, result.cell.row), []).append(result)
    ceiling = {}
    for (recipe, name), group in groups.items():
        known = [
            run.summary["student_miou"] for run in group if run.summary and run.summary["student_miou"] is not None
        ]
        if name == ORIGINALS and known:
            ceiling[recipe] = fmean(known)
    found = [_row(recipe, name, group, ceiling.get(recipe)) for (recipe, name), group in groups.items()]
    recipes = list(dict.fromkeys(recipe for recipe, _ in groups))
    return sorted(
        found,
        key=lambda row: (recipes.index(row.recipe), *(-(row.mean(key) or 0) for key in ("student_miou", "agreement"))),
    )


def _row(recipe: str, name: str, group: Sequence[Result], ceiling: float | None) -> Row:
    done = [result.summary for result in group if result.summary]
    runs = [
        run
        | {
            "minutes": run["seconds"] / 60,
            "of_kd": run["student_miou"] / ceiling if ceiling and run["student_miou"] is not None else None,
        }
        for run in done
    ]
    figures = {key: [run[key] for run in runs if run.get(key) is not None] for _, key, _ in COLUMNS}
    missing = tuple(
        f"{recipe}: {name}, seed {result.cell.seed}: {result.why}" for result in group if not result.summary
    )
    real = max((run["real_images_for_training"] for run in done), default=None)
    return Row(recipe, name, len(done), real, figures, missing)


def rank_correlation(results: Sequence[Result], key: str = "agreement") -> tuple[float, int] | None:
    """Spearman's, of an agreement with mIoU over all distilled students, and how many these are; None where it says nothing."""
    from scipy.stats import spearmanr

    runs = [result.summary for result in results if result.summary and result.cell.row != LABELS]
    pairs = [(run.get(key), run["student_miou"]) for run in runs if None not in (run.get(key), run["student_miou"])]
    if len(pairs) < 3 or min(len(set(values)) for values in zip(*pairs, strict=True)) < 2:
        return None
    return float(spearmanr(*zip(*pairs, strict=True)).statistic), len(pairs)


def heads(shown: Iterable[Row]) -> list[str]:
    """The headings; the recipe's only where there are several."""
    several = len({row.recipe for row in shown}) > 1
    return [
        *(("recipe",) if several else ()),
        "method",
        "real training images",
        *(head for head, _, _ in COLUMNS),
    ]


def cells(row: Row, head: Sequence[str]) -> list[str]:
    """A row as text."""
    real = "–" if row.real is None else f"{row.real:,}" if row.real else "none"
    figures = [_spread(row.figures[key], form.format, whole=key == "steps") for _, key, form in COLUMNS]
    return [*((row.recipe,) if head[0] == "recipe" else ()), row.name, real, *figures]


def _spread(values: Sequence[float], form: Callable[[float], str], whole: bool = False) -> str:
    """Mean ± standard deviation; of `whole` numbers that are all the same, the number."""
    if len(values) < 2 or (whole and len(set(values)) < 2):
        return form(values[0]) if values else "–"
    return f"{form(fmean(values))} ± {form(stdev(values))} ({len(values)})"


def notes(results: Sequence[Result]) -> list[str]:
    """What is to be known beside the table, in sentences."""
    shown = rows(results)
    machines = {f"{run.summary['machine']}, {run.summary['precision']}" for run in results if run.summary}
    found = ["Mean ± standard deviation (seeds); mIoU is that of the headline weights, last those of the last step."]
    found += [f"Measured on {'; '.join(sorted(machines))}."] if machines else []
    for key, images in (("agreement", "synthetic images"), ("agreement_shown", "images as the student is shown them")):
        if correlation := rank_correlation(results, key):
            value, count = correlation
            found.append(
                f"Rank correlation (Spearman) with mIoU over {count} students, of the agreement on {images}: {value:.2f}."
            )
    return found + [line for row in shown for line in row.missing]


def markdown(results: Sequence[Result]) -> str:
    """The table and its notes."""
    shown = rows(results)
    head = heads(shown)
    lines = [
        head,
        ["---" if name in ("recipe", "method", "real training images") else "---:" for name in head],
        *(cells(row, head) for row in shown),
    ]
    return (
        "".join(f"| {' | '.join(line)} |\n" for line in lines) + "\n" + "".join(f"{note}\n" for note in notes(results))
    )


def comma_separated(results: Sequence[Result]) -> str:
    """The table with a column for each mean and each standard deviation, for other programs."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    keys = [key for _, key, _ in COLUMNS]
    writer.writerow(
        [
            "recipe",
            "method",
            "runs",
            "real_images_for_training",
            *(f"{key}_{what}" for key in keys for what in ("mean", "sd")),
        ]
    )
    for row in rows(results):
        figures = [
            value
            for key in keys
            for value in (row.mean(key), stdev(row.figures[key]) if len(row.figures[key]) > 1 else None)
        ]
        writer.writerow([row.recipe, row.name, row.runs, row.real, *figures])
    return text.getvalue()


def curves(results: Sequence[Result]) -> str | None:
    """mIoU on the watched split against minutes, as SVG; of recipes that watch none, agreement. None: no run was looked at.

    One line a method, all its seeds in its colour and dashes; the axis of time is logarithmic where times differ tenfold.
    """
    recipes = list(dict.fromkeys(result.cell.recipe for result in results if result.looks))
    if not recipes:
        return None

    def draw(axes: Any, recipe: str) -> None:
        _draw(axes, recipe, [result for result in results if result.cell.recipe == recipe and result.looks])

    return charts.drawn(recipes, (8, 4.5), draw)


def _draw(axes: Any, recipe: str, results: Sequence[Result]) -> None:
    measured = any(_score(look) is not None for result in results for look in result.looks)
    names = [row.name for row in rows(results)]
    latest = []
    for at, name in enumerate(names):
        for result in (result for result in results if result.cell.row == name):
            points = [
                (look["seconds"] / 60, _score(look) if measured else look.get("agreement")) for look in result.looks
            ]
            points = [point for point in points if point[1] is not None]
            if points:
                first = result is next(each for each in results if each.cell.row == name)
                axes.plot(*zip(*points, strict=True), **charts.look_of(at), marker=".", label=name if first else None)
                latest.append(points[-1][0])
    if latest and max(latest) > 10 * min(latest):
        axes.set_xscale("log")
    axes.set(title=recipe, xlabel="minutes", ylabel="mIoU, watched split" if measured else "agreement with the teacher")


def _score(look: dict[str, Any]) -> float | None:
    return next((look[key] for key in SCORES if key in look), None)


def _data_free(row: Row) -> bool:
    return row.real == 0 and row.name != LABELS


def page(results: Sequence[Result], drawn: str | None) -> str:
    """Everything in one HTML file that needs no network."""
    shown = rows(results)
    head = heads(shown)
    best = {recipe: max((row.mean("student_miou") or 0 for row in shown if row.recipe == recipe and _data_free(row)), default=0)
            for recipe in {row.recipe for row in shown}}  # fmt: skip
    table = [(cells(row, head), _data_free(row) and row.mean("student_miou") == best[row.recipe] > 0) for row in shown]
    svg = None if drawn is None else charts.inline(drawn)
    return rendered(
        "leaderboard.html",
        head=head, table=table, notes=notes(results), curves=svg, version=__version__,
        recipes=sorted({result.cell.recipe for result in results}),
    )  # fmt: skip


def write(results: Sequence[Result], out: Path) -> list[Path]:
    """leaderboard.md, .csv and .html, and curves.svg where a run was looked at; returns their paths."""
    make_folder(out)
    drawn = curves(results)
    texts = {
        "leaderboard.md": markdown(results),
        "leaderboard.csv": comma_separated(results),
        "leaderboard.html": page(results, drawn),
    }
    texts |= {} if drawn is None else {"curves.svg": drawn}
    for name, text in texts.items():
        atomic_write(out / name, text)
    return [out / name for name in texts]
