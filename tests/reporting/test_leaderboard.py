"""Tables, pages and curves of a comparison."""

import csv
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest

from segkd.recipe.comparison import LABELS, ORIGINALS
from segkd.reporting import leaderboard
from segkd.runs.compare import Result


def result(row, seed=0, miou=None, recipe="toy", looks=(), why="", **more):
    """A run of a row; without mIoU it is not done."""
    summary = {
        "student_miou": miou, "student_miou_last": miou, "recovery": None, "agreement": more.get("agreement"), "seconds": 90.0,
        "peak_memory_mb": 1000, "steps": more.get("steps", 80), "real_images_for_training": more.get("real", 0), "machine": "a machine",
        "precision": "fp32",
    }  # fmt: skip
    cell = SimpleNamespace(recipe=recipe, row=row, seed=seed)
    return Result(cell, None if why else summary, why, looks=list(looks))


RESULTS = [
    result("noise", miou=0.1, agreement=0.3),
    result("<b>|dfad", 0, 0.2, agreement=0.5), result("<b>|dfad", 1, 0.4, agreement=0.7),
    result(ORIGINALS, miou=0.6, real=367, agreement=0.6), result(LABELS, miou=0.7, real=367),
    result("ddad", why="failed: exit code 3"),
]  # fmt: skip


def test_rows_are_ranked_and_measured_against_kd_on_the_originals():
    shown = leaderboard.rows(RESULTS)
    assert [row.name for row in shown] == [LABELS, ORIGINALS, "<b>|dfad", "noise", "ddad"]
    dfad = shown[2]
    assert (
        dfad.mean("student_miou") == pytest.approx(0.3) and dfad.mean("of_kd") == pytest.approx(0.5) and dfad.runs == 2
    )
    assert shown[-1].missing == ("toy: ddad, seed 0: failed: exit code 3",) and shown[-1].mean("student_miou") is None


def test_the_markdown_has_mean_and_deviation_and_says_what_is_missing():
    text = leaderboard.markdown(RESULTS)
    assert "0.300 ± 0.141 (2)" in text and "| 367 | 80 | 0.600 |" in text and "failed: exit code 3" in text
    table = [line for line in text.splitlines() if line.startswith("| ")]
    assert len({line.replace("<b>|", "").count("|") for line in table}) == 1


def test_the_steps_of_a_row_are_one_number_where_its_runs_have_as_many():
    assert "| noise | none | 80 | 0.150 ±" in leaderboard.markdown(
        [result("noise", seed, 0.1 + seed / 10) for seed in (0, 1)]
    )
    apart = leaderboard.markdown([result("noise", seed, 0.1, steps=80 + 2 * seed) for seed in (0, 1)])
    assert "| noise | none | 81 ± 1 (2) | 0.100 ±" in apart


def test_the_csv_is_read_back():
    rows = list(csv.DictReader(leaderboard.comma_separated(RESULTS).splitlines()))
    assert rows[2]["method"] == "<b>|dfad" and float(rows[2]["student_miou_sd"]) == pytest.approx(0.1414, abs=1e-3)
    assert rows[-1]["student_miou_mean"] == "" and rows[-1]["runs"] == "0"


@pytest.mark.parametrize(
    ("agreements", "expected"), [((1, 2, 3), 1.0), ((3, 2, 1), -1.0), ((1, 1, 1), None), ((1, 2), None)]
)
def test_the_rank_correlation_of_agreement(agreements, expected):
    runs = [result(f"m{at}", miou=at / 10, agreement=value) for at, value in enumerate(agreements)]
    found = leaderboard.rank_correlation([*runs, result(LABELS, miou=0.9), result("x", why="not run yet")])
    assert found == (None if expected is None else (pytest.approx(expected), len(agreements)))


LOOKS = [{"step": at, "seconds": 60.0 * at, "agreement": 0.5, "val_miou_ema": at / 10} for at in (1, 2)]


class Elements(HTMLParser):
    """The names of a page's elements, and its text."""

    def __init__(self):
        super().__init__()
        self.names, self.text = [], ""

    def handle_starttag(self, tag, attrs):
        self.names.append(tag)
        assert not {"src", "href"} & {name for name, value in attrs if "://" in str(value)}

    def handle_data(self, data):
        self.text += data


def test_the_page_is_whole_without_a_network_and_escapes_names(tmp_path):
    paths = leaderboard.write([*RESULTS, result("noise", 1, 0.2, looks=LOOKS)], tmp_path)
    assert [path.name for path in paths] == ["leaderboard.md", "leaderboard.csv", "leaderboard.html", "curves.svg"]
    elements = Elements()
    elements.feed((tmp_path / "leaderboard.html").read_text("utf-8"))
    assert "b" not in elements.names and "script" not in elements.names and elements.names.count("svg") == 1
    assert "<b>|dfad" in elements.text and "failed: exit code 3" in elements.text
    assert (tmp_path / "leaderboard.html").read_text("utf-8").count('class="best"') == 1


def drawn(results):
    text = leaderboard.curves(results)
    return None if text is None else " ".join("".join(ElementTree.fromstring(text).itertext()).split())


def test_curves_are_of_miou_where_it_is_watched_else_of_agreement():
    assert drawn(RESULTS) is None
    watched = drawn([result("noise", looks=LOOKS), result("dfad", looks=LOOKS[:1]), result("noise", 1, looks=LOOKS)])
    assert "mIoU, watched split" in watched and watched.count("noise") == 1 and "dfad" in watched
    blind = [{key: value for key, value in look.items() if key != "val_miou_ema"} for look in LOOKS]
    assert "agreement with the teacher" in drawn([result("noise", looks=blind)])
    two = drawn([result("noise", looks=LOOKS), result("noise", recipe="other", looks=LOOKS)])
    assert two.count("minutes") == 2 and "other" in two


def test_the_same_results_are_drawn_in_the_same_bytes():
    results = [result("noise", looks=LOOKS)]
    assert leaderboard.curves(results) == leaderboard.curves(results)


def test_the_template_lies_beside_the_module():
    assert Path(leaderboard.__file__).with_name("leaderboard.html").is_file()
