"""Figures come from logs; one typed by hand is found."""

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner, Result
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("table", ROOT / "tools" / "table.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


table = _load()
SUMMARY = {
    "recipe": "camvid",
    "method": "ddad",
    "variant": "segkd",
    "seed": 0,
    "steps": 15000,
    "seconds": 1500.0,
    "student_miou": 0.5,
    "student_miou_ema": 0.5,
    "student_miou_last": 0.48,
    "teacher_miou": 0.6,
    "recovery": 0.8,
    "agreement": 0.9,
    "real_images_for_training": 0,
    "real_images_for_evaluation": 232,
    "peak_memory_mb": 5120.4,
    "per_class": {"sky": 0.9, "car": 0.1},
    "machine": "1 H200",
}


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    folder = tmp_path / "recipes" / "logs"
    folder.mkdir(parents=True)
    return folder


def keep(logs: Path, name: str, **changed: object) -> None:
    (logs / f"{name}.summary.json").write_text(json.dumps(SUMMARY | changed))


def define(logs: Path, **figures: object) -> None:
    """Write the page's docs/figures.yaml."""
    (logs.parents[1] / "docs").mkdir(exist_ok=True)
    (logs.parents[1] / "docs" / "figures.yaml").write_text(json.dumps(figures))


def call(logs: Path, text: str, *options: str) -> tuple[Result, str]:
    readme = logs.parents[1] / "README.md"
    readme.write_text(text, "utf-8")
    result = CliRunner().invoke(table.main, [*options, str(readme)])
    return result, readme.read_text("utf-8")


def cells(text: str, row: int) -> list[str]:
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [cell.strip() for cell in lines[row].strip("|").split("|")]


BLOCK = "before\n<!-- table: camvid glob=*.summary.json bar=0.85 -->\nold\n<!-- end table -->\nafter\n"


def test_seeds_are_one_row_with_mean_and_sample_deviation(logs: Path) -> None:
    for seed, miou in enumerate((0.5, 0.52, 0.57)):
        keep(logs, f"s{seed}", seed=seed, student_miou_ema=miou, seconds=1500 + 60 * seed, recovery=0.9)
    result, text = call(logs, BLOCK)
    assert result.exit_code == 0, result.output
    assert text.startswith("before\n<!-- table: camvid glob=*.summary.json bar=0.85 -->\n|")
    assert text.endswith("<!-- end table -->\nafter\n") and "old" not in text
    assert cells(text, 2) == [
        "camvid: ddad (segkd)",
        "none",
        "15,000",
        "0.600",
        "0.530 ± 0.036 (3)",
        "0.480 ± 0.000 (3)",
        "0.900 ± 0.000 (3)",
        "26.0 ± 1.0 (3)",
        "5,120 ± 0 (3)",
    ]
    assert "measured on 1 H200" in text


def test_rows_are_told_apart_and_ordered(logs: Path) -> None:
    keep(logs, "a", method="dfad", variant=None, seed=1)
    keep(logs, "b", real_images_for_training=360)
    keep(logs, "c", variant="paper", row="DDAD as published")
    _, text = call(logs, BLOCK)
    assert [cells(text, row)[0] for row in (2, 3, 4)] == ["DDAD as published", "camvid: ddad (segkd)", "camvid: dfad"]
    assert [cells(text, row)[1] for row in (2, 3, 4)] == ["none", "360", "none"]


def test_a_missed_bar_is_marked_and_only_that(logs: Path) -> None:
    keep(logs, "a", recovery=0.8496)
    keep(logs, "b", variant="paper", recovery=0.85)
    keep(logs, "c", variant="plain", recovery=None, student_miou_ema=None, peak_memory_mb=None)
    _, text = call(logs, BLOCK)
    assert [cells(text, row)[6] for row in (2, 3, 4)] == ["0.850", "–", "**0.850, missed (bar 0.85)**"]
    assert (cells(text, 3)[4], cells(text, 3)[8]) == ("–", "–")
    _, text = call(logs, BLOCK.replace(" bar=0.85", ""))
    assert "missed" not in text


def test_a_bar_may_be_for_one_method_and_variant(logs: Path) -> None:
    keep(logs, "a", recovery=0.5)
    keep(logs, "b", variant="paper", recovery=0.4)
    _, text = call(logs, BLOCK.replace("bar=0.85", "bar=ddad.segkd:0.85"))
    assert text.count("missed") == 1 and "**0.500, missed (bar 0.85)**" in text


def test_each_machine_has_a_row_and_a_letter(logs: Path) -> None:
    keep(logs, "a", seed=0)
    keep(logs, "b", seed=0, machine="2 cores", precision="bf16", seconds=600)
    keep(logs, "c", seed=1, machine="2 cores", precision="bf16", seconds=600)
    keep(logs, "d", method="dfad", variant=None, machine="2 cores", precision="bf16")
    _, text = call(logs, BLOCK)
    assert [cells(text, row)[7] for row in (2, 3, 4)] == ["25.0 a", "10.0 ± 0.0 (2) b", "25.0 b"]
    assert "measured on a: 1 H200;\nb: 2 cores, bf16." in text


def test_a_table_may_have_several_patterns(logs: Path) -> None:
    for name in ("run_a", "teacher_b", "trial_c"):
        keep(logs, name, recipe=name)
    _, text = call(logs, BLOCK.replace("*.summary.json", "run_*.json,teacher_b.summary.json"))
    assert "run_a" in text and "teacher_b" in text and "trial_c" not in text


def test_different_steps_in_one_row_are_shown(logs: Path) -> None:
    keep(logs, "a", seed=0)
    keep(logs, "b", seed=1, steps=900)
    assert cells(call(logs, BLOCK)[1], 2)[2] == "15,000 / 900"


def test_per_class_table(logs: Path) -> None:
    keep(logs, "a")
    keep(logs, "b", seed=1, per_class={"sky": 0.8, "car": None})
    keep(logs, "c", method="zskt", per_class={"sky": None, "car": 0.3})
    _, text = call(logs, "<!-- per-class: x glob=*.summary.json -->\n<!-- end table -->")
    assert cells(text, 0) == ["class", "ddad (segkd)", "zskt (segkd)"]
    assert cells(text, 2) == ["sky", "0.850 ± 0.071 (2)", "–"]
    assert cells(text, 3) == ["car", "0.100", "0.300"]
    assert cells(text, 4) == ["**mIoU**", "0.500 ± 0.000 (2)", "0.500"]


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        ("a.summary.json:student_miou", "0.500"),
        ("a.summary.json:recovery:.0%", "80%"),
        ("a.summary.json:per_class.car:.1f", "0.1"),
        ("a.summary.json:steps:,d", "15,000"),
        ("a.summary.json:seconds:min", "25"),
        ("?.summary.json:seconds:min", "30"),
        ("?.summary.json:student_miou:.2f", "0.55 ± 0.07 (2)"),
        ("none.summary.json:student_miou", "–"),
        ("metrics.jsonl:-1.loss", "0.250"),
        ("metrics.jsonl:0.loss:.1f", "1.0"),
        ("a.summary.json:student_miou / b.summary.json:student_miou", "0.833"),
        ("?.summary.json:student_miou / b.summary.json:student_miou:.2f", "0.92"),
    ],
)
def test_figures_in_the_text(logs: Path, key: str, shown: str) -> None:
    keep(logs, "a")
    keep(logs, "b", student_miou=0.6, seconds=2100.0)
    keep(logs, "none", student_miou=None)
    (logs / "metrics.jsonl").write_text('{"loss": 1.0}\n{"loss": 0.25}\n')
    define(logs, here=key)
    for before in ("?", "0.777", "-1.5 ± 0.2 (3)", "1,234", "7%", "–"):
        result, text = call(logs, f"In 2 tries it is **{before}<!--fig:here-->**, see?")
        assert result.exit_code == 0, result.output
        assert text == f"In 2 tries it is **{shown}<!--fig:here-->**, see?"
    assert call(logs, text, "--check")[0].exit_code == 0
    assert call(logs, text.replace(shown, "9.9"), "--check")[0].exit_code == 1


