"""The spine with a tiny game: due events, signals, and a resumed run that equals the uninterrupted one byte for byte."""

import math
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from segkd.foundation.errors import NumbersError, Stopped, StorageError, UsageError
from segkd.foundation.rng import seed_for
from segkd.recipe import differences
from segkd.training import checkpoint, resume
from segkd.training.game import Events
from segkd.training.log import RunLog, read_lines
from segkd.training.loop import Loop
from segkd.training.resume import ResumePoint
from segkd.training.rhythm import Plan, Seconds
from segkd.training.signals import Interrupted, StopFlag

RECIPE = {
    "method": "walk",
    "student": {"lr": 0.1},
    "data": {"root": "a", "final": "test"},
    "run": {"steps": 12, "keep": 2, "dir": "x"},
}
NOTHING = Events()


class Walk:
    """A random walk with momentum: every step depends on all before it."""

    precision = "fp32"
    attempt = 0

    def __init__(self, signal_at: int | None = None, number: int = signal.SIGTERM, nan_at: int | None = None) -> None:
        self.x, self.velocity, self.played = torch.zeros(8), torch.zeros(8), []
        self.signal_at, self.number, self.nan_at, self.best = signal_at, number, nan_at, -math.inf
        self.notes: list[str] = []

    def play(self, step: int) -> dict[str, float]:
        generator = torch.Generator().manual_seed(seed_for(self.attempt, step, 0, "walk"))
        self.velocity = 0.9 * self.velocity + torch.randn(8, generator=generator)
        self.x = self.x + 0.1 * self.velocity
        self.played.append(step)
        if step == self.signal_at:
            os.kill(os.getpid(), self.number)
        if step == self.nan_at:
            self.x[3] = math.nan
        return {"loss": float(self.x.norm())}

    def look(self, step: int) -> dict[str, object]:
        self.best = max(self.best, -float(self.x.norm()))
        return {"val": self.best}

    def vitals(self) -> tuple[dict[str, float], str | None]:
        return {}, None

    def state(self) -> dict:
        return {"x": self.x, "velocity": self.velocity, "best": self.best, "attempt": self.attempt}

    def restore(self, state: dict) -> None:
        self.x, self.velocity, self.best = state["x"], state["velocity"], state["best"]
        self.attempt = state["attempt"]


def plan(steps: int = 12, save: int = 3, look: int = 4, sample: int = 5, keep: int = 2, rollback: int = 0) -> Plan:
    return Plan(steps, save, look, sample, keep, rollback, log_every=1)


def go(
    folder: Path, game: Walk, rhythm: Plan | None = None, events: Events = NOTHING, recipe: dict = RECIPE,
    choice: str = "auto", accept: tuple[str, ...] = (), said: list[str] | None = None,
) -> int:  # fmt: skip
    """Resume and run in `folder`; returns the step that it started from."""
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    rhythm, heard = rhythm or plan(), said if said is not None else []
    start = resume.restore(game, folder, recipe, differences, choice, accept, heard.append)
    diary = RunLog(folder / "metrics.jsonl", rhythm.steps, start.step, quiet=True)
    with StopFlag().listening() as stop:
        Loop(game, start, rhythm, events, diary, folder, recipe, stop).run()
    return start.step


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in checkpoint.listed(folder / "checkpoints")}


def last_file(folder: Path) -> tuple[str, bytes]:
    return next(iter(files(folder).items()))


def diary_of(folder: Path) -> list[dict]:
    return [{k: v for k, v in line.items() if k != "seconds"} for line in read_lines(folder / "metrics.jsonl")]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    game = Walk()
    assert go(folder, game, events=Events(game.look)) == 0
    assert game.played == list(range(12))
    return folder


def test_events_come_when_due_and_after_the_last_step(tmp_path):
    looked, sampled = [], []
    go(tmp_path, Walk(), plan(steps=11), Events(lambda step: looked.append(step) or {"val": 0.5}, sampled.append))
    assert looked == [4, 8, 11]
    assert sampled == [5, 10, 11]
    assert [path.name.split("-")[1] for path in checkpoint.listed(tmp_path / "checkpoints")] == ["00000011", "00000009"]


