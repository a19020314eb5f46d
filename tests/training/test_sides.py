"""A step whose student learns beside the others: which images it sees, and the same numbers in threads as in turn."""

import threading

import pytest
import torch

from segkd.foundation.errors import NumbersError
from segkd.machine.sides import side_by_side
from segkd.methods.ddad import DDAD
from tests.waiting import PATIENCE

OVERLAP = ("game.overlap=true", "game.keep_moves=1", "game.student_moves=2", "run.steps=6")
STILL = "student.options.decoder_aspp_dropout=0.0"


@pytest.fixture
def threads(own_threads):
    return torch.set_num_threads


def test_both_sides_run_at_once_on_half_of_the_threads_each(threads) -> None:
    threads(4)
    meet = threading.Barrier(2, timeout=PATIENCE)

    def side() -> tuple[int, bool]:
        meet.wait()
        return torch.get_num_threads(), threading.current_thread() is threading.main_thread()

    assert side_by_side(side, side) == ((2, False), (2, True))
    assert torch.get_num_threads() == 4


@pytest.mark.parametrize("which", [0, 1])
def test_an_error_of_either_side_comes_out_when_both_have_ended(threads, which) -> None:
    threads(2)
    ended, fail = [], threading.Event()

    def good() -> None:
        assert fail.wait(PATIENCE)
        ended.append(True)

    def bad() -> None:
        fail.set()
        raise NumbersError("x")

    with pytest.raises(NumbersError):
        side_by_side(*((bad, good) if which == 0 else (good, bad)))
    assert ended == [True] and torch.get_num_threads() == 2


def played(tiny, *overrides: str, steps: int = 3, case: str = "ddad.segkd"):
    game = tiny.game(case, *OVERLAP, *overrides)
    for step in range(steps):
        game.play(step)
    return game


def test_threads_change_no_number(tiny, threads) -> None:
    """With two threads each side has one, with one thread both take turns on it."""
    found = {}
    for count in (1, 2):
        threads(1)
        game = played(tiny, STILL, steps=1)  # which has nothing yet to learn from beside the others
        threads(count)
        assert game.in_threads == (count == 2)
        for step in (1, 2):
            game.play(step)
        threads(1)  # for the averaged student's statistics
        found[count] = tiny.hash(game.state())
    assert found[1] == found[2]


@pytest.mark.parametrize("count", [1, 2])
def test_the_generator_moves_in_a_thread_of_its_own_where_there_are_two(tiny, threads, count) -> None:
    threads(count)
    game, where = played(tiny, STILL, steps=1), {}

    def watched(name, move):
        return lambda step, index: where.update({name: threading.current_thread()}) or move(step, index)

    game.moves = {name: watched(name, move) for name, move in game.moves.items()}
    game.play(1)
    beside = {name for name, thread in where.items() if thread is not threading.main_thread()}
    assert where.keys() == {"source", "keep", "student"} and beside == ({"source", "keep"} if count == 2 else set())


def test_the_student_learns_from_what_was_kept_before_the_step(tiny, threads) -> None:
    for count in (1, 2):
        threads(count)
        game = played(tiny, STILL, steps=1)
        held, drawn = len(game.bank), []
        draw = game.bank.draw
        game.bank.draw = lambda batch, game=game, draw=draw, drawn=drawn: drawn.append(len(game.bank)) or draw(batch)
        game.play(1)
        assert drawn == [held, held] and len(game.bank) > held


def test_the_generator_is_judged_by_the_student_before_the_step(tiny, threads) -> None:
    threads(2)
    game = played(tiny, STILL, steps=2)
    before, seen = tiny.hash(game.student.network), []
    study = game.networks.student_outputs

    def studied(x, needs, student=None, first=False):
        if student not in (None, game.student.network):
            seen.append(tiny.hash(student))
        return study(x, needs, student, first)

    game.networks.student_outputs = studied
    game.play(2)
    assert seen == [before] != [tiny.hash(game.student.network)]


@pytest.mark.parametrize(
    ("overrides", "why"),
    [((), "dropout draws"), ((STILL, "run.checkpointing=true"), "recomputing restores torch's generator")],
)
def test_sides_take_turns_where_threads_would_change_numbers(tiny, threads, overrides, why) -> None:
    threads(2)
    assert not played(tiny, *overrides, steps=0).in_threads, why


def test_sides_take_turns_where_the_method_remembers_or_asks_the_teacher_about_other_images(
    tiny, threads, monkeypatch
) -> None:
    threads(2)
    game = tiny.game("ddad.segkd", *OVERLAP, STILL)
    assert game.in_threads
    game.method.register_buffer("memory", torch.zeros(1))
    assert not game.in_threads
    kd, other = DDAD.kd, torch.zeros(2, 3, 32, 64)
    for asked in ("teacher", "average"):
        monkeypatch.setattr(
            DDAD, "kd", lambda method, view, asked=asked: kd(method, view) + getattr(view, asked)(other).mean()
        )
        assert not tiny.game("ddad.segkd", *OVERLAP, STILL, "student.ema=0.9").in_threads, asked


def test_a_resumed_run_with_overlap_ends_in_the_same_bytes(tiny, threads) -> None:
    threads(2)
    whole, first = played(tiny, STILL, steps=4), played(tiny, STILL, steps=2)
    again = tiny.game("ddad.segkd", *OVERLAP, STILL)
    again.restore(first.state())
    for step in (2, 3):
        again.play(step)
    assert tiny.hash(again.state()) == tiny.hash(whole.state())


@pytest.mark.parametrize("count", [1, 2])
def test_a_refused_move_of_either_side_changes_nothing_and_is_told_in_order(tiny, threads, count) -> None:
    threads(count)
    game = played(tiny, STILL, "synth.replay=9", steps=2)
    loss = game.method.loss

    def broken(player, view, step):
        total, values = loss(player, view, step)
        return total * (float("nan") if player != "pixels" else 1), values

    game.method.loss = broken
    state = [tiny.hash(player.state()) for player in (game.student, game.source.player)]
    held = len(game.bank)
    game.play(2)
    assert [tiny.hash(player.state()) for player in (game.student, game.source.player)] == state
    assert [note.split()[2] for note in game.notes] == ["source", "student", "student"]
    assert len(game.bank) == held + 1, "the batch of the keep move"


@pytest.mark.parametrize("count", [1, 2])
def test_a_signal_waits_for_the_end_of_a_step_whose_moves_overlap(tiny, threads, count) -> None:
    """What a student has learnt beside it cannot be played again."""
    threads(count)
    whole, stopped = (played(tiny, STILL, "synth.refine=3", steps=2) for _ in range(2))
    stopped.stopping = lambda: True
    assert stopped.play(2).keys() == whole.play(2).keys()
    assert tiny.hash(stopped.state()) == tiny.hash(whole.state())
