"""A small benchmark from the command line to its figures; no time is judged, since machines are noisy."""

import json

import pytest

from segkd.benchmark.phases import NAMES
from segkd.cli.main import main


@pytest.mark.parametrize("case", ["ddad", pytest.param("dfad", marks=pytest.mark.slow)])  # test_reference plays both
def test_a_small_benchmark(tiny, tmp_path, capsys, own_threads, case):
    file = tmp_path / "bench.json"
    recipe = tmp_path / "small.yaml"
    recipe.write_text(tiny.recipe(case, "game.student_moves=2").to_yaml())
    assert main(["bench", "--pair", str(recipe), "--turns", "2", "--json", str(file)]) == 0
    said = capsys.readouterr()
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
    assert "times the reference's" in said.out and "Traceback" not in said.err
    assert not found["random_teacher"]


def test_nothing_to_compare_is_one_line(tiny, capsys):
    assert main(["bench", "--pair", str(tiny.path), "method=noise", "run.precision=fp32"]) == 2
    assert "has nothing to learn" in capsys.readouterr().err.splitlines()[-1]