def test_the_diary_tells_the_last_step_whatever_its_number(tmp_path):
    game = Walk()
    go(tmp_path, game, Plan(13, 100, 100, 100, 1, log_every=5))
    assert [line["step"] for line in read_lines(tmp_path / "metrics.jsonl") if "loss" in line] == [5, 10, 13]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("at", [0, 1, 4, 5, 10])
def test_a_resumed_run_equals_the_uninterrupted_one(tmp_path, whole, at, number):
    game = Walk(signal_at=at, number=number)
    with pytest.raises(Stopped) as caught:
        go(tmp_path, game, events=Events(game.look))
    assert caught.value.exit_code == 128 + number
    assert game.played == list(range(at + 1))
    again = Walk()
    assert go(tmp_path, again, events=Events(again.look)) == at + 1
    assert again.played == list(range(at + 1, 12))
    assert last_file(tmp_path) == last_file(whole)
    assert diary_of(tmp_path) == diary_of(whole)


@pytest.mark.parametrize("at", [3, 7, 11])
def test_a_look_that_a_signal_forestalled_is_made_up_for(tmp_path, whole, at):
    game = Walk(signal_at=at)
    with pytest.raises(Stopped):
        go(tmp_path, game, events=Events(game.look))
    again = Walk()
    go(tmp_path, again, events=Events(again.look))
    assert files(tmp_path) == files(whole)
    assert diary_of(tmp_path) == diary_of(whole)


@pytest.mark.parametrize("when", ["in an evaluation", "between evaluation and sample", "in a sample"])
@pytest.mark.parametrize("at", [6, 12])
def test_a_signal_in_a_look_leaves_no_trace(tmp_path, at, when):
    """Saves, looks and samples are due at once, at the last step too."""

    def played(folder, when=None):
        game = Walk()

        def look(step):
            if step == at and when in ("in an evaluation", "between evaluation and sample"):
                os.kill(os.getpid(), signal.SIGTERM)
            if step == at and when == "in an evaluation":
                raise Stopped(signal.SIGTERM)
            return game.look(step) | {"notes": [f"seen at {step}"]}

        def sample(step):
            if step == at and when == "in a sample":
                os.kill(os.getpid(), signal.SIGTERM)

        return go(tmp_path / folder, game, plan(look=3, sample=3), Events(look, sample))

    played("whole")
    notes = [line["step"] for line in diary_of(tmp_path / "whole") if "note" in line]
    assert notes == [3, 6, 9, 12]
    with suppress(Stopped):  # where all that was due was done in the last step, it is the caller who notices
        played("stopped", when)
    assert played("stopped") == at
    assert files(tmp_path / "stopped") == files(tmp_path / "whole")
    assert diary_of(tmp_path / "stopped") == diary_of(tmp_path / "whole")


