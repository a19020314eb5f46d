"""Put one small mistake after another into the package, and see that a test notices each.

    python tools/mutate.py [FILE ...] [--limit N] [--shard I/N] [--living] [--again] [--list]

Every constant, comparison, boolean, arithmetic operator, branch, call without a value and block of `with` in the files of
`tools/mutate.yaml` is changed once, one at a time, in a copy of the package. The tests that this file names, and that run
the changed line, run in a fork of one process that has imported torch: a mutant takes a second, and not the five of a
fresh interpreter. What was found is kept in docs/mutants.json, function by function, so that a later call asks only for
what has changed since, and told in docs/mutants.md. A mutant that no test could notice stands in the YAML with its reason.

Of the libraries for this, cosmic-ray starts an interpreter a mutant, and mutmut leaves decorated functions and the
constants of modules and classes as they are: half of what matters here.
"""

import ast
import json
import math
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from filelock import FileLock
from ruamel.yaml import YAML

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.mutants import Mutant, mutants

ROOT = Path(__file__).resolve().parents[1]
PLAN = ROOT / "tools" / "mutate.yaml"
FOUND, PAGE = ROOT / "docs" / "mutants.json", ROOT / "docs" / "mutants.md"
UNKNOWN = ("", "lives")
PATIENCE = 300
"""Seconds after which a mutant hangs, which its tests notice well enough; those in which somebody has stopped it do not count."""


