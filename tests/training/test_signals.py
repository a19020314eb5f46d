"""Real signals to this process and to another."""

import os
import signal
import threading
import time

import pytest

from segkd.training.signals import StopFlag
from tests.waiting import PATIENCE


def listen(told, stubborn: bool) -> None:
    """What a process does until it is asked to stop, and what it tells of that."""
    with StopFlag().listening() as stop:
        told.send("ready")
        while not stop():
            time.sleep(0.005)
        if stubborn:
            told.send("noticed")
            time.sleep(PATIENCE)
    told.send(f"clean {int(stop.signum)}")


class Worker:
    """A process that listens."""

    def __init__(self, context, stubborn: bool) -> None:
        self.told, theirs = context.Pipe(duplex=False)
        self.process = context.Process(target=listen, args=(theirs, stubborn))
        self.process.start()
        theirs.close()
        assert self.told.recv() == "ready"

    def signal(self, number: int) -> None:
        os.kill(self.process.pid, number)

    def code(self, patience: float = PATIENCE) -> int | None:
        """Its exit code; None while it goes on after so long."""
        self.process.join(patience)
        return self.process.exitcode


@pytest.fixture
def worker(forks):
    """Starts a process of its own, and returns it when it listens."""
    started = []

    def start(stubborn: bool = False) -> Worker:
        started.append(Worker(forks.context, stubborn))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.join()


STOPPING = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.mark.parametrize("number", STOPPING)
def test_a_signal_sets_the_flag_and_ends_nothing(number):
    before = signal.getsignal(number)
    with StopFlag().listening() as stop:
        assert not stop()
        os.kill(os.getpid(), number)
        assert stop()
        assert stop.signum == number
    assert signal.getsignal(number) is before


def test_the_old_handlers_come_back_after_an_exception():
    before = [signal.getsignal(number) for number in STOPPING]
    with pytest.raises(ValueError, match="x"), StopFlag().listening():
        raise ValueError("x")
    assert [signal.getsignal(number) for number in STOPPING] == before


def test_a_closed_terminal_that_was_ignored_stays_ignored(number=signal.SIGHUP):
    """As `nohup` and `trap '' HUP` have it."""
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with StopFlag().listening() as stop:
            os.kill(os.getpid(), number)
            assert not stop() and signal.getsignal(number) is signal.SIG_IGN
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize("number", STOPPING)
def test_another_process_ends_its_work_cleanly(worker, number):
    process = worker()
    process.signal(number)
    assert process.told.recv() == f"clean {int(number)}"
    assert process.code() == 0


def test_a_second_interrupt_ends_at_once(worker):
    process = worker(stubborn=True)
    process.signal(signal.SIGINT)
    assert process.told.recv() == "noticed"
    process.signal(signal.SIGTERM)  # asks again, and politely
    assert process.code(0.2) is None
    process.signal(signal.SIGINT)
    assert process.code() == 130


def test_in_another_thread_the_handlers_stay_as_they_are():
    before, seen = signal.getsignal(signal.SIGINT), []

    def work() -> None:
        with StopFlag().listening() as stop:
            seen.extend([stop(), signal.getsignal(signal.SIGINT)])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False, before]