class Strides(Walk):
    """A walk whose steps have parts, with a signal in one of them."""

    def __init__(self, signal_at: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.part, self.signal_in = 0, signal_at

    def play(self, step: int) -> dict[str, float]:
        while self.part < 4:
            if self.part and self.stopping():
                raise Interrupted
            values = super().play(step)
            if (step, self.part) == self.signal_in:
                os.kill(os.getpid(), signal.SIGTERM)
            self.part += 1
        self.part = 0
        return values

    def state(self) -> dict:
        return super().state() | {"part": self.part}

    def restore(self, state: dict) -> None:
        super().restore(state)
        self.part = state["part"]


@pytest.mark.parametrize("at", [(0, 0), (3, 2), (4, 0), (4, 3), (8, 1)])
def test_a_signal_within_a_step_keeps_what_is_finished_of_it(tmp_path, at):
    whole, stopped, again = Strides(), Strides(at), Strides()
    go(tmp_path / "whole", whole, events=Events(whole.look))
    with pytest.raises(Stopped):
        go(tmp_path / "parts", stopped, events=Events(stopped.look))
    assert len(stopped.played) == 4 * at[0] + at[1] + 1
    assert go(tmp_path / "parts", again, events=Events(again.look)) == at[0] + (at[1] == 3)
    assert len(stopped.played) + len(again.played) == 4 * 12
    assert files(tmp_path / "parts") == files(tmp_path / "whole")
    assert diary_of(tmp_path / "parts") == diary_of(tmp_path / "whole")


def test_a_killed_run_goes_on_from_its_last_checkpoint(tmp_path, whole):
    class Killed(Exception):
        pass

    class Doomed(Walk):
        def play(self, step: int) -> dict[str, float]:
            if step == 8:
                raise Killed
            return super().play(step)

    game, again = Doomed(), Walk()
    with pytest.raises(Killed):
        go(tmp_path, game, events=Events(game.look))
    assert go(tmp_path, again, events=Events(again.look)) == 6
    assert files(tmp_path) == files(whole)
    assert diary_of(tmp_path) == diary_of(whole)


def test_a_signal_in_the_last_step_finds_the_run_finished(tmp_path, whole):
    game = Walk(signal_at=11)
    go(tmp_path, game)
    assert checkpoint.newest(tmp_path / "checkpoints")[0]["step"] == 12


def test_what_a_step_has_to_say_is_written_at_once_and_once(tmp_path, capsys):
    class Wordy(Walk):
        def play(self, step: int) -> dict[str, float]:
            if step in (2, 3, 7):
                self.notes += [f"step {step}: one", f"step {step}: two"]
            return super().play(step)

    game = Wordy(signal_at=7)
    with pytest.raises(Stopped):
        go(tmp_path, game, events=Events(game.look))
    again = Wordy()
    go(tmp_path, again, events=Events(again.look))
    told = [(line["step"], line["note"]) for line in diary_of(tmp_path) if "note" in line]
    assert told == [(step + 1, f"step {step}: {which}") for step in (2, 3, 7) for which in ("one", "two")]
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: step ")]
    assert said == [f"warning: {note}" for _, note in told]


def test_what_was_said_before_a_rollback_is_not_repeated(tmp_path, capsys):
    class Wordy(Sick):
        def play(self, step: int) -> dict[str, float]:
            if step == 7 and not self.attempt:
                self.notes.append("step 7: refused")
                raise NumbersError("step 7: diverged")
            return super().play(step)

    go(tmp_path, Wordy(range(0)), plan(rollback=1))
    assert capsys.readouterr().err.splitlines() == [
        "warning: step 7: refused", "warning: rolled back to step 6: step 7: diverged"
    ]  # fmt: skip
    assert not [line for line in diary_of(tmp_path) if "note" in line]  # that step is no part of the run any more


class Late(Walk):
    """What there is to say of a step is said at the end of the next one, or when the state is asked for."""

    def __init__(self, bad: tuple[int, ...], raising: bool = False, **options) -> None:
        super().__init__(**options)
        self.bad, self.raising, self.owed = bad, raising, []

    def play(self, step: int) -> dict[str, float]:
        values = super().play(step)
        self.say()
        self.owed += [step] if step in self.bad and not self.attempt else []
        return values

    def say(self) -> None:
        owed, self.owed = self.owed, []
        for step in owed:
            if self.raising:
                raise NumbersError(f"step {step}: diverged")
            self.notes.append(f"step {step}: refused")

    def state(self) -> dict:
        self.say()
        return super().state()


def test_what_is_said_late_is_written_no_later_than_the_next_checkpoint(tmp_path):
    with pytest.raises(Stopped):
        go(tmp_path, Late((1, 2, 6, 7), signal_at=7), plan(steps=10, save=3))
    go(tmp_path, Late((9,)), plan(steps=10, save=3))
    told = [(line["step"], line["note"]) for line in diary_of(tmp_path) if "note" in line]
    assert told == [(step, f"step {bad}: refused") for bad, step in ((1, 3), (2, 3), (6, 8), (7, 8), (9, 10))]


@pytest.mark.parametrize(("bad", "played"), [(1, 3), (2, 3)])
def test_a_run_that_ends_late_is_gone_back_from_and_keeps_no_checkpoint_of_it(tmp_path, bad, played):
    """In the next step, or where the state of that step would be saved."""
    game = Late((bad,), raising=True)
    go(tmp_path, game, plan(rollback=1))
    assert game.played == [*range(played), *range(12)]
    (line,) = (line for line in diary_of(tmp_path) if "rolled_back" in line)
    assert (line["step"], line["rolled_back"]) == (0, f"step {bad}: diverged")


@pytest.mark.parametrize("rollback", [0, 1])
def test_a_state_that_cannot_be_saved_is_gone_back_from(tmp_path, whole, rollback):
    class Once(Walk):
        def play(self, step: int) -> dict[str, float]:
            self.nan_at = 8 if self.attempt == 0 else None
            return super().play(step)

    game = Once()
    if not rollback:
        with pytest.raises(NumbersError, match="step 9: game.x is not finite"):
            go(tmp_path, game)
        assert checkpoint.newest(tmp_path / "checkpoints")[0]["step"] == 6
        return
    go(tmp_path, game, plan(rollback=1))
    assert game.played == [*range(9), *range(6, 12)] and torch.isfinite(final_x(tmp_path)).all()
    (why,) = (line["rolled_back"] for line in diary_of(tmp_path) if "rolled_back" in line)
    assert why.startswith("step 9: game.x is not finite")


def test_a_finished_run_plays_no_more(tmp_path, whole):
    game = Walk()
    assert go(whole, game) == 12
    assert game.played == []


def test_a_damaged_newest_checkpoint_is_passed_over_with_a_warning(tmp_path, whole):
    game = Walk(signal_at=7)
    with pytest.raises(Stopped):
        go(tmp_path, game)
    newest = checkpoint.listed(tmp_path / "checkpoints")[0]
    newest.write_bytes(newest.read_bytes()[:-1])
    said: list[str] = []
    assert go(tmp_path, Walk(), said=said) == 6
    assert len(said) == 1
    assert str(newest) in said[0]
    assert torch.equal(checkpoint.newest(tmp_path / "checkpoints")[0]["game"]["x"], final_x(whole))


def final_x(folder: Path) -> torch.Tensor:
    return checkpoint.newest(folder / "checkpoints")[0]["game"]["x"]


def test_a_checkpoint_may_be_named(tmp_path, whole):
    rhythm = plan(keep=9)
    go(tmp_path, Walk(), rhythm)
    third = checkpoint.listed(tmp_path / "checkpoints")[-2]
    assert "step-00000003" in third.name
    assert go(tmp_path, Walk(), rhythm, choice=str(third)) == 3
    assert torch.equal(final_x(tmp_path), final_x(whole))
    with pytest.raises(StorageError, match="cannot read"):
        go(tmp_path, Walk(), choice=str(third.with_name(f"step-00000004-{'0' * 64}.ckpt")))


def test_never_does_not_overwrite_a_run(tmp_path):
    assert go(tmp_path / "new", Walk(), choice="never") == 0
    before = files(tmp_path / "new")
    with pytest.raises(UsageError, match="holds a run already") as caught:
        go(tmp_path / "new", Walk(), choice="never")
    assert "\n" not in str(caught.value)
    assert files(tmp_path / "new") == before


def changed(**blocks: dict) -> dict:
    return {
        key: {**value, **blocks.get(key, {})} if isinstance(value, dict) else value for key, value in RECIPE.items()
    }


def test_a_changed_recipe_is_refused_by_the_name_of_its_key(whole):
    recipe, game = changed(student={"lr": 0.2}, run={"steps": 20}), Walk()
    with pytest.raises(UsageError, match="student.lr") as caught:
        go(whole, game, recipe=recipe)
    assert "run.steps" in str(caught.value)
    assert "--accept" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2
    assert game.x.abs().max() == 0  # nothing was restored
    with pytest.raises(UsageError, match="run.steps") as caught:
        go(whole, Walk(), recipe=recipe, accept=("student.lr",))
    assert "student.lr" not in str(caught.value)
    assert go(whole, Walk(), recipe=recipe, accept=("student.lr", "run.steps")) == 12


def test_what_does_not_matter_to_the_game_may_change(whole):
    recipe = changed(data={"root": "b", "final": None}, run={"dir": "y", "save_every": 7})
    assert go(whole, Walk(), recipe=recipe) == 12


def test_another_number_of_threads_is_a_warning_that_names_it(whole):
    threads, said = torch.get_num_threads(), []
    torch.set_num_threads(threads + 1)
    try:
        assert go(whole, Walk(), said=said) == 12
    finally:
        torch.set_num_threads(threads)
    assert len(said) == 1
    assert said[0].startswith(f"warning: threads was {threads} and is {threads + 1}")


def test_another_precision_is_a_warning_that_names_it(whole):
    game, said = Walk(), []
    game.precision = "bf16"
    assert go(whole, game, said=said) == 12
    assert [line.partition(":")[2] for line in said] == [
        " precision was fp32 and is bf16: the run goes on, but not to equal bytes"
    ]


def test_numbers_that_went_wrong_leave_the_good_checkpoints(tmp_path):
    with pytest.raises(NumbersError, match="game.x is not finite"):
        go(tmp_path, Walk(nan_at=7))
    assert checkpoint.newest(tmp_path / "checkpoints")[0]["step"] == 6


class Sick(Walk):
    """A walk that goes wrong in some steps of its first attempts: seen when it is watched, or at once."""

    def __init__(self, steps: range, attempts: int = 1, at_once: bool = False) -> None:
        super().__init__()
        self.steps, self.attempts, self.at_once, self.watched = steps, attempts, at_once, []

    def play(self, step: int) -> dict[str, float]:
        if self.at_once and step in self.steps and self.attempt < self.attempts:
            raise NumbersError(f"step {step}: diverged")
        return super().play(step)

    def vitals(self) -> tuple[dict[str, float], str | None]:
        done = self.played[-1] + 1
        self.watched.append(done)
        ill = not self.at_once and done in self.steps and self.attempt < self.attempts
        return {"health": float(not ill)}, "collapsed: all alike" if ill else None


def wrongs(folder: Path) -> list[int]:
    return [line["step"] for line in diary_of(folder) if "wrong" in line]


def test_what_goes_wrong_is_named_and_without_rollback_goes_on(tmp_path, capsys):
    game = Sick(range(7, 12))
    go(tmp_path, game)
    assert game.played == list(range(12)) and game.watched == [3, 6, 9, 12]  # whenever it is saved
    assert [line["health"] for line in diary_of(tmp_path) if "health" in line] == [1, 1, 0, 1]
    assert wrongs(tmp_path) == [9]
    assert capsys.readouterr().err == "warning: step 9: collapsed: all alike\n"


@pytest.mark.parametrize("rollback", [0, 1])
def test_a_game_that_never_was_well_may_take_half_of_the_run(tmp_path, rollback):
    game = Sick(range(13), attempts=9)
    go(tmp_path, game, plan(rollback=rollback))
    assert game.played == list(range(12)) and wrongs(tmp_path) == [6, 9, 12]


@pytest.mark.parametrize("at_once", [False, True])
def test_what_goes_wrong_is_rolled_back_to_other_random_numbers(tmp_path, whole, capsys, at_once):
    game = Sick(range(8, 10), at_once=at_once)
    go(tmp_path, game, plan(rollback=1))
    assert game.played == [*range(8 if at_once else 9), *range(6, 12)] and game.attempt == 1
    assert not torch.equal(final_x(tmp_path), final_x(whole))
    lines = diary_of(tmp_path)
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, 13))
    why = "step 8: diverged" if at_once else "collapsed: all alike"
    assert [(line["step"], line["rolled_back"]) for line in lines if "rolled_back" in line] == [(6, why)]
    assert capsys.readouterr().err.splitlines()[-1] == f"warning: rolled back to step 6: {why}"


