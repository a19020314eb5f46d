"""`run.headline: agreement`, a choice of weights without labels, and `run.patience`, which ends a run by it."""

import json
import math

import pytest
import torch

from segkd import runs
from segkd.delivery.folder import load_student
from segkd.foundation.errors import NumbersError, RecipeError, UsageError
from segkd.methods.dfad import DFAD
from segkd.recipe import load
from segkd.runs.trained import load_model
from segkd.training import checkpoint
from segkd.training.log import read_lines
from segkd.training.monitor import Monitor
from tests.conftest import hash_of

pytestmark = pytest.mark.usefixtures("own_threads")
QUIET = runs.Options("tiny", quiet=True)


@pytest.fixture
def distil(tiny, tmp_path):
    """A run of steps of one look each, of which `agreements` say how good it looks."""

    def begin(*overrides, agreements=(), options=QUIET):
        given = ["run.threads=1", "run.eval_every=1", "run.save_every=1", f"run.dir={tmp_path / 'run'}", *overrides]
        with pytest.MonkeyPatch.context() as patch:
            if agreements:
                patch.setattr(Monitor, "shown", lambda *_, left=iter(agreements): {"agreement_shown": next(left)})
            return runs.distill(tiny.recipe("dfad", "data.name=camvid", *given), options)

    return begin


def weights_of(folder):
    return hash_of(load_student(folder).network.state_dict())


def looked(folder):
    return [line["step"] for line in read_lines(folder / "metrics.jsonl") if "agreement" in line]


def test_the_result_is_the_student_that_agreed_best(distil, tmp_path):
    summary = distil("run.headline=agreement", "run.steps=3", agreements=[0.2, 0.6, 0.4, 0.5])
    assert summary["best_step"] == 2 and summary["steps"] == 3 and summary["student_miou"] is not None
    best = weights_of(tmp_path / "run")
    steps = {step: tmp_path / "run/checkpoints" for step in (2, 3)}
    kept = [path for step in steps for path in steps[step].glob(f"step-{step:08d}-*")]
    networks = [load_model(path).network.network.state_dict() for path in kept]
    assert hash_of(networks[0]) == hash_of(networks[1]) == best, "both checkpoints know the best so far"
    averaged = load_model(kept[1], overrides=["run.headline=ema"]).network.network.state_dict()
    assert hash_of(averaged) != best
    assert "agreed best" in (tmp_path / "run/student/README.md").read_text()


def test_a_resumed_run_knows_the_best_so_far(distil, tmp_path):
    distil("run.headline=agreement", "run.steps=2", agreements=[0.6, 0.4, 0.4])
    summary = distil("run.headline=agreement", "run.steps=3", agreements=[0.5, 0.5],
                     options=runs.Options("tiny", quiet=True, accept=("run.steps",)))  # fmt: skip
    assert summary["best_step"] == 1 and summary["steps"] == 3


def test_a_run_without_patience_ends_where_nothing_gets_better(distil, tmp_path, capsys):
    summary = distil("run.patience=2", "run.steps=9", agreements=[0.5, 0.6, 0.6, 0.1, 0.1])
    assert summary["steps"] == 4 and summary["best_step"] == 2 and looked(tmp_path / "run") == [1, 2, 3, 4]
    assert "ended after 4 of 9 steps: no better agreement since step 2" in capsys.readouterr().err
    assert "4 steps of batch" in (tmp_path / "run/student/README.md").read_text()
    again = distil("run.patience=2", "run.steps=9")
    assert again == summary == json.loads((tmp_path / "run/summary.json").read_text())
    with pytest.raises(UsageError, match="finished after 4 of 9 steps, which are more than run.steps 8"):
        distil("run.patience=2", "run.steps=8")


