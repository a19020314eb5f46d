"""Write every figure of README.md and docs/ from kept logs, or check that none was typed by hand.

    python tools/table.py [--check] [PAGE.md ...]

Logs lie in `recipes/logs` beside the page or above it; names of files and patterns below are relative to that folder.

A table, from copies of runs' `summary.json`; runs that differ only in the seed share a row, mean ± sd (seeds):

    <!-- table: NAME glob=camvid_*.summary.json bar=0.85 -->       rows of runs; a recovery below the bar is marked
    <!-- table: NAME glob=camvid_*.json bar=ddad.segkd:0.85 -->    the same, the bar for that method and variant alone
    <!-- per-class: NAME glob=camvid_*.json,teacher.json -->       IoU of each class, a column for each row of runs
    <!-- cells: NAME -->                                           rows and columns as `docs/figures.yaml` names them
    <!-- leaderboard: NAME glob=board_*.json -->                   the table of `segkd compare`, the best first
    <!-- end table -->                                             ends each; what stands between is rewritten

Runs of a leaderboard have the name of their row in the key `row` of their copy.

A figure in the text has its name behind it, and `docs/figures.yaml` says where it is from. Write `?` for a new one:

    It reached 0.91<!--fig:camvid_recovery--> of its teacher.
    The paper reports 0.535<!--quoted arXiv:1912.11006, table 4-->.    a published figure: left as it is

`docs/figures.yaml` holds `NAME: FILE:json.path[:format]`, or the ratio of two means, `FILE:json.path / FILE:json.path[:format]`.
FILE may be a pattern (mean ± sd) or a .jsonl, whose path starts with a line number (-1: the last); format is Python's, or "min" for
seconds shown in whole minutes (their mean). A table of cells is `NAME: {head, columns, rows, cell}`: `cell` is such a figure, in
which {row} and {column} stand for their values; a column's value may name {row}, too.
"""

import difflib
import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from string import ascii_lowercase
from typing import Any

import click
from ruamel.yaml import YAML

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from segkd.recipe.sources import RENAMED

BLOCK = re.compile(
    r"(<!-- (table|per-class|cells|leaderboard): (\S+)((?: \S+=\S+)*) -->\n)(.*?)(<!-- end table -->)", re.DOTALL
)
NUMBER = r"[-\d.,]*\d%?"
FIGURE = re.compile(rf"(\?|–|{NUMBER}(?:\s±\s{NUMBER}\s\(\d+\))?)(<!--(?:fig:([\w.]+)|quoted [^>]+)-->)")
STRAY = re.compile(r"<!--(?:fig|quoted).*?-->")
CODE = re.compile(r"^```.*?^```|`[^`\n]+`", re.DOTALL | re.MULTILINE)
MEASURED = re.compile(r"(?<![\w.])(0\.\d{3,}|\d+\.\d+ ?%)(?!\w|\.\d)")
NEEDED = (
    "recipe method variant seed steps seconds machine teacher_miou student_miou student_miou_ema student_miou_last "
    "recovery real_images_for_training peak_memory_mb per_class"
)
Group = list[dict[str, Any]]


def render(text: str, logs: Path, figures: dict[str, Any]) -> str:
    """The text with all its tables and figures made anew from the logs."""

    def block(found: re.Match[str]) -> str:
        opening, kind, name, given, _, closing = found.groups()
        if kind == "cells":
            return opening + cells_table(defined(name, dict, figures), logs) + closing
        options = dict(option.split("=", 1) for option in given.split())
        if "glob" not in options or options.keys() - {"glob", "bar"}:
            raise click.ClickException(f"table {name}: takes glob=PATTERN and bar=NUMBER, has '{given.strip()}'")
        runs = [run_of(path) for pattern in options["glob"].split(",") for path in matching(logs, pattern)]
        if kind == "leaderboard":
            return opening + leaderboard_table(runs) + closing
        groups = grouped(runs)
        who, _, height = options.get("bar", "").rpartition(":")
        bar = (who, float(height)) if height else None
        return opening + (runs_table(groups, bar) if kind == "table" else class_table(groups)) + closing

    def figure(found: re.Match[str]) -> str:
        shown, marker, name = found.groups()
        return (figure_of(defined(name, str, figures), logs) if name else shown) + marker

    return FIGURE.sub(figure, BLOCK.sub(block, text))


def defined(name: str, kind: type, figures: dict[str, Any]) -> Any:
    """What docs/figures.yaml says of a name: where a figure is from, or a table of cells."""
    if not isinstance(figures.get(name), kind):
        raise click.ClickException(f"docs/figures.yaml: no {'figure' if kind is str else 'table'} '{name}'")
    return figures[name]


