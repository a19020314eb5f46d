"""No test judges how long something took: a machine that is busy would fail it, and one that is fast would pass it.

Count work instead (`tests.work`), or let the code look at a clock that the test turns (as tests/benchmark/test_phases.py).
"""

import ast
import re
from pathlib import Path

from tests.waiting import PATIENCE

TESTS = Path(__file__).parent
CLOCKS = re.compile(
    r"\b(perf_counter|process_time|thread_time|monotonic|clock_gettime|time\.time|os\.times|datetime\.now)(_ns)?\("
    r"|\bfrom time import|\bru_[us]time\b"
)
READERS = {
    "waiting.py": "how long a process may take until it hangs",
    "faults/harness.py": "how long a run takes, for the random moments at which it is killed",
    "test_clocks.py": "the words",
}


def files() -> list[Path]:
    return sorted(TESTS.rglob("*.py"))


def test_no_test_reads_a_clock() -> None:
    found = {str(path.relative_to(TESTS)) for path in files() if CLOCKS.search(path.read_text())}
    assert found == READERS.keys()


def impatient(tree: ast.AST) -> list[int]:
    """Lines of timeouts that a busy machine would meet; those that are meant to be met stand in `pytest.raises`."""
    meant = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.With) and any("raises" in ast.unparse(item.context_expr) for item in node.items)
        for inner in ast.walk(node)
    }
    lines = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or id(node) in meant:
            continue
        given = {keyword.arg: keyword.value for keyword in node.keywords}
        times = [given["timeout"]] if "timeout" in given else []
        name = ast.unparse(node.func).rpartition(".")[2]
        times += node.args[:1] if name in ("wait", "join", "communicate", "timedelta") else []
        seconds = [value.value for value in times if isinstance(value, ast.Constant)]
        lines += [node.lineno for value in seconds if isinstance(value, int | float) and value < 120]
        if name == "settings" and ast.unparse(given.get("deadline", node)) != "None":
            lines.append(node.lineno)
    return lines


def undated(tree: ast.AST) -> list[int]:
    """Lines of properties that hypothesis would give a fifth of a second an example."""
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
        for names in [[ast.unparse(decorator).partition("(")[0] for decorator in node.decorator_list]]
        if "given" in names and not {"settings", "QUICK"} & set(names)
    ]


def test_what_may_hang_is_given_long_enough() -> None:
    trees = {str(path.relative_to(TESTS)): ast.parse(path.read_text()) for path in files()}
    found = {name: impatient(tree) + undated(tree) for name, tree in trees.items()}
    assert not any(found.values()), {name: lines for name, lines in found.items() if lines}


def test_what_is_looked_for_is_found() -> None:
    assert PATIENCE >= 120
    for text in ("time.perf_counter()", "process_time_ns()", "from time import time", "usage.ru_utime", "time.time()"):
        assert CLOCKS.search(text)
    for text in ("p.wait(5)", "p.communicate(timeout=60)", "q.join(1.5)", "settings(max_examples=3)", "timedelta(60)"):
        assert impatient(ast.parse(text)) == [1], text
    for text in (
        "p.wait()", "p.wait(PATIENCE)", "run(timeout=300)", "settings(deadline=None)", "', '.join(x)",
        "with pytest.raises(TimeoutExpired):\n    p.wait(timeout=0.2)",
    ):  # fmt: skip
        assert impatient(ast.parse(text)) == [], text
    assert undated(ast.parse("@given(x)\ndef f(): ...")) == [2]
