"""The page of a run: complete without a network, escaped, and honest about what was not measured."""

import base64
import json
from pathlib import Path

import pytest

from segkd.cli.main import main
from segkd.foundation.errors import StorageError
from segkd.reporting.report import page
from tests.reporting.test_leaderboard import Elements

SUMMARY = {
    "recipe": "toy<script>", "method": "ddad", "variant": "segkd", "student_miou": 0.5, "teacher_miou": 0.8, "recovery": 0.625, "agreement": 0.75,
    "per_class": {"sky": 0.9, "bicyclist": 0.1}, "teacher_per_class": {"sky": 0.95, "bicyclist": None}, "real_images_for_training": 0,
    "steps": 40, "seconds": 80.0, "machine": "a machine", "student_parameters": 1_500_000, "student_flops": None, "peak_memory_mb": 900,
    "refused_moves": 2,
}  # fmt: skip
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "samples").mkdir()
    for step in (5, 10, 15, 20, 25, 30, 40):
        (tmp_path / f"samples/{step:08d}.png").write_bytes(PNG)
    (tmp_path / "summary.json").write_text(json.dumps(SUMMARY))
    (tmp_path / "recipe.yaml").write_text(
        "# segkd: 0.1.0\n# machine: a machine\n# sha256 of what follows: x\n\nmethod: ddad\ndata: {name: camvid, final: val}\nrun: {steps: 40}\n"
    )
    lines = [
        {
            "step": step,
            "seconds": 2.0 * step,
            "kd": 1.0 / step,
            "agreement": step / 100,
            "note": f"step {step}: look <b>",
        }
        for step in (10, 20)
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


def read(folder: Path) -> Elements:
    elements = Elements()
    elements.feed(page(folder))
    return elements


def test_the_result_comes_first_and_all_is_in_the_page(run: Path) -> None:
    seen = read(run)
    text = " ".join(seen.text.split())
    assert (
        text.index("0.500")
        < text.index("How it went")
        < text.index("Synthetic images over time")
        < text.index("How it was made")
    )
    for words in (
        "62.5 %",
        "No real image trained it",
        "camvid val",
        "bicyclist from the rest",
        "2 updates were refused",
        "step 10: look <b>",
        "toy<script>",
    ):
        assert words in text
    assert seen.names.count("img") == 5 and seen.names.count("svg") == 1 and not {"script", "link"} & set(seen.names)
    assert "step 5:" in text and "step 40:" in text and page(run) == page(run)
    assert "step 10: step" not in text, "some notes name their step themselves"


def test_what_was_not_measured_is_said(run: Path) -> None:
    (run / "summary.json").write_text(
        json.dumps(SUMMARY | {"student_miou": None, "teacher_miou": None, "recovery": None, "per_class": None})
    )
    text = " ".join(read(run).text.split())
    assert (
        "no labels were given" in text
        and "agreement with a teacher is no accuracy" in text
        and "Class by class" not in text
    )


def test_a_bare_run_has_a_page_too(run: Path) -> None:
    for path in (*run.glob("samples/*"), run / "metrics.jsonl", run / "recipe.yaml"):
        path.unlink()
    assert read(run).names.count("img") == 0


@pytest.mark.parametrize("text", [None, "{", '{"exit_code": 143}'])
def test_what_is_no_finished_run(run: Path, text: str | None) -> None:
    (run / "summary.json").unlink() if text is None else (run / "summary.json").write_text(text)
    with pytest.raises(StorageError, match="summary.json"):
        page(run)
    assert main(["report", str(run)]) == 5 and not (run / "report.html").exists()


def test_the_command(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(run)]) == 0
    assert capsys.readouterr().out.strip() == str(run / "report.html") and (run / "report.html").read_text(
        "utf-8"
    ).startswith("<!doctype html>")
