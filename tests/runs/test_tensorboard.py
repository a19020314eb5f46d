"""`run.tensorboard`, in a run and without its package."""

import sys

import pytest

from segkd import runs
from segkd.foundation.errors import UsageError
from segkd.training.log import read_lines
from tests.training.test_log import events

pytestmark = pytest.mark.usefixtures("own_threads")


def test_a_run_writes_what_its_log_holds_and_may_go_on_without(tiny, tmp_path):
    folder = tmp_path / "run"
    begin = ["run.threads=1", f"run.dir={folder}", "run.eval_every=1", "game.student_moves=1"]
    runs.distill(tiny.recipe("noise", *begin, "run.steps=2", "run.tensorboard=true"), runs.Options("tiny", quiet=True))
    found, lines = events(folder / "tensorboard"), read_lines(folder / "metrics.jsonl")
    assert found["agreement"] == [
        (line["step"], pytest.approx(line["agreement"], rel=1e-5)) for line in lines if "agreement" in line
    ]
    again = tiny.recipe("noise", *begin, "run.steps=2", "run.tensorboard=false")
    assert runs.distill(again, runs.Options("tiny", quiet=True))["steps"] == 2


def test_a_missing_package_is_told_before_anything_is_loaded(tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(UsageError, match="pip install 'segkd.tb.'"):
        runs.distill(
            tiny.recipe("noise", f"run.dir={tmp_path / 'run'}", "run.tensorboard=true"),
            runs.Options("tiny", quiet=True),
        )
    assert not (tmp_path / "run").exists()
