"""A small benchmark from the command line to its figures; no time is judged, since machines are noisy."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from segkd.benchmark.phases import NAMES
from segkd.cli.main import main

TOOL = Path(__file__).parents[2] / "tools" / "benchmark.py"


@pytest.mark.parametrize("case", ["ddad", "dfad"])
def test_a_small_benchmark(tiny, tmp_path, case):
    file = tmp_path / "bench.json"
    recipe = tmp_path / "small.yaml"
    recipe.write_text(tiny.recipe(case, "game.student_moves=2").to_yaml())
    given = [str(TOOL), "--pair", str(recipe), "--turns", "2", "--json", str(file)]
    done = subprocess.run(
        [sys.executable, *given],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(file.read_text())
    assert found["ratio"].keys() == {"student_images_per_s", "peak_memory", "evaluator"}
    assert all(value > 0 for value in found["ratio"].values())
    for who, moves in (("reference", 5), ("segkd", 2)):
        loop = found[who]
        assert loop["student_moves"] == moves and len(loop["all_step_seconds"]) == 2
        images = moves * found["batch"] / loop["step_seconds"]
        assert (
            loop["student_images_per_s"] == pytest.approx(images) and loop["peak_memory_mb"] > 0 and loop["flops"] > 0
        )
    assert found["segkd"]["phases"].keys() == set(NAMES)
    assert sum(found["segkd"]["phases"].values()) == pytest.approx(1)
    assert "times the reference's" in done.stdout and "Traceback" not in done.stderr
    assert not found["random_teacher"]


def test_nothing_to_compare_is_one_line(tiny, capsys):
    assert main(["bench", "--pair", str(tiny.path), "method=noise", "run.precision=fp32"]) == 2
    assert "has nothing to learn" in capsys.readouterr().err.splitlines()[-1]
