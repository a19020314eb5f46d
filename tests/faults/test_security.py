"""SECURITY.md: each claim names tests that exist, and those that no other row tries are tried here."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from safetensors import safe_open

from segkd.cli.main import main
from segkd.training import checkpoint
from tests.conftest import ROOT
from tests.faults.harness import PLAIN
from tests.faults.matrix import ROWS

PAGE = (ROOT / "SECURITY.md").read_text()
NO_NETWORK = """
import os, sys
def refuse(event, arguments):
    if event.startswith(("socket.connect", "socket.getaddrinfo", "socket.sendto", "urllib.Request")):
        sys.stderr.write(f"asked the network: {event} {arguments}\\n")
        sys.stderr.flush()
        os._exit(99)
sys.addaudithook(refuse)
from segkd.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def test_every_row_and_every_test_that_the_page_names_is_there():
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", PAGE)
    assert len(named) > 5
    for file, test in named:
        assert (ROOT / file).is_file() and f"def {test}" in (ROOT / file).read_text(), (file, test)
    rows = [row.strip() for group in re.findall(r"\[([A-Z]\d[\w, -]*)\](?!\()", PAGE) for row in group.split(",")]
    assert len(set(rows)) > 8 and set(rows) <= ROWS.keys()


def run(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", NO_NETWORK, *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )


def test_a_run_asks_no_network(tiny, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(tiny.recipe("noise", *PLAIN, "run.dir=run").to_yaml())
    done = run(["distill", str(recipe), "--quiet"], tmp_path)
    assert done.returncode == 0, done.stderr
    (tmp_path / "image.png").write_bytes(next((tiny.folder / "camvid" / "test").glob("*.png")).read_bytes())
    for verb in (
        ["visualize", "run", "image.png", "--out", "out"],
        ["eval", "run", "--data", "camvid", "--root", str(tiny.folder / "camvid")],
    ):
        done = run(verb, tmp_path)
        assert done.returncode == 0, done.stderr
    asked = run(["data", "prepare", "camvid", "--root", "d", "--from", "http://127.0.0.1:9/a.zip"], tmp_path)
    assert asked.returncode == 99 and "asked the network" in asked.stderr  # what is watched would be seen


def test_a_students_folder_holds_the_student_and_nothing_else(tiny, tmp_path, own_threads):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(tiny.recipe("dfad", *PLAIN, f"run.dir={tmp_path / 'run'}").to_yaml())
    assert main(["distill", str(recipe), "--quiet"]) == 0
    folder = tmp_path / "run" / "student"
    assert {path.name for path in folder.rglob("*")} == {
        "config.json",
        "model.safetensors",
        "preprocess.json",
        "README.md",
    }
    game = checkpoint.newest(tmp_path / "run" / "checkpoints")[0]["game"]
    with safe_open(folder / "model.safetensors", "pt") as file:
        assert {f"network.{key}" for key in file.keys()} == game["student"]["network"].keys()
    for path in folder.iterdir():
        assert str(tmp_path).encode() not in path.read_bytes() and str(Path.home()).encode() not in path.read_bytes()
