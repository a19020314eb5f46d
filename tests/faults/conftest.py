"""The fault suite: the fixture `row` counts what was injected (see `matrix`, and `report` for the table)."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conftest import Tiny
from tests.faults.matrix import Row
from tests.faults.report import FAILED, entries

if TYPE_CHECKING:  # what forks needs torch, which a copy of these tests that runs none of them is not to wait for
    from tests.faults.harness import Forks, Job

ROOT = Path(__file__).parents[2]


@pytest.fixture
def row(request: pytest.FixtureRequest) -> Generator[Row]:
    """The row that the test is marked as; the test fails if fewer faults pass than it owes."""
    entry = entries(request.config)[request.node.nodeid]
    share = request.config.getoption("fault_share")
    row = Row(entry.row, max(1, round((entry.n or 0) * share)), whole=share >= 1)
    yield row
    failed = request.node.stash.get(FAILED, False)
    # A fault that fails where they are counted in bulk was injected too.
    entry.run, entry.passed = row.run + (failed and row.run == row.passed), row.passed
    print(f"{row.name}: {entry.passed}/{max(row.n, entry.run)}")
    if not failed:  # else the test has told more than these numbers can
        assert entry.passed >= row.n and entry.passed == entry.run


@pytest.fixture(scope="session")
def job(forks: Forks, tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Job]:
    """A job by its name and overrides, whose uninterrupted run takes place once."""
    from tests.faults.harness import job_of

    folder = tmp_path_factory.mktemp("jobs")

    @functools.cache
    def find(name: str, *overrides: str) -> Job:
        return job_of(forks, tiny, name, folder / str(len(list(folder.glob("*.yaml")))), *overrides)

    return find


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The package and its tests, to be spoilt."""
    for folder in ("segkd", "tests", "recipes/base"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def run(copy: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """pytest in the copy, which sees its own segkd and nothing of this one."""
    environment = os.environ | {"PYTHONPATH": str(copy), "COLUMNS": "250", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-n0", *arguments]
    return subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False)