def test_a_quoted_figure_is_left_as_it_is(logs: Path) -> None:
    text = "They report 0.777<!--quoted arXiv:1912.11006, table 4--> there."
    assert call(logs, text)[1] == text
    assert call(logs, text, "--check")[0].exit_code == 0


def test_a_leaderboard_has_the_best_first_and_its_share_of_kd(logs: Path) -> None:
    keep(logs, "a", row="noise", student_miou=0.1, precision="fp32")
    keep(logs, "b", row="ddad", student_miou=0.3, precision="fp32")
    keep(logs, "c", row="kd (original images)", student_miou=0.4, real_images_for_training=367, precision="fp32")
    block = "<!-- leaderboard: all glob=*.summary.json -->\n<!-- end table -->"
    result, text = call(logs, block)
    assert result.exit_code == 0, result.output
    rows = [cells(text, row) for row in range(5)]
    assert rows[0][:4] == ["method", "real training images", "steps", "mIoU"]
    assert [row[0] for row in rows[2:]] == ["kd (original images)", "ddad", "noise"] and rows[3][6] == "0.750"
    assert call(logs, text, "--check")[0].exit_code == 0
    keep(logs, "d")
    assert "a run of a leaderboard (camvid) has no row" in call(logs, block)[0].output


def test_a_table_of_cells(logs: Path) -> None:
    keep(logs, "a")
    keep(logs, "b", steps=900, student_miou=0.25)
    columns = {"long": "a.summary.json", "short": "b.summary.json", "twice": "a.summary.json:{row} / a.summary.json"}
    cell = "{column}:{row}"
    define(
        logs,
        both={"head": "run", "columns": columns, "rows": {"IoU": "student_miou", "all": "steps:,.0f"}, "cell": cell},
    )
    result, text = call(logs, "<!-- cells: both -->\n<!-- end table -->")
    assert result.exit_code == 0, result.output
    expected = [
        ["run", "long", "short", "twice"], ["---", *["---:"] * 3], ["IoU", "0.500", "0.250", "1.000"], ["all", "15,000", "900", "1"],
    ]  # fmt: skip
    assert [cells(text, row) for row in range(4)] == expected
    assert call(logs, text, "--check")[0].exit_code == 0