def faults_of(text: str) -> list[str]:
    """Lines that hold a measured-looking figure (0.123, 12.3 %) outside tables, figures and code, or a marker of none."""

    for pattern in (BLOCK, CODE, FIGURE):
        text = pattern.sub(lambda found: "\n" * found.group().count("\n"), text)
    faults = []
    for number, line in enumerate(text.splitlines(), start=1):
        faults += [f"line {number}: no figure before {marker}" for marker in STRAY.findall(line)]
        faults += [f"line {number}: typed by hand: {figure}" for figure in MEASURED.findall(line)]
    return faults


def matching(logs: Path, pattern: str) -> list[Path]:
    """The log files of a pattern, at least one."""
    paths = sorted(logs.glob(pattern))
    if not paths:
        raise click.ClickException(f"{logs}: no log matches '{pattern}'")
    return paths


def run_of(path: Path) -> dict[str, Any]:
    """A run's summary, with all the keys that a table needs; a recipe has the name that it has now."""
    run = json.loads(path.read_text("utf-8"))
    if lacking := [key for key in NEEDED.split() if key not in run]:
        raise click.ClickException(f"{path}: lacks {', '.join(lacking)}")
    return run | {"recipe": RENAMED.get(run["recipe"], run["recipe"])}


def grouped(runs: Group) -> list[Group]:
    """Runs that differ only in the seed, together; in order of recipe, method, variant, row label and machine."""
    groups: dict[tuple[str, ...], Group] = {}
    for run in runs:
        key = tuple(str(run.get(name) or "") for name in ("recipe", "method", "variant", "row"))
        key = (*key, place(run))
        groups.setdefault(key, []).append(run)
    for key, group in groups.items():
        if len({run["seed"] for run in group}) < len(group):
            raise click.ClickException(f"{' '.join(key)}: two logs have the same seed")
    return [groups[key] for key in sorted(groups)]


def label(group: Group, known: str = "") -> str:
    """What a row of runs is called: its `row`, or else recipe (if it is not a known one), method and variant."""
    run = group[0]
    recipe = "" if run["recipe"] == known else f"{run['recipe']}: "
    variant = f" ({run['variant']})" if run["variant"] else ""
    return run.get("row") or f"{recipe}{run['method']}{variant}"


def spread(values: Iterable[float | None], form: Callable[[float], str]) -> str:
    """Mean ± sample sd (n) of what was measured; one value stands alone."""
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return form(known[0]) if known else "–"
    return f"{form(mean(known))} ± {form(stdev(known))} ({len(known)})"


ratio = partial(spread, form="{:.3f}".format)


def distinct(group: Group, form: Callable[[dict[str, Any]], str]) -> str:
    """What the runs of a row have in common, or all that they have."""
    return " / ".join(dict.fromkeys(form(run) for run in group))


def recovery(group: Group, bar: tuple[str, float] | None) -> str:
    """Student's share of the teacher's mIoU, marked when it misses the bar."""
    values = [run["recovery"] for run in group]
    known = [value for value in values if value is not None]
    name = ".".join(filter(None, (group[0]["method"], group[0]["variant"])))
    if bar is None or not known or bar[0] not in ("", name) or mean(known) >= bar[1]:
        return ratio(values)
    return f"**{ratio(values)}, missed (bar {bar[1]:g})**"


def runs_table(groups: list[Group], bar: tuple[str, float] | None) -> str:
    """A row for each group of runs, and the machines below: by letters, where not all rows are from the same."""
    machines = dict.fromkeys(place(run) for group in groups for run in group)
    letters = dict(zip(machines, ascii_lowercase, strict=False)) if len(machines) > 1 else {}
    heads = ["run", "real training images", "steps", "teacher", "mIoU (EMA)", "last", "recovery", "minutes", "MB"]
    lines = [heads, ["---"] * 2 + ["---:"] * (len(heads) - 2)]
    for group in groups:
        ema, last = (ratio(run[f"student_miou_{which}"] for run in group) for which in ("ema", "last"))
        minutes = spread([run["seconds"] / 60 for run in group], "{:.1f}".format)
        if letters:
            minutes += f" {letters[place(group[0])]}"
        memory = spread([run["peak_memory_mb"] for run in group], "{:,.0f}".format)
        teacher = distinct(group, lambda run: ratio([run["teacher_miou"]]))
        real = distinct(group, lambda run: str(run["real_images_for_training"] or "none"))
        steps = distinct(group, lambda run: f"{run['steps']:,}")
        lines.append([label(group), real, steps, teacher, ema, last, recovery(group, bar), minutes, memory])
    where = ";\n".join(f"{letters[machine]}: {machine}" if letters else machine for machine in machines)
    return markdown(lines) + f"\nMean ± standard deviation (seeds); measured on {where}.\n"


