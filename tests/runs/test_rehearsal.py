"""What is due after the last step is tried before the first one."""

import sys

import pytest

from segkd import runs
from segkd.foundation.errors import NumbersError
from segkd.recipe import load
from segkd.runs import card
from segkd.runs import run as steps
from segkd.training import checkpoint
from segkd.training.distiller import Distiller
from segkd.training.teaching import Teaching
from tests.conftest import hash_of
from tests.faults.harness import TEACH

pytestmark = pytest.mark.usefixtures("own_threads")
DISTILL = sys.modules[runs.distill.__module__]
QUIET = runs.Options("tiny", quiet=True)


@pytest.fixture
def played(monkeypatch):
    """The steps that any game has played."""
    steps = []
    for kind in (Distiller, Teaching):
        play = kind.play
        monkeypatch.setattr(kind, "play", lambda game, step, play=play: steps.append(step) or play(game, step))
    return steps


@pytest.fixture
def run(tiny, tmp_path):
    """A run of one step in tmp_path/run by its verb."""
    path = tmp_path / "teach.yaml"
    path.write_text(TEACH.replace("ROOT", str(tiny.folder / "camvid")))

    def begin(verb, *overrides):
        given = ["run.threads=1", "run.steps=1", f"run.dir={tmp_path / 'run'}", *overrides]
        if verb == "distill":
            return runs.distill(tiny.recipe("noise", "data.name=camvid", "game.student_moves=1", *given), QUIET)
        return runs.teach(load(path, [*given, f"output={tmp_path / 'taught.safetensors'}"], "teach"), QUIET)

    return begin


def left(tmp_path):
    return [path for path in tmp_path.rglob("*") if path.name not in (".lock", "teach.yaml") and path.is_file()]


BOTH = [(steps, name) for name in ("score", "save_network", "write_card", "load_student")]


@pytest.mark.parametrize(("verb", "own"), [("distill", (DISTILL, "save_samples")), ("teach", (card, "of_file"))])
def test_what_fails_fails_before_the_first_step(run, played, tmp_path, monkeypatch, verb, own):
    def fails(*given, **options):
        raise LookupError(name)

    for where, name in (*BOTH, own):
        with monkeypatch.context() as patch, pytest.raises(LookupError, match=name):
            patch.setattr(where, name, fails)
            run(verb)
        assert not played and not left(tmp_path)
    assert run(verb)["steps"] == 1 and played == [0]


def test_weights_that_overflow_before_they_have_learnt_are_no_error(run, played, monkeypatch):
    score = steps.score

    def overflows(*given, **options):
        if not played:
            raise NumbersError("not finite")
        return score(*given, **options)

    monkeypatch.setattr(steps, "score", overflows)
    assert run("distill")["student_miou"] is not None


def test_it_leaves_no_trace_and_takes_place_once(run, played, tmp_path, monkeypatch):
    entered, rehearse = [], steps.Run.rehearse_end
    monkeypatch.setattr(steps.Run, "rehearse_end", lambda run: entered.append(run) or rehearse(run))
    run("distill")
    saved = checkpoint.listed(tmp_path / "run" / "checkpoints")[0].read_bytes()
    (tmp_path / "run" / "summary.json").unlink()
    run("distill")
    assert len(entered) == 1 and not list((tmp_path / "run").glob(".tmp-*"))
    monkeypatch.setattr(steps.Run, "rehearse_end", lambda run: None)
    run("distill", f"run.dir={tmp_path / 'plain'}")
    game = [checkpoint.load(checkpoint.listed(tmp_path / name / "checkpoints")[0])["game"] for name in ("run", "plain")]
    assert saved and hash_of(game[0]) == hash_of(game[1])


def test_operations_that_cannot_be_counted_are_null_and_told_first(run, played, monkeypatch, capsys):
    told = []

    def uncounted(network, height, width):
        told.append(list(played))

    monkeypatch.setattr(DISTILL, "flops_of", uncounted)
    summary = run("distill")
    assert summary["student_flops"] is summary["teacher_flops"] is None and told == [[], []]
    err = capsys.readouterr().err
    assert (
        "warning: teacher: the operations of this network cannot be counted, and the summary will not tell them\n"
        in err
    )
