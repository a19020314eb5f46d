"""The count of refused moves, and when a verdict is read."""

import pytest
import torch

from segkd.foundation.errors import NumbersError
from segkd.players.refusals import Refusals, Verdict


def test_refusals_are_named_and_counted():
    refusals = Refusals(2)
    line = refusals.refuse("student", 7, "loss is nan")
    assert line == "step 7: student loss is nan: update refused, nothing changed"
    refusals.refuse("student", 8, "x")
    refusals.accept("student")
    refusals.refuse("student", 9, "x")
    refusals.refuse("student", 10, "x")
    with pytest.raises(NumbersError, match="3 refused updates in a row") as caught:
        refusals.refuse("student", 11, "loss is inf")
    assert "step 11: student loss is inf" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert refusals.total == 5


def test_each_player_counts_for_itself():
    refusals = Refusals(2)
    for step in range(2):
        refusals.refuse("source", step, "x")
        refusals.refuse("student", step, "x")
        refusals.accept("student")
    with pytest.raises(NumbersError, match="step 2: source x, 3 refused updates in a row"):
        refusals.refuse("source", 2, "x")


def test_no_refusal_is_allowed_with_max_bad_0():
    with pytest.raises(NumbersError):
        Refusals(0).refuse("student", 0, "x")


def test_a_resumed_run_goes_on_counting():
    first = Refusals(2)
    first.refuse("source", 1, "x")
    first.accept("source")
    first.refuse("student", 2, "x")
    second = Refusals(2)
    second.restore(first.state())
    assert second.state() == {"total": 2, "in_a_row": {"student": 1}}
    second.refuse("student", 3, "x")
    with pytest.raises(NumbersError):
        second.refuse("student", 4, "x")


def verdict(refused: bool, why: str = "x") -> Verdict:
    return Verdict(torch.tensor(refused), lambda: why)


def test_a_verdict_is_read_at_once_where_that_costs_no_wait():
    refusals = Refusals(1)
    refusals.record("student", 3, verdict(True, "loss is nan"))
    assert refusals.notes == ["step 3: student loss is nan: update refused, nothing changed"] and refusals.total == 1
    with pytest.raises(NumbersError, match="step 4: student x, 2 refused updates in a row"):
        refusals.record("student", 4, verdict(True))


def test_elsewhere_it_is_read_one_step_late_and_in_order(far):
    far()
    refusals = Refusals(2)
    for step, moves in enumerate([(True, True), (False, True), (True, False)]):
        for refused in moves:
            refusals.record("student", step, verdict(refused, f"why {step}"))
        assert refusals.total == (0, 0, 2)[step]  # nothing of this step, nor before its end of the one before
        refusals.end_step()
        assert refusals.total == (0, 2, 3)[step]
    assert refusals.in_a_row == {"student": 1} and len(refusals.notes) == 3 and "why 1" in refusals.notes[2]
    assert refusals.state() == {"total": 4, "in_a_row": {}} and "why 2" in refusals.notes[3]
    refusals.end_step()
    assert refusals.total == 4


def test_too_many_end_the_run_as_soon_as_they_are_read(far):
    far()
    refusals = Refusals(1)
    for step in (0, 1):
        refusals.record("source", step, verdict(True))
        refusals.end_step()
    with pytest.raises(NumbersError, match="step 1: source x, 2 refused updates in a row"):
        refusals.state()


def test_what_was_not_read_is_forgotten_with_the_moves_that_are_undone(far):
    far()
    refusals = Refusals(0)
    before = refusals.state()
    refusals.record("source", 0, verdict(True))
    refusals.end_step()
    refusals.record("source", 1, verdict(True))
    refusals.restore(before)
    assert refusals.state() == before and not refusals.notes