def place(run: dict[str, Any]) -> str:
    """Where and how a run was computed, in words."""
    return ", ".join(filter(None, (run["machine"], run.get("precision"))))


def class_table(groups: list[Group]) -> str:
    """A row for each class, a column for each group of runs; the recipe that most of them have is not repeated."""
    ((most, _),) = Counter(group[0]["recipe"] for group in groups).most_common(1)
    known = most if len(groups) > 1 else ""
    lines = [["class", *(label(group, known) for group in groups)], ["---"] + ["---:"] * len(groups)]
    for name in dict.fromkeys(name for group in groups for run in group for name in run["per_class"]):
        columns = [[run["per_class"].get(name) for run in group] for group in groups]
        lines.append([name, *(ratio(column) for column in columns)])
    overall = (ratio(run["student_miou"] for run in group) for group in groups)
    return markdown([*lines, ["**mIoU**", *overall]])


def leaderboard_table(runs: Group) -> str:
    """What `segkd compare` shows of such runs, with its notes below."""
    from segkd.recipe.comparison import Cell
    from segkd.reporting import leaderboard
    from segkd.runs.compare import Result

    if lacking := [run["recipe"] for run in runs if not run.get("row")]:
        raise click.ClickException(f"a run of a leaderboard ({lacking[0]}) has no row")
    return leaderboard.markdown([Result(Cell(run["recipe"], run["row"], None, "", (), None), run) for run in runs])


def cells_table(table: dict[str, Any], logs: Path) -> str:
    """A figure for each row and column."""
    lines = [[table["head"], *table["columns"]], ["---"] + ["---:"] * len(table["columns"])]
    for name, row in table["rows"].items():
        columns = (str(column).format(row=row) for column in table["columns"].values())
        keys = [table["cell"].format(row=row, column=column) for column in columns]
        lines.append([name, *(figure_of(key, logs) for key in keys)])
    return markdown(lines)


def markdown(lines: list[list[str]]) -> str:
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def figure_of(key: str, logs: Path) -> str:
    """One figure, FILE:json.path[:format], or of two the ratio of their means, `FILE:json.path / FILE:json.path[:format]`."""
    if " / " in key:
        above, below = key.split(" / ")
        pairs = ((*part.split(":"), ".3f")[:3] for part in (above, below))
        (top, _), (bottom, form) = (
            (mean(value_at(file, path) for file in matching(logs, pattern)), form) for pattern, path, form in pairs
        )
        return format(top / bottom, form)
    pattern, path, form = (key.split(":") + [".3f"])[:3]
    values = [value_at(file, path) for file in matching(logs, pattern)]
    if form == "min":
        return f"{mean(values) / 60:.0f}"
    return spread(values, lambda value: format(value, form))


def value_at(file: Path, path: str) -> Any:
    """What stands at a dotted path of a JSON or JSON-lines file."""
    text = file.read_text("utf-8")
    value = [json.loads(line) for line in text.splitlines()] if file.suffix == ".jsonl" else json.loads(text)
    try:
        for part in path.split("."):
            value = value[int(part)] if isinstance(value, list) else value[part]
    except (KeyError, IndexError, ValueError, TypeError) as error:
        raise click.ClickException(f"{file}: nothing at '{path}' (at '{part}')") from error
    return value


@click.command(help=__doc__.split("\n")[0])
@click.option("--check", is_flag=True, help="Write nothing; exit 1 when a figure is not what the logs say.")
@click.argument("pages", type=click.Path(exists=True, dir_okay=False, path_type=Path), nargs=-1)
def main(check: bool, pages: tuple[Path, ...]) -> None:
    root = Path(__file__).parents[1]
    faults: list[str] = []
    for page in pages or (root / "README.md", *sorted(root.glob("docs/*.md"))):
        places = [folder / "recipes/logs" for folder in page.resolve().parents]
        logs = next((place for place in places if place.is_dir()), places[0])
        named = logs.parents[1] / "docs/figures.yaml"
        figures = YAML(typ="safe").load(named) if named.is_file() else {}
        text = page.read_text("utf-8")
        made = render(text, logs, figures)
        if not check:
            page.write_text(made, "utf-8")
            continue
        changed = difflib.unified_diff(
            text.splitlines(), made.splitlines(), page.name, "from the logs", n=0, lineterm=""
        )
        faults += [*changed, *(f"{page.name}: {line}" for line in faults_of(text))]
    if faults:
        raise click.ClickException("\n".join(["figures that are not from the logs:", *faults]))


if __name__ == "__main__":
    main()