def test_a_run_killed_after_a_rollback_makes_the_same_new_attempt(tmp_path):
    class Killed(Exception):
        pass

    class Doomed(Sick):
        def play(self, step: int) -> dict[str, float]:
            if self.attempt and step == 7:
                raise Killed
            return super().play(step)

    go(tmp_path / "whole", Sick(range(8, 10)), plan(rollback=1))
    with pytest.raises(Killed):
        go(tmp_path / "killed", Doomed(range(8, 10)), plan(rollback=1))
    again = Sick(range(8, 10))
    assert go(tmp_path / "killed", again, plan(rollback=1)) == 6
    assert again.played == list(range(6, 12))
    assert files(tmp_path / "killed") == files(tmp_path / "whole")
    assert diary_of(tmp_path / "killed") == diary_of(tmp_path / "whole")


@pytest.mark.parametrize("at_once", [False, True])
def test_when_no_rollback_is_left_the_run_stops_and_keeps_what_was_good(tmp_path, at_once):
    game = Sick(range(8, 10), attempts=9, at_once=at_once)
    with pytest.raises(NumbersError, match=r"\(rolled back 2 times already: run.rollback 2\)") as caught:
        go(tmp_path, game, plan(rollback=2))
    assert caught.value.exit_code == 4 and "\n" not in str(caught.value)
    assert checkpoint.newest(tmp_path / "checkpoints")[0]["step"] == 6
    assert game.played == [*range(8 if at_once else 9), *([6, 7] if at_once else [6, 7, 8]) * 2]


