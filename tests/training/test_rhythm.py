"""Times between saves, looks and samples become steps once, and stay so."""

import itertools
import time

import pytest

from segkd.training.rhythm import TRIALS, Plan, Seconds, StepTimer


def plan(save=Seconds(180), look=Seconds(300), sample=7, steps=1000) -> Plan:
    return Plan(steps, save, look, sample, keep=2)


def test_a_time_is_due_after_the_last_step_only():
    given = plan()
    assert given.undecided == {"save_every": 180, "eval_every": 300}
    assert [done for done in range(1, 1001) if given.due(given.save_every, done)] == [1000]
    assert [done for done in range(1, 20) if given.due(given.sample_every, done)] == [7, 14]


def test_at_a_pace_a_time_is_as_many_whole_steps_as_it_lasts():
    decided = plan().at_pace(8.0)
    assert (decided.save_every, decided.eval_every, decided.sample_every) == (22, 37, 7)
    assert not decided.undecided and decided.due(decided.save_every, 44)
    assert decided.decided == {"save_every": [180.0, 22], "eval_every": [300.0, 37]}
    assert decided.at_pace(1.0) == decided
    slow = plan().at_pace(1000.0)
    assert (slow.save_every, slow.eval_every) == (1, 1)
    assert plan().at_pace(0.0).save_every > 1000  # a clock that has seen nothing


def test_what_an_earlier_part_has_decided_holds_for_the_same_times():
    before = plan().at_pace(8.0).decided
    assert plan().as_before(before) == plan().at_pace(8.0)
    changed = plan(save=Seconds(60)).as_before(before)
    assert changed.undecided == {"save_every": 60} and changed.eval_every == 37
    assert plan(save=5, look=6).as_before(before) == plan(save=5, look=6)
    assert plan().as_before({}) == plan()


def test_a_plan_in_steps_has_nothing_to_keep():
    assert plan(save=1, look=2).decided == {} == plan(save=1, look=2).at_pace(1.0).decided


@pytest.fixture
def clock(monkeypatch):
    """From `clock(t0, t1, ...)` on each look at the clock shows the next of these times."""

    def shows(*times: float) -> None:
        monkeypatch.setattr(time, "perf_counter", itertools.chain(times).__next__)

    return shows


def test_the_first_steps_tell_without_the_one_that_warms_up(clock):
    clock(0, 20, 28, 36, 44)
    pace, now = StepTimer(), plan()
    for _ in range(TRIALS - 1):
        now = pace.after_step(now)
        assert now.undecided
    assert pace.after_step(now) == plan().at_pace(8.0)


@pytest.mark.parametrize("times", [(0, 181), (0, 30, 190)])
def test_steps_that_last_are_not_waited_for(clock, times):
    clock(*times)
    pace, now = StepTimer(), plan()
    for _ in times[1:]:
        assert now.undecided
        now = pace.after_step(now)
    assert now.save_every == 1 and not now.undecided
