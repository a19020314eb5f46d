"""What is given as a time becomes steps once: from a budget before the first step, else from the first steps themselves."""

import re
import signal
import time

import pytest

from segkd import runs
from segkd.foundation.errors import Stopped
from segkd.recipe import load
from segkd.runs.run import rhythm_of
from segkd.training import checkpoint
from segkd.training.distiller import Distiller
from segkd.training.log import read_lines
from segkd.training.rhythm import TRIALS
from tests.faults.harness import TEACH

QUIET = runs.Options(name="tiny", quiet=True)
TIMES = ["run.save_every=50s", "run.eval_every=70s", "run.sample_every=90s"]

pytestmark = pytest.mark.usefixtures("own_threads")


@pytest.fixture
def distil(tiny, tmp_path, monkeypatch):
    """Distils into tmp_path/NAME by a clock of its own: a step takes `seconds`."""
    play, now = Distiller.play, [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def run(*overrides, name="run", seconds=8.0, stop_at=None):
        def played(game, step):
            now[0] += seconds
            if step == stop_at:
                signal.raise_signal(signal.SIGHUP)
            return play(game, step)

        monkeypatch.setattr(Distiller, "play", played)
        given = ["run.threads=1", "run.steps=12", "game.student_moves=1", "run.keep=20", f"run.dir={tmp_path / name}"]
        return runs.distill(tiny.recipe("noise", *given, *overrides), QUIET)

    return run


def saved(folder):
    return [int(path.name.split("-")[1]) for path in checkpoint.listed(folder / "checkpoints")][::-1]


def looks(folder):
    return [line["step"] for line in read_lines(folder / "metrics.jsonl") if "agreement" in line]


def test_a_run_saves_looks_and_samples_by_the_time_that_its_first_steps_took(distil, tmp_path):
    distil(*TIMES)
    folder = tmp_path / "run"
    assert (saved(folder), looks(folder)) == ([0, 6, 12], [8, 12])
    assert [path.stem for path in sorted((folder / "samples").iterdir())] == ["00000011", "00000012"]
    assert "  save_every: 50s\n" in (folder / "recipe.yaml").read_text()
    distil("run.save_every=1", "run.eval_every=1", "run.sample_every=9", name="steps")
    assert saved(tmp_path / "steps") == list(range(13))
    students = [(tmp_path / name / "student" / "model.safetensors").read_bytes() for name in ("run", "steps")]
    assert students[0] == students[1]


@pytest.mark.parametrize("at", [0, TRIALS - 2, TRIALS, 8])
def test_a_closed_terminal_stops_it_and_the_rhythm_stays_once_it_is_decided(distil, tmp_path, at):
    with pytest.raises(Stopped) as caught:
        distil(*TIMES, stop_at=at)
    assert caught.value.exit_code == 129 and saved(tmp_path / "run")[-1] == at + 1
    distil(*TIMES, seconds=8.0 if at < TRIALS - 1 else 0.001)  # quicker by far: as many steps as before all the same
    early = {6} if at == TRIALS - 2 else set()  # it came before four steps of this part had been seen
    seen = {0, 6, 12, at + 1} - early
    assert set(saved(tmp_path / "run")) == seen and looks(tmp_path / "run") == [8, 12]


def test_the_readmes_recipe_saves_within_minutes(tiny):
    """Its 25 minutes are some 300 steps, of which it had inherited to save each 500th."""
    recipe = tiny.recipe("ddad.segkd", "run.budget=25m", "run.steps=300", *(f"run.{key}=null" for key in ("save_every", "eval_every", "sample_every")))  # fmt: skip
    plan = rhythm_of(recipe)
    assert (plan.save_every, plan.eval_every, plan.sample_every) == (36, 60, 60) and not plan.undecided


def test_a_teachers_budget_becomes_steps_too(tiny, tmp_path):
    (tmp_path / "teach.yaml").write_text(TEACH.replace("ROOT", str(tiny.folder / "camvid")))
    given = ["run.budget=0.3s", f"run.dir={tmp_path / 'run'}", "output=null", "run.threads=1"]
    summary = runs.teach(load(tmp_path / "teach.yaml", given, "teach"), QUIET)
    text = (tmp_path / "run" / "recipe.yaml").read_text()
    assert summary["steps"] >= 1 and re.search(rf"^  steps: {summary['steps']}$", text, re.MULTILINE)
    (tmp_path / "run" / "summary.json").unlink()
    assert runs.teach(load(tmp_path / "teach.yaml", given, "teach"), QUIET)["steps"] == summary["steps"]