@pytest.mark.parametrize("marker", ["<!--fig:here-->", "<!--quoted arXiv:1912.11006-->", "<!--fig a.json:steps-->"])
def test_the_check_finds_a_marker_without_a_figure(logs: Path, marker: str) -> None:
    define(logs, here="a.summary.json:steps")
    result, _ = call(logs, f"some text {marker} and more", "--check")
    assert result.exit_code == 1 and f"line 1: no figure before {marker}" in result.output


def test_making_twice_changes_nothing_and_passes_the_check(logs: Path) -> None:
    keep(logs, "a")
    _, once = call(logs, BLOCK)
    assert call(logs, once)[1] == once
    assert call(logs, once, "--check")[0].exit_code == 0


def test_the_check_finds_an_edited_cell_and_writes_nothing(logs: Path) -> None:
    keep(logs, "a")
    _, made = call(logs, BLOCK)
    edited = made.replace("0.480", "0.580")
    result, text = call(logs, edited, "--check")
    assert result.exit_code == 1
    assert "0.580" in result.output and "0.480" in result.output
    assert text == edited


@pytest.mark.parametrize("typed", ["mIoU 0.517 here", "| x | 0.4821 |", "within 3.4 % of it", "a recovery of 85.1%."])
def test_the_check_finds_a_figure_typed_by_hand(logs: Path, typed: str) -> None:
    result, _ = call(logs, f"# Title\n\n{typed}\n", "--check")
    assert result.exit_code == 1
    assert "line 3: typed by hand" in result.output


@pytest.mark.parametrize("text", ["`lr=0.001`", "```\nloss 0.123\n```\n", "albumentations 2.0.8", "v0.100.2", "0.5"])
def test_the_check_lets_code_and_versions_be(logs: Path, text: str) -> None:
    result, _ = call(logs, text, "--check")
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (BLOCK.replace("*.summary", "nothing*"), "no log matches 'nothing*"),
        (BLOCK.replace("bar=", "baz="), "takes glob=PATTERN"),
        ("1<!--fig:dog-->", "nothing at 'per_class.dog' (at 'dog')"),
        ("1<!--fig:none-->", "no log matches 'none.json'"),
        ("1<!--fig:unknown-->", "docs/figures.yaml: no figure 'unknown'"),
        ("<!-- cells: none -->\n<!-- end table -->", "docs/figures.yaml: no table 'none'"),
    ],
)
def test_a_wrong_source_is_named(logs: Path, text: str, complaint: str) -> None:
    keep(logs, "a")
    define(logs, dog="a.summary.json:per_class.dog", none="none.json:x")
    result, after = call(logs, text)
    assert result.exit_code == 1 and complaint in result.output
    assert after == text


def test_one_seed_counted_twice_is_refused(logs: Path) -> None:
    keep(logs, "a")
    keep(logs, "b")
    assert "the same seed" in call(logs, BLOCK)[0].output


def test_a_log_that_lacks_a_key_is_named(logs: Path) -> None:
    (logs / "a.summary.json").write_text(json.dumps({key: SUMMARY[key] for key in SUMMARY if key != "machine"}))
    result, _ = call(logs, BLOCK)
    assert result.exit_code == 1 and "a.summary.json: lacks machine" in result.output


@pytest.mark.skipif(not (ROOT / "README.md").is_file(), reason="no README.md in this checkout")
def test_the_pages_are_from_the_logs_and_can_be_read_as_they_stand() -> None:
    result = CliRunner().invoke(table.main, ["--check"])
    assert result.exit_code == 0, result.output
    pages = {path: path.read_text("utf-8") for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"))}
    long = [
        f"{path.name}:{n}"
        for path, text in pages.items()
        for n, line in enumerate(text.split("\n"), 1)
        if len(line) > 160
    ]
    assert long == []
    named = re.findall(r"<!--fig:([\w.]+)-->|<!-- cells: (\S+) -->", "".join(pages.values()))
    assert YAML(typ="safe").load(ROOT / "docs" / "figures.yaml").keys() == {a or b for a, b in named}
