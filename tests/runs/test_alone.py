"""One run at a time draws from torch's generator, and what other threads do is none of it."""

import threading

import pytest

from segkd import load_student, runs
from segkd.foundation import audit
from segkd.foundation.errors import UsageError
from segkd.foundation.rng import alone
from segkd.runs.trained import load_model
from segkd.training.distiller import Distiller
from tests.waiting import PATIENCE

pytestmark = pytest.mark.usefixtures("own_threads")
QUIET = runs.Options(name="tiny", quiet=True)


@pytest.fixture
def distil(tiny, tmp_path):
    def run(name, *overrides):
        recipe = tiny.recipe("noise", "run.steps=2", "run.threads=1", f"run.dir={tmp_path / name}", *overrides)
        return runs.distill(recipe, QUIET)

    return run


def elsewhere(action):
    """What an action in another thread returns, or raises."""
    found = []

    def run():
        try:
            found.append(action())
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return found[0]


def test_a_second_run_in_the_process_is_refused_and_the_first_one_is_its_own(tiny, tmp_path, distil, monkeypatch):
    """Two that share torch's generator end in other results than one alone, and nobody would know."""
    wanted = distil("alone")["agreement"]
    play, answers = Distiller.play, []

    def meddled(game, step):
        if step == 1:
            answers.append(elsewhere(lambda: distil("other")))
            answers.append(elsewhere(lambda: load_student(tmp_path / "alone")))
            answers.append(elsewhere(lambda: load_model(tiny.path, "teacher")))
            with pytest.raises(UsageError, match="another run goes on in this process"):
                distil("nested")
        return play(game, step)

    with monkeypatch.context() as patch:
        patch.setattr(Distiller, "play", meddled)
        assert distil("first")["agreement"] == wanted
    assert len(answers) == 3
    for answer in answers:
        assert isinstance(answer, UsageError) and "another run goes on in this process" in str(answer)
        assert "\n" not in str(answer)
    assert not (tmp_path / "other").exists()
    assert distil("afterwards")["agreement"] == wanted
    assert elsewhere(lambda: distil("other"))["agreement"] == wanted


def test_a_run_that_fails_lets_others_run(distil):
    with pytest.raises(Exception, match="teacher"):
        distil("wrong", "teacher.weights=/nowhere.safetensors")
    assert distil("right")["steps"] == 2


def test_images_that_another_thread_opens_are_not_the_runs(tiny, distil, monkeypatch):
    play, go, looked = Distiller.play, threading.Event(), threading.Event()

    def other():
        go.wait(PATIENCE)
        (tiny.folder / "camvid" / "train" / "0.png").read_bytes()
        looked.set()

    stranger = threading.Thread(target=other)
    stranger.start()

    def meanwhile(game, step):
        go.set()
        assert looked.wait(PATIENCE)
        return play(game, step)

    monkeypatch.setattr(Distiller, "play", meanwhile)
    before = audit.count("none")
    assert distil("run")["real_images_for_training"] == 0 and audit.count("none") == before + 1


def test_a_run_keeps_the_generator_even_from_itself():
    with alone(), pytest.raises(UsageError, match="another run goes on"), alone():
        pass
    with alone():
        pass
