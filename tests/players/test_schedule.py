"""Learning rates as functions of the step: known points, the end, and how a recipe's block leads to them."""

import math

import pytest

from segkd.builders.player import factor_of
from segkd.recipe.blocks import Schedule


@pytest.mark.parametrize(
    ("schedule", "points"),
    [
        (Schedule(name="constant"), {0: 1, 50: 1, 99: 1}),
        (Schedule(name="poly", power=0.9), {0: 1, 50: 0.5**0.9, 99: 0.01**0.9, 100: 0}),
        (Schedule(name="cosine"), {0: 1, 25: (1 + math.sqrt(0.5)) / 2, 50: 0.5, 100: 0}),
        (
            Schedule(name="step", every=1 / 4, gamma=0.3),
            {0: 1, 24: 1, 25: 0.3, 49: 0.3, 50: 0.09, 75: 0.027, 99: 0.027},
        ),
        (Schedule(name="constant", warmup=4), {0: 0.25, 1: 0.5, 3: 1, 4: 1, 99: 1}),
        (Schedule(name="poly", power=1.0, warmup=10), {0: 0.1, 4: 0.5 * 0.96, 20: 0.8}),
    ],
)
def test_schedules_at_known_points(schedule, points):
    for step, wanted in points.items():
        assert factor_of(schedule, 100)(step) == pytest.approx(wanted, abs=1e-12), step


def test_schedules_at_the_end_and_beyond():
    for name in ("poly", "cosine"):
        falls = Schedule(name=name)
        assert factor_of(falls, 1)(1) == factor_of(falls, 100)(130) == 0 and factor_of(falls, 0)(0) == 1
    assert factor_of(Schedule(name="step", every=0.5, gamma=0.3), 100)(130) == pytest.approx(0.3)
    # A fourth stage of the last half of a percent is one that was asked for.
    assert factor_of(Schedule(name="step", every=1 / 3.015, gamma=0.1), 1000)(996) == pytest.approx(1e-3)


@pytest.mark.parametrize("steps", [3, 100, 15_000])
@pytest.mark.parametrize("every", [1 / 3, 0.3333, 0.333])
def test_thirds_are_three_stages_however_they_are_written(every, steps):
    factor = factor_of(Schedule(name="step", every=every, gamma=0.1), steps)
    stages = {round(factor(step), 9) for step in range(steps)}
    assert stages == {1.0, 0.1, 0.01}
    assert factor_of(Schedule(name="step", every=1.0), steps)(steps - 1) == 1
