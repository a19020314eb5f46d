"""Runs as they are listed: finished, stopped, running, damaged."""

import json
from pathlib import Path

import pytest

from segkd.cli.main import main
from segkd.foundation.files import RunLock, in_use
from segkd.reporting import listing


def run(folder: Path, *, summary: dict | None = None, steps: int = 40, recipe: str | None = None) -> Path:
    (folder / "checkpoints").mkdir(parents=True)
    text = (
        recipe or f"# segkd: 0.1.0\n# sha256 of what follows: x\nmethod: dfad\nvariant: segkd\nrun:\n  steps: {steps}\n"
    )
    (folder / "recipe.yaml").write_text(text)
    (folder / "checkpoints" / f"step-{12:08d}-abc.ckpt").touch()
    lines = [
        {"step": 10, "seconds": 20.0, "agreement": 0.5, "val_miou_ema": 0.25},
        {"step": 20, "seconds": 40.0, "kd": 1.0},
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 21, "sec')
    if summary:
        (folder / "summary.json").write_text(json.dumps(summary))
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    run(tmp_path / "a", summary={"seconds": 80.0, "steps": 40, "student_miou": 0.5, "agreement": 0.75})
    run(tmp_path / "deeper/compare/b")
    run(tmp_path / "c", recipe="[")
    (tmp_path / "photos").mkdir()
    return tmp_path


def test_the_states_of_runs(root: Path) -> None:
    a, c, b = listing.runs(root)
    assert (a.state, a.step, a.miou, a.agreement, a.what) == ("finished", 40, 0.5, 0.75, "dfad")
    assert (b.state, b.step, b.steps, b.seconds, b.agreement, b.miou) == ("stopped", 12, 40, None, 0.5, 0.25)
    assert c.state == "damaged" and Path(b.folder) == root / "deeper/compare/b"


def test_a_running_one_is_told_from_a_stopped_one_and_left_alone(root: Path) -> None:
    folder = root / "deeper/compare/b"
    with RunLock(folder, mark="a run of segkd"):
        before = (folder / ".lock").read_text()
        assert in_use(folder) and (folder / ".lock").read_text() == before
        found = listing.runs(root)[2]
        assert (found.state, found.step, found.seconds) == ("running", 20, 40.0)
    before = (folder / ".lock").read_text()
    assert not in_use(folder) and (folder / ".lock").read_text() == before
    assert not in_use(root / "a"), "never locked"
    assert not (root / "a/.lock").exists()


def test_the_command(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ls", str(root)]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["run", "method", "state", "step", "left", "agreement", "mIoU"] and len(rows) == 3
    assert "12/40" in rows[2]
    assert main(["ls", str(root), "--json"]) == 0
    assert [each["state"] for each in json.loads(capsys.readouterr().out)] == ["finished", "damaged", "stopped"]
    assert main(["ls", str(root / "none")]) == 5
    assert "no such folder" in capsys.readouterr().err
    assert main(["ls", str(root / "photos")]) == 0
    assert "holds no run" in capsys.readouterr().err
