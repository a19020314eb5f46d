"""Steps for a budget: the median of a few played ones, after one that warms up."""

import pytest

from segkd.training import plan


@pytest.fixture
def clocked(monkeypatch):
    """steps_for with steps that take as long as they are told to."""

    def run(budget, seconds, **options):
        now, played = [0.0], []
        monkeypatch.setattr(plan.time, "perf_counter", lambda: now[0])

        def play(step):
            played.append(step)
            now[0] += seconds[step]

        return plan.steps_for(budget, play, **options), played

    return run


@pytest.mark.parametrize(
    ("budget", "seconds", "steps"),
    [
        (10, [0.5, 0.5, 0.5, 0.5], 20),
        (10, [100, 0.5, 0.5, 0.5], 20),  # the first step warms up
        (10, [1, 0.5, 7, 0.25], 20),  # one hiccup does not halve the run
        (10, [1, 3, 3, 3], 3),  # whole steps, never over the budget
        (1, [9, 9, 9, 9], 1),  # at least one
    ],
)
def test_steps_that_fit(clocked, budget, seconds, steps):
    assert clocked(budget, seconds) == (steps, [0, 1, 2, 3])


def test_more_trials(clocked):
    assert clocked(6, [1, 1, 2, 2, 3, 3], trials=5) == (3, [0, 1, 2, 3, 4, 5])
