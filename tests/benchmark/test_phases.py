"""The phases of a step are all of its time, each second once."""

import itertools

import pytest
import torch

from segkd.benchmark import phases
from segkd.benchmark.phases import NAMES, Phases, watched

CPU = torch.device("cpu")


@pytest.fixture
def clock(monkeypatch):
    """What the phases take for the time: a list whose one number tests turn."""
    now = [100.0]
    monkeypatch.setattr(phases.time, "perf_counter", lambda: now[0])
    return now


def passing(clock, seconds):
    def work():
        clock[0] += seconds

    return work


def test_inner_phases_count_for_themselves(clock):
    phases = Phases(CPU)
    inner = phases.timed("teacher", passing(clock, 5))

    def outer():
        clock[0] += 2
        inner()
        clock[0] += 3

    phases.timed("rest", outer)()
    clock[0] += 7  # of no phase
    phases.timed("teacher", passing(clock, 1))()
    assert phases.seconds == dict.fromkeys(NAMES, 0.0) | {"teacher": 6, "rest": 5}


def test_an_error_leaves_its_phase(clock):
    phases = Phases(CPU)

    def broken():
        raise ArithmeticError("on purpose")

    def outer():
        with pytest.raises(ArithmeticError):
            phases.timed("teacher", broken)()
        clock[0] += 2

    phases.timed("rest", outer)()
    assert phases.seconds["rest"] == 2 and phases.seconds["teacher"] == 0


def test_the_phases_of_a_step_are_its_time_and_change_nothing(tiny, monkeypatch):
    """By a clock on which a second passes at each look at it: every turn from phase to phase is counted once."""
    ticks = itertools.count()
    monkeypatch.setattr(phases.time, "perf_counter", lambda: float(next(ticks)))
    plain, game = tiny.game("ddad.segkd"), tiny.game("ddad.segkd")
    seen = watched(game, CPU)
    plain.play(0)
    game.play(0)
    assert sum(seen.seconds.values()) == next(ticks) - 1
    assert all(seen.seconds[name] > 0 for name in NAMES)
    assert tiny.hash(plain.student.network) == tiny.hash(game.student.network)
