"""SECURITY.md: each claim names tests that exist, and those that no other row tries are tried here."""

from __future__ import annotations

import json
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
import json, os, sys
def refuse(event, arguments):
    if event.startswith(("socket.connect", "socket.getaddrinfo", "socket.sendto", "urllib.Request")):
        sys.stderr.write(f"asked the network: {event} {arguments}\\n")
        sys.stderr.flush()
        os._exit(99)
sys.addaudithook(refuse)
from segkd.cli.main import main
for verb in json.loads(sys.argv[1]):
    print(f"exit code {main(verb)}: {verb[0]}", flush=True)
"""


def test_every_row_and_every_test_that_the_page_names_is_there():
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", PAGE)
    assert len(named) > 5
    for file, test in named:
        assert (ROOT / file).is_file() and f"def {test}" in (ROOT / file).read_text(), (file, test)
    rows = [row.strip() for group in re.findall(r"\[([A-Z]\d[\w, -]*)\](?!\()", PAGE) for row in group.split(",")]
    assert len(set(rows)) > 8 and set(rows) <= ROWS.keys()


def test_a_run_asks_no_network(tiny, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(tiny.recipe("noise", *PLAIN, "run.dir=run").to_yaml())
    (tmp_path / "image.png").write_bytes(next((tiny.folder / "camvid" / "test").glob("*.png")).read_bytes())
    verbs = [
        ["distill", str(recipe), "--quiet"],
        ["visualize", "run", "image.png", "--out", "out"],
        ["eval", "run", "--data", "camvid", "--root", str(tiny.folder / "camvid")],
        ["data", "prepare", "camvid", "--root", "d", "--from", "http://127.0.0.1:9/a.zip"],
    ]
    done = subprocess.run(
        [sys.executable, "-c", NO_NETWORK, json.dumps(verbs)], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True,
    )  # fmt: skip
    codes = [line for line in done.stdout.splitlines() if line.startswith("exit code ")]
    assert codes == [f"exit code 0: {verb[0]}" for verb in verbs[:3]], done.stderr
    assert done.returncode == 99 and "asked the network" in done.stderr  # what is watched would be seen


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