def test_looks_at_a_student_that_learns_later_do_not_count(tiny, tmp_path):
    """Half of RDSKD's steps are the generator's alone."""
    game = tiny.game("rdskd", "run.steps=4", "options.ahead=0.5")
    assert [step for step in range(4) if "student" in game.method.moves(step)] == [2, 3]
    given = ["run.steps=4", "run.eval_every=1", "run.patience=1", "run.threads=1", f"run.dir={tmp_path / 'run'}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Monitor, "shown", lambda *_: {"agreement_shown": 0.5})
        summary = runs.distill(tiny.recipe("rdskd", "data.name=camvid", "options.ahead=0.5", *given), QUIET)
    assert summary["steps"] == 4 and summary["best_step"] == 3


def test_a_look_that_is_made_again_counts_once(tiny):
    game = tiny.game("dfad")
    network = game.monitor.measured("ema")
    for agreement, step in ((0.5, 1), (0.5, 1), (0.4, 2)):
        game.monitor.offer(agreement, step, network)
    again = tiny.game("dfad")
    again.restore(game.state())
    again.monitor.offer(0.4, 2, network)
    assert again.monitor.best.since == game.monitor.best.since == 1


def test_what_agreed_best_is_the_student_whose_agreement_it_was(distil, tmp_path):
    distil("run.headline=last", "run.patience=5", "run.steps=2", agreements=[0.6, 0.5, 0.5])
    kept = sorted((tmp_path / "run/checkpoints").glob("step-00000001-*")) or pytest.fail("the first step is not kept")
    live = load_model(kept[0], overrides=["run.headline=last"]).network.network.state_dict()
    last = checkpoint.load(checkpoint.listed(tmp_path / "run/checkpoints")[0])["game"]["best"]["network"]
    assert all(torch.equal(live[name.removeprefix("network.")], value) for name, value in last.items())


def test_weights_that_nobody_looked_for_are_not_there(distil, tmp_path):
    distil("run.steps=1")
    with pytest.raises(UsageError, match="has not looked for the weights that agree best"):
        distil(
            "run.headline=agreement", "run.steps=1", options=runs.Options("tiny", quiet=True, accept=("run.headline",))
        )


def test_teachers_are_chosen_by_labels(tmp_path):
    for value in ("run.headline=agreement", "run.patience=2"):
        with pytest.raises(RecipeError, match=value.partition("=")[0]):
            load("teachers/scenes", [value], "teach")


def test_what_is_kept_is_a_copy(tiny):
    game = tiny.game("dfad")
    game.play(0)
    game.monitor.offer(0.5, 1, game.monitor.measured("ema"))
    before = hash_of(game.monitor.best.network)
    game.play(1)
    assert hash_of(game.monitor.best.network) == before and not any(
        v.requires_grad for v in game.monitor.best.network.values()
    )
    game.monitor.offer(0.4, 2, game.monitor.measured("ema"))
    assert (game.monitor.best.step, game.monitor.best.since) == (1, 1)
    other = tiny.game("dfad")
    other.restore(game.state())
    assert torch.equal(*(next(iter(each.monitor.best.network.values())) for each in (game, other)))
    assert hash_of(other.state()) == hash_of(game.state())


def test_a_run_of_which_no_update_was_accepted_is_not_done(distil, tmp_path, monkeypatch):
    monkeypatch.setattr(DFAD, "kd", lambda self, v: v.s.mean() * math.nan)
    with pytest.raises(
        NumbersError, match=r"run: all \d+ updates of the student were refused .* it has learnt nothing"
    ):
        distil("run.steps=2", "run.max_bad=99")
    assert not (tmp_path / "run/summary.json").exists()


@pytest.mark.parametrize(
    ("key", "near"),
    [("run.stps", ", did you mean run.steps?"), ("foo", "; name one as"), ("game", None), ("weights.kd", None)],
)
def test_what_is_to_be_accepted_has_to_be_a_key(distil, key, near):
    options = runs.Options("tiny", quiet=True, accept=(key,))
    if near is None:
        assert distil("run.steps=1", options=options)["steps"] == 1
        return
    with pytest.raises(UsageError) as caught:
        distil("run.steps=1", options=options)
    assert str(caught.value).startswith(f"--accept {key}: no such key{near}")