def test_a_folder_that_takes_no_checkpoint_fails_before_the_first_step(tmp_path):
    game = Walk()
    diary = RunLog(tmp_path / "metrics.jsonl", 12, quiet=True)
    with pytest.raises(StorageError):
        Loop(game, ResumePoint(0), plan(), Events(), diary, tmp_path / "nowhere", RECIPE, StopFlag()).run()
    assert game.played == []


def test_the_environment_can_be_loaded_without_pickle(tmp_path):
    here = resume.environment(Walk())
    path = checkpoint.save(tmp_path, 0, {"environment": here}, 1)
    assert checkpoint.load(path)["environment"] == here
    assert here.keys() == {"torch", "threads", "cpu", "machine", "precision", "processes"}
    assert all(type(value) in (str, int) for value in here.values())


class Slow(Walk):
    """A step takes as long as it says, by a clock of its own."""

    def __init__(self, seconds: float = 8.0, **options) -> None:
        super().__init__(**options)
        self.seconds, self.now = seconds, 0.0

    def play(self, step: int) -> dict[str, float]:
        self.now += self.seconds
        return super().play(step)


def test_a_run_whose_rhythm_is_a_time_saves_as_if_it_had_been_given_in_steps(tmp_path, monkeypatch):
    """Decided by its first steps, kept in its checkpoints, and the same to its end however long later steps take."""
    now = Slow(signal_at=10)
    given = Plan(30, Seconds(50), Seconds(70), Seconds(90), 9, log_every=1)
    looked: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(time, "perf_counter", lambda: now.now)
        with pytest.raises(Stopped):
            go(tmp_path / "run", now, given, Events(lambda step: looked.append(step) or {}))
    assert looked == [8] and [path.name[:13] for path in checkpoint.listed(tmp_path / "run" / "checkpoints")] == [
        "step-00000011", "step-00000006", "step-00000000"
    ]  # fmt: skip
    go(tmp_path / "run", Walk(), given, Events(lambda step: looked.append(step) or {}))
    assert looked == [8, 16, 24, 30]
    go(tmp_path / "steps", Walk(), Plan(30, 6, 8, 11, 9))
    saved = [files(tmp_path / name) for name in ("run", "steps")]
    steps = [[int(name.split("-")[1]) for name in found] for found in saved]
    assert steps == [[30, 24, 18, 12, 11, 6, 0], [30, 24, 18, 12, 6, 0]]
    assert torch.equal(final_x(tmp_path / "run"), final_x(tmp_path / "steps"))
    assert "rhythm" not in checkpoint.newest(tmp_path / "steps" / "checkpoints")[0]
