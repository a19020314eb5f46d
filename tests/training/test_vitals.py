"""What a game tells of its own health: nothing changes by asking, and what goes wrong is named and rolled back."""

import re

import pytest
import torch

from segkd import builders, runs
from segkd.recipe import load
from segkd.training.distiller import Distiller
from segkd.training.log import read_lines
from tests.conftest import hash_of
from tests.faults.harness import TEACH


def alike(game):
    """A generator that has forgotten its latents: what comes in is the same for all, and so is what comes out."""
    with torch.no_grad():
        game.source.network.project.weight.zero_()


def one_class(game):
    with torch.no_grad():
        game.teacher.network.segmentation_head[0].bias[3] += 1e4


def astray(game):
    with torch.no_grad():
        game.student.network.network.segmentation_head[0].weight.mul_(1e4)


@pytest.mark.parametrize("case", ["ddad.segkd", "kd", "noise"])
def test_asking_changes_nothing(tiny, case):
    game = tiny.game(case, "run.batch=4")  # two pictures of four may be one
    game.play(0)
    before, modes = hash_of(game.state()), [m.training for m in game.student.network.modules()]
    seen, wrong = game.vitals()
    assert hash_of(game.state()) == before and [m.training for m in game.student.network.modules()] == modes
    assert wrong is None and game.vitals() == (seen, wrong)
    assert 0 < seen["diversity"] < 2 and 0 < seen["largest_class"] <= 1 and 0 < seen["distance"] < 10


@pytest.mark.parametrize("case", ["ddad.segkd", "ddad.pictures", "dfad", "kd"])
def test_what_the_student_is_shown_is_looked_at_and_nothing_changes(tiny, case):
    game = tiny.game(case, "run.batch=4")
    game.play(0)
    before, modes = hash_of(game.state()), [m.training for m in game.student.network.modules()]
    student = game.monitor.measured("last")
    seen = game.monitor.shown(student)
    assert hash_of(game.state()) == before and [m.training for m in game.student.network.modules()] == modes
    assert game.monitor.shown(student) == seen
    assert all(0 <= seen[key] <= 1 for key in ("agreement_shown", "classes_shown")) and 0 < seen["diversity_shown"] < 2
    assert ("bn_shown" in seen) == case.startswith("ddad")
    assert all(distance > 0 for distance in seen.get("bn_shown", ()))


def test_refined_images_are_looked_at_as_they_are_kept(tiny):
    raw, refined = (tiny.game("ddad.segkd", "synth.augment=[]", f"synth.refine={steps}") for steps in (0, 6))
    near, far = (sum(game.monitor.shown(game.monitor.measured("last"))["bn_shown"]) for game in (refined, raw))
    assert near < 0.9 * far


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (alike, r"collapsed: the synthetic images are all alike \(diversity 0\.000\)"),
        (one_class, r"collapsed: 100\.0 % of the synthetic pixels are road"),
        (astray, r"diverged: the student is \S+ times further from the teacher than a constant would be"),
    ],
)
def test_what_is_wrong_is_named(tiny, fault, words):
    game = tiny.game("ddad.segkd")
    game.play(0)
    fault(game)
    wrong = game.vitals()[1]
    assert re.fullmatch(words, wrong), wrong


def test_images_that_nobody_learns_to_make_cannot_collapse(tiny):
    game = tiny.game("noise")
    one_class(game)
    assert game.vitals()[0]["largest_class"] == 1 and "collapsed" not in str(game.vitals()[1])


def test_a_teacher_that_loses_its_way_is_named(tiny):
    (tiny.folder / "teach.yaml").write_text(TEACH.replace("ROOT", str(tiny.folder / "camvid")))
    recipe = load(tiny.folder / "teach.yaml", ["run.steps=4"], "teach")
    game, _ = builders.teaching_of(recipe, torch.device("cpu"), bf16=False)
    game.play(0)
    before = hash_of(game.state())
    seen, wrong = game.vitals()
    assert hash_of(game.state()) == before and wrong is None and 0 < seen["distance"] < 3
    with torch.no_grad():
        game.player.network.network.segmentation_head[0].weight.mul_(1e4)
    assert game.vitals()[1].startswith("diverged: the loss is ")


@pytest.mark.parametrize("rollback", [0, 1])
def test_a_collapse_in_a_run(tiny, tmp_path, monkeypatch, capsys, own_threads, rollback):
    """Named and logged; with run.rollback the run goes back, and its new attempt is another one."""
    play = Distiller.play

    def collapsing(game, step):
        values = play(game, step)
        if step == 3 and game.attempt == 0:
            alike(game)
        return values

    monkeypatch.setattr(Distiller, "play", collapsing)
    overrides = ["run.steps=6", "run.save_every=2", "run.threads=1", f"run.rollback={rollback}", f"run.dir={tmp_path}"]
    summary = runs.distill(tiny.recipe("ddad.segkd", *overrides), runs.Options(quiet=True))
    lines = read_lines(tmp_path / "metrics.jsonl")
    said = capsys.readouterr().err
    assert "warning: step 4: collapsed: the synthetic images are all alike" in said
    assert summary["rollbacks"] == rollback and summary["steps"] == 6
    assert all("diversity" in line for line in lines if "distance" in line)
    if rollback:
        (back,) = [line for line in lines if "rolled_back" in line]
        assert back["step"] == 2 and back["rolled_back"].startswith("collapsed: ") and "rolled back to step 2" in said
        assert not any("wrong" in line for line in lines)
    else:
        assert any(line.get("wrong", "").startswith("collapsed: ") for line in lines if line["step"] == 4)
