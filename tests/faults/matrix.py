"""The fault matrix: its rows, the count of faults that each owes, and the table that the suite writes of itself."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

ROWS = {
    "R1": "kill -9 at random times",
    "R2": "kill -9 at the system calls of a save",
    "R4": "resume after step k",
    "R5": "evaluating, logging, saving at every step against never",
    "R6": "two runs, same seed; two seeds",
    "R9": "recipe changed between runs",
    "R10": "a finished run that is asked for something else",
    "W1": "disk full at byte b",
    "W2-3": "folder read-only, removed, replaced; target symlink, fifo, folder",
    "W4": "two processes, one run folder",
    "W5": "power cut: zeroed pages, cut tail, missing rename",
    "W6": "folders and files that are somebody's own",
    "C1-2": "one flipped bit; truncation",
    "C3": "damaged lines of a diary",
    "C4-5": "hostile pickles; hostile safetensors headers",
    "C6": "wrong architecture, class count, missing, extra or renamed keys",
    "Y1": "malformed recipes",
    "Y3": "every shipped recipe",
    "I1-2": "fuzzed masks; fuzzed images",
    "I3": "image bombs",
    "I4": "kinds of images",
    "L1": "labels out of range",
    "L2": "teacher, student and data class counts disagree",
    "L3": "IoU against a slow reference",
    "N1": "NaN and infinities, everywhere",
    "N3": "extreme inputs of every loss",
    "S1": "SIGTERM, SIGINT, SIGHUP at random moments",
    "S2": "a terminal that is closed over a run",
    "S3": "standard output and error closed, full, or gone",
    "O1": "out of memory",
    "T1-3": "teacher's bytes; each term's gradient; hooks left behind",
    "T4": "data-free audit",
    "P1": "soak",
    "P2": "canaries: known bugs put back",
}
"""Every row, in the order of the matrix; `@pytest.mark.row(NAME, N)` makes a test the row, or a part of it."""


@dataclass
class Row:
    """What one test injects for its row: `for fault in row: ...` runs `n` faults, `count` notes them in bulk.

    `n` is what the test owes; `--fault-share` makes it smaller for trials (`whole` is False), and then the table says so.
    """

    name: str
    n: int
    run: int = 0
    passed: int = 0
    whole: bool = True

    def __iter__(self) -> Iterator[int]:
        for index in range(self.n):
            self.run += 1
            yield index
            self.passed += 1

    def count(self, n: int = 1) -> None:
        """`n` more faults were injected, and came out as they should."""
        self.run += n
        self.passed += n


@dataclass
class Entry:
    """One test's part of a row; `n` is None where the test owes no fixed number, `why` tells why it was not run."""

    row: str
    tier: str
    n: int | None
    run: int = 0
    passed: int = 0
    seconds: float = 0.0
    machine: str = ""
    why: str = ""


def table(entries: Iterable[Entry]) -> list[list[str]]:
    """The rows of the matrix as cells: row, fault, tier, N, run, passed, seconds, machine."""
    found = list(entries)
    lines = []
    for name, fault in ROWS.items():
        parts = [entry for entry in found if entry.row == name]
        ran = [entry for entry in parts if entry.run]
        owed = sum(entry.run if entry.n is None else entry.n for entry in parts)
        why = next((entry.why for entry in parts if entry.why), "")
        result = ["not run" + (f": {why}" if why else ""), "", ""]
        if ran:
            total = (sum(e.run for e in ran), sum(e.passed for e in ran), sum(e.seconds for e in ran))
            result = [f"{total[0]:,}", f"{total[1]:,}", f"{total[2]:.0f}"]
        tiers, machines = (dict.fromkeys(x) for x in ((e.tier for e in parts), (e.machine for e in ran)))
        lines.append([name, fault, "/".join(sorted(tiers)), f"{owed:,}" if parts else "", *result, "; ".join(machines)])
    return lines


PAGE = """\
# The fault matrix

The faults that the test suite injects, in a table that it writes itself: T0 is a part of every `pytest`, T1 is
`pytest -m faults`. N is the least number of faults of a row; some rows run more. A row passes when every fault comes out as it
should: equal bytes after a resume, or one line and its exit code.

"""
HEAD = ["row", "fault", "tier", "N", "run", "passed", "seconds", "machine"]


def joined(known: dict[str, Entry], fresh: dict[str, Entry]) -> dict[str, Entry]:
    """What is known of each test, with what another session or process did; of a test that it did not run it adds nothing."""
    return known | {test: entry for test, entry in fresh.items() if entry.run or entry.why or test not in known}


def merge(file: Path, fresh: dict[str, Entry]) -> None:
    """Write the table as Markdown to `file`, with what the runs before this one have left in the JSON beside it."""
    data = file.with_suffix(".json")
    before = json.loads(data.read_text()) if data.is_file() else {}
    known = joined({test: Entry(**values) for test, values in before.items()}, fresh)
    data.write_text(json.dumps({test: asdict(entry) for test, entry in sorted(known.items())}, indent=1) + "\n")
    rows = [HEAD, ["---"] * 3 + ["---:"] * 4 + ["---"], *table(known.values())]
    file.write_text(PAGE + "".join(f"| {' | '.join(cells)} |\n" for cells in rows))