class Place:
    """A copy of the package and its tests, whose pytest runs in forks of this process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("segkd", "tests", "recipes", "tools"):
            ignored = shutil.ignore_patterns("__pycache__", "logs")
            shutil.copytree(ROOT / name, folder / name, ignore=ignored)
        for name in ("pyproject.toml", "setup.py", "README.md"):
            shutil.copy(ROOT / name, folder)
        sys.path.insert(0, str(folder))
        os.environ |= {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
        os.environ["OMP_WAIT_POLICY"] = "passive"
        preload()

    def pytest(self, tests: list[str], plugin: Any, stale: set[str]) -> tuple[str, Any]:
        """How the tests end where the `stale` modules are imported anew, and what the plugin has noted."""
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.setpgid(0, 0)
            os.close(reading)
            self.child(tests, plugin, stale, writing)
        os.close(writing)
        patience = (
            PATIENCE if isinstance(plugin, Killer) else math.inf
        )  # tests as they are end, however slow a machine is
        with Alarm(child, patience), os.fdopen(reading, "rb") as pipe:
            said = pipe.read()
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        noted = json.loads(said) if said else None
        ends = {0: "lives", 1: "killed", -signal.SIGKILL: "hangs"}
        dies = code < 0 or (code in (2, 3, 4) and noted)  # without a failure pytest was not asked well
        return ends.get(code, "killed" if dies else "breaks"), noted

    def child(self, tests: list[str], plugin: Any, stale: set[str], writing: int) -> None:
        code = 70
        try:
            import pytest

            forget(stale)
            sys.dont_write_bytecode = isinstance(plugin, Killer)  # of a mutant; but tests may be compiled once
            os.chdir(self.folder)
            silent = os.open(os.environ.get("MUTATE_LOG", os.devnull), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(silent, 1)
            os.dup2(silent, 2)
            options = ["-q", "-n0", "-p", "no:cacheprovider", "-m", "not slow and not faults and not realdata"]
            code = int(pytest.main([*options, *plugin.options, *tests], plugins=[plugin]))
            os.write(writing, json.dumps(plugin.noted).encode())
        finally:
            os._exit(code)


class Alarm:
    """Kills a process group that hangs."""

    def __init__(self, child: int, patience: float) -> None:
        self.child, self.left = child, patience

    def __enter__(self) -> None:
        signal.signal(signal.SIGALRM, self.tick)
        signal.setitimer(signal.ITIMER_REAL, 1, 1)

    def tick(self, *_: object) -> None:
        try:
            stopped = os.waitid(os.P_PID, self.child, os.WSTOPPED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:  # it has ended, and waits to be read
            return
        if not stopped:
            self.left -= 1
        if self.left == 0:
            os.killpg(self.child, signal.SIGKILL)

    def __exit__(self, *error: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_IGN)  # a tick that is on its way finds no child any more


def users(file: str) -> set[str]:
    """A module, and all of the package that import it, or import what does."""
    modules = {module(path.relative_to(ROOT)): path for path in (ROOT / "segkd").rglob("*.py")}
    imports = {
        name: {
            full
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.ImportFrom | ast.Import)
            for alias in node.names
            for full in (alias.name, getattr(node, "module", ""), f"{getattr(node, 'module', '')}.{alias.name}")
        }
        for name, path in modules.items()
    }
    stale, before = {module(Path(file))}, set()
    while stale != before:
        before = set(stale)
        stale |= {name for name, found in imports.items() if found & before}
    return stale - {"segkd"}


def module(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def forget(modules: set[str]) -> None:
    for name in modules & sys.modules.keys():
        package, _, own = name.rpartition(".")
        del sys.modules[name]
        vars(sys.modules.get(package, sys)).pop(own, None)


def preload() -> None:
    """All that tests import; no torch operation is run, whose threads a fork would lose."""
    import albumentations  # noqa: F401
    import hypothesis  # noqa: F401
    import kornia.augmentation  # noqa: F401
    import pytest  # noqa: F401
    import scipy.ndimage  # noqa: F401
    import segmentation_models_pytorch  # noqa: F401
    import torch.distributed
    import torch.optim.swa_utils  # noqa: F401
    import torchvision  # noqa: F401

    from segkd import api, builders, runs  # noqa: F401 - and the package itself, of which a child forgets a part
    from segkd.cli import main  # noqa: F401


class Killer:
    """Notes the first test that fails."""

    options = ("-x",)

    def __init__(self) -> None:
        self.noted: str | None = None

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed and self.noted is None:
            self.noted = report.nodeid

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed and self.noted is None:
            self.noted = report.nodeid or "collection"


class Tracer:
    """Notes of each test how long it takes and which lines of a file it runs; what fixtures run counts for all of a file."""

    options = ()

    def __init__(self, file: Path) -> None:
        self.file, self.noted, self.lines, self.began = str(file), {}, set(), 0.0

    def pytest_runtest_logreport(self, report: Any) -> None:
        test = self.noted.setdefault(report.nodeid, {"seconds": 0.0, "lines": [], "setup": []})
        test["seconds"] += report.duration
        test["failed"] = test.get("failed", False) or report.failed
        test["setup" if report.when == "setup" else "lines"] += sorted(self.lines)
        self.lines.clear()
        sys.settrace(self.enters)

    def pytest_collection_finish(self) -> None:
        sys.settrace(self.enters)

    def enters(self, frame: Any, event: str, argument: object) -> Any:
        return self.steps if frame.f_code.co_filename == self.file else None

    def steps(self, frame: Any, event: str, argument: object) -> Any:
        self.lines.add(frame.f_lineno)
        return self.steps


def covering(baseline: dict[str, Any], mutant: Mutant) -> list[str]:
    """The tests that run what a mutant changes, the quickest first; all, where only importing runs it, or nothing does."""
    files: dict[str, set[int]] = {}
    for name, test in baseline.items():
        files.setdefault(name.partition("::")[0], set()).update(test["setup"])
    runs = {name: files[name.partition("::")[0]].union(test["lines"]) for name, test in baseline.items()}
    first, last = mutant.lines
    chosen = [name for name, lines in runs.items() if any(first <= line <= last for line in lines)]
    return sorted(chosen or runs, key=lambda name: baseline[name]["seconds"])


def examine(place: Place, file: str, tests: list[str], wanted: list[tuple[Mutant, str]]) -> None:
    """Run the mutants of a file, and keep what becomes of each at once."""
    target, stale = place.folder / file, users(file)
    ends, baseline = place.pytest(tests, Tracer(target), stale)
    broken = [name for name, test in (baseline or {}).items() if test["failed"]]
    if ends != "lives":
        raise click.ClickException(f"{file}: its tests do not pass as it is: {', '.join(broken) or ends}")
    good = target.read_text()
    for number, (mutant, text) in enumerate(wanted, start=1):
        chosen = covering(baseline, mutant)
        began = time.monotonic()
        try:
            target.write_text(text)
            ends, by = place.pytest(chosen, Killer(), stale)
        finally:
            target.write_text(good)
        with kept() as found:
            found[mutant.name] = [mutant.source, ends]
        click.echo(f"{number}/{len(wanted)} {ends:<6} {time.monotonic() - began:5.1f} s  {mutant.name}  ({by})")


@contextmanager
def kept() -> Iterator[dict[str, list[str]]]:
    """What was found so far, to be changed by one process at a time."""
    with FileLock(FOUND.with_suffix(".lock")):
        found = json.loads(FOUND.read_text()) if FOUND.exists() else {}
        yield found
        written = FOUND.with_suffix(".tmp")
        lines = [f"{json.dumps(name)}: {json.dumps(end)}" for name, end in sorted(found.items())]
        written.write_text("{\n" + ",\n".join(lines) + "\n}\n")
        written.replace(FOUND)


def kind_of(mutant: Mutant, source: str, ends: str, reasons: dict[str, str]) -> str:
    """What became of a mutant; of a function that has changed since nothing is known."""
    if mutant.name in reasons:
        return "equivalent"
    if source != mutant.source:
        return "not asked"
    return "killed" if ends == "hangs" else ends


def page(plan: dict[str, Any], everything: dict[str, Mutant]) -> list[str]:
    """Write the table; the lines that tell what lives, what was not asked, and excuses that are no longer true."""
    with kept() as found:
        for name in found.keys() - everything.keys():
            del found[name]
    reasons = {item["mutant"]: item["why"] for item in plan["equivalent"]}
    kinds = {name: kind_of(mutant, *found.get(name, UNKNOWN), reasons) for name, mutant in everything.items()}
    rows = []
    for file in (*plan["tests"], None):
        counts = Counter(kinds[name] for name, mutant in everything.items() if file in (mutant.file, None))
        cells = [
            counts.total(),
            counts["killed"],
            counts["equivalent"],
            counts["lives"] + counts["breaks"],
            counts["not asked"],
        ]
        rows.append(f"| {f'`{file}`' if file else 'all'} | {' | '.join(map(str, cells))} |")
    same = [f"- `{name}`:\n  {why}" for name, why in reasons.items()]
    PAGE.write_text("\n".join([HEAD, *rows, "", "## Equivalent", "", *same]) + "\n")
    told = [
        f"{kind}: {name} (line {everything[name].lines[0]})"
        for name, kind in kinds.items()
        if kind not in ("killed", "equivalent")
    ]
    excuses = [
        name for name in reasons if name in everything and found.get(name) == [everything[name].source, "killed"]
    ]
    told += [f"killed, and said to be equivalent: {name}" for name in excuses]
    return told + [f"no such mutant: {name}" for name in reasons if name not in everything]


HEAD = """\
# Mutants

