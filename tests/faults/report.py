"""What the rows of the fault matrix did is gathered, over all processes of the session, and told at its end."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from tests.faults.matrix import ROWS, Entry, joined, merge, table

ENTRIES = pytest.StashKey[dict[str, Entry]]()
FAILED = pytest.StashKey[bool]()


def entries(config: pytest.Config) -> dict[str, Entry]:
    """What is known of each test that is a row."""
    return config.stash.setdefault(ENTRIES, {})


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("faults")
    group.addoption("--fault-table", metavar="FILE.md", help="merge what the rows of the fault matrix did into a table")
    group.addoption("--fault-share", type=float, default=1.0, metavar="X", help="inject this share of the faults only")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Note every test of the matrix, before any is deselected."""
    for item in items:
        mark = item.get_closest_marker("row")
        if mark is None:
            continue
        name, n = mark.args[0], mark.args[1] if len(mark.args) > 1 else None
        if name not in ROWS:
            raise pytest.UsageError(f"{item.nodeid}: no row {name!r} in the matrix")
        tier = "T1" if item.get_closest_marker("faults") else "T0"
        entries(config)[item.nodeid] = Entry(name, tier, n)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add up the seconds of a row's test, and note why it was skipped."""
    report = yield
    entry = entries(item.config).get(item.nodeid)
    if entry is not None:
        entry.seconds += report.duration
        item.stash[FAILED] = report.failed or item.stash.get(FAILED, False)
        if report.skipped and isinstance(report.longrepr, tuple):
            entry.why = report.longrepr[2].removeprefix("Skipped: ")
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A process that ran a part of the tests for another one hands over what they did."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["faults"] = {test: asdict(entry) for test, entry in entries(session.config).items()}


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Each test ran in one of the processes; the others only know of it. One that crashed has handed over nothing."""
    done = getattr(node, "workeroutput", {}).get("faults", {})
    fresh = {test: Entry(**values) for test, values in done.items()}
    node.config.stash[ENTRIES] = joined(entries(node.config), fresh)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """A line for each row that was run, and the table where `--fault-table` names a file."""
    known = entries(config)
    if any(entry.run for entry in known.values()):
        from segkd.machine.device import machine

        for entry in known.values():
            entry.machine = machine() if entry.run else ""
        terminalreporter.section("faults")
        for name, fault, _, _, run, passed, seconds, _ in table(known.values()):
            if passed:
                terminalreporter.line(f"{name:<5} {f'{passed}/{run}':>13} {seconds:>5} s  {fault}")
    file = config.getoption("fault_table")
    if file is not None:
        merge(Path(file), known)
