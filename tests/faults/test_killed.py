"""Runs that are killed or asked to stop, at any moment and at every system call of a save, end in the same bytes."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable

import pytest

from tests.faults.child import Calls, Writes
from tests.faults.harness import AS_SHIPPED, JOBS, PLAIN, Job
from tests.faults.matrix import Row

pytestmark = pytest.mark.faults


@pytest.mark.row("R1", 50)
def test_killed_at_random_moments(row, job):
    moments, on_their_way = random.Random("R1"), 0
    for index in row:
        it = job(JOBS[index % len(JOBS)], *AS_SHIPPED).fresh()
        kills, stood = 0, None
        while kills < 1 + index % 3:
            begun = it.start()
            begun.wait(moments.uniform(0, it.seconds))
            if begun.kill():
                kills += 1
            elif kills:
                break  # it was done before it could be killed once more
            else:
                it.fresh()
            stands = it.standing()
            on_their_way += bool(stands)
            assert stood is None or (stands is not None and stands >= stood), "a checkpoint was lost"
            stood = stands
        it.goes_on()
    assert on_their_way >= row.n / 4, "hardly a run had a step to lose when it was killed"


@pytest.mark.row("R2", 60)
@pytest.mark.parametrize("name", ["noise", "teach"])
def test_killed_at_every_call_of_its_saves(row, job, tmp_path, name):
    it, log = job(name, *PLAIN).fresh(), tmp_path / "log"
    assert it.start(Calls(None, log)).wait() == 0
    calls = log.read_text().splitlines()
    assert {call.split()[0] for call in calls} >= {"open", "fsync", "replace", "unlink", "mkdir", "ftruncate", "pwrite"}
    points = range(len(calls)) if row.whole else random.Random(name).sample(range(len(calls)), row.n)
    stop_and_go_on(row, it, [Calls(point) for point in points])


@pytest.mark.row("R2", 50)
@pytest.mark.parametrize("name", ["noise", "teach"])
def test_killed_within_a_write(row, job, tmp_path, name):
    it, log, shares = job(name, *PLAIN).fresh(), tmp_path / "log", random.Random(name)
    assert it.start(Writes(None, log=log)).wait() == 0
    writes = len(log.read_text().splitlines())
    stop_and_go_on(row, it, [Writes(index % writes, shares.random()) for index in range(row.n)])


def stop_and_go_on(row: Row, it: Job, faults: list[Callable[[], None]]) -> None:
    """Killed by its fault, a run has lost nothing; two at a time, each with a core and a folder of its own."""
    pair = [it, it.twin]
    for first in range(0, len(faults), 2):
        runs = list(zip(pair, faults[first : first + 2], strict=False))
        for each, killed in [(each, each.fresh().start(fault)) for each, fault in runs]:
            assert killed.wait() == -signal.SIGKILL, killed.said()
            each.standing()
        for each, last in [(each, each.start()) for each, _ in runs]:
            assert last.wait() == 0, last.said()
            each.ends_as_expected()
            row.count()


@pytest.mark.row("S1", 30)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_asked_to_stop_at_random_moments(row, job, number):
    moments = random.Random(int(number))
    for index in row:
        name = JOBS[index % len(JOBS)]
        # every other teacher ends with its last look at val, whose result is then all that tells which weights are best
        it = job(name, *AS_SHIPPED, *(["data.final=null"] if name == "teach" and index // len(JOBS) % 2 == 0 else []))
        while True:
            begun = it.fresh().start()
            begun.wait(moments.uniform(0, it.seconds))
            if begun.process.is_alive():
                begun.signal(number)
                if begun.wait() != 0:
                    break
                it.ends_as_expected()  # the signal came after the last look at it: the run was done
        # Before the run holds its folder, and once it is done, there is nothing to save: SIGTERM means what it always means.
        idle = it.standing() is None or (it.folder / "run" / "summary.json").exists()
        assert begun.process.exitcode in ([128 + number, -number] if idle else [128 + number])
        assert idle or "resumes the run" in begun.said()[-1]
        it.goes_on()
