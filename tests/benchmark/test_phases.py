"""The phases of a step are all of its time, each second once."""

import time

import pytest
import torch

from segkd.benchmark.phases import NAMES, Phases, watched

CPU = torch.device("cpu")


def test_inner_phases_count_for_themselves():
    phases = Phases(CPU)
    inner = phases.timed("teacher", lambda: time.sleep(0.05))

    def outer():
        time.sleep(0.02)
        inner()
        time.sleep(0.02)

    phases.timed("rest", outer)()
    assert 0.05 <= phases.seconds["teacher"] < 0.07 and 0.04 <= phases.seconds["rest"] < 0.06


def test_an_error_leaves_its_phase():
    phases = Phases(CPU)

    def broken():
        raise ArithmeticError("on purpose")

    def outer():
        with pytest.raises(ArithmeticError):
            phases.timed("teacher", broken)()
        time.sleep(0.02)

    phases.timed("rest", outer)()
    assert phases.seconds["rest"] >= 0.02 > phases.seconds["teacher"]


def test_the_phases_of_a_step_are_its_time_and_change_nothing(tiny):
    plain, game = tiny.game("ddad.segkd"), tiny.game("ddad.segkd")
    phases = watched(game, CPU)
    plain.play(0)
    began = time.perf_counter()
    game.play(0)
    whole = time.perf_counter() - began
    assert sum(phases.seconds.values()) == pytest.approx(whole, rel=0.05)
    assert all(phases.seconds[name] > 0 for name in NAMES)
    assert tiny.hash(plain.student.network) == tiny.hash(game.student.network)