What `tools/mutate.py` has found: each constant, comparison, boolean, arithmetic operator, branch, call without a value and
block of `with` of these files was changed once, and a test has to notice. An equivalent mutant is one that no test could
notice; its reason stands below. Not asked: nobody did yet, or the function has changed since.

| file | mutants | killed | equivalent | living | not asked |
| --- | ---: | ---: | ---: | ---: | ---: |"""


@click.command()
@click.argument("files", nargs=-1)
@click.option("--shard", default="1/1", metavar="I/N", help="Only every N-th mutant, from the I-th on.")
@click.option("--limit", type=int, metavar="N", help="No more than so many mutants; a later call goes on.")
@click.option("--again", is_flag=True, help="Also those that are known, and those that are said to be equivalent.")
@click.option("--living", is_flag=True, help="Of those that are known, the living once more.")
@click.option("--list", "only_list", is_flag=True, help="Run none; write the table, and list what lives.")
def main(files: tuple[str, ...], shard: str, limit: int | None, again: bool, living: bool, only_list: bool) -> None:
    """Mutate FILES (default: all of tools/mutate.yaml)."""
    plan = YAML(typ="safe").load(PLAN)
    chosen = files or tuple(plan["tests"])
    known = json.loads(FOUND.read_text()) if FOUND.exists() else {}
    excused = {item["mutant"] for item in plan["equivalent"]}
    index, shards = map(int, shard.split("/"))
    everything: dict[str, Mutant] = {}
    todo: dict[str, list[tuple[Mutant, str]]] = {}
    for file in plan["tests"]:
        for mutant, text in mutants(ROOT, file):
            everything[mutant.name] = mutant
            source, ends = known.get(mutant.name, UNKNOWN)
            fresh = source == mutant.source and not (living and ends in ("lives", "breaks"))
            if file in chosen and (again or not (fresh or mutant.name in excused)):
                todo.setdefault(file, []).append((mutant, text))
    if not only_list:
        with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
            place = Place(Path(folder))
            for file, wanted in todo.items():
                if part := wanted[index - 1 :: shards][:limit]:
                    examine(place, file, plan["tests"][file], part)
                    limit = limit and limit - len(part)
                if limit == 0:
                    break
    for line in page(plan, everything):
        click.echo(line)


if __name__ == "__main__":
    main()
