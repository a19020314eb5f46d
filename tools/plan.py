"""The plan of the package in figures: what a step and a run enter, and how large each room is. Writes docs/plan.md.

python tools/plan.py [--say]
"""

import ast
import inspect
import sys
import tempfile
import textwrap
import threading
from collections import Counter
from collections.abc import Callable
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from types import FrameType
from typing import Any

import click

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from segkd.foundation import terminal

ROOT = Path(__file__).resolve().parents[1]
PACKAGE, PAGE = ROOT / "segkd", ROOT / "docs/plan.md"
TINY = ["data.name=null", "run.steps=2", "run.batch=2", "run.device=cpu", "run.precision=fp32", "run.threads=1",
        "game.student_moves=1", "game.overlap=false", "synth.replay=2"]  # fmt: skip
MOST_ARGUMENTS = 8


def imports() -> dict[str, set[str]]:
    """Each module of the package with the modules of the package that it imports anywhere, the lazy ones included."""
    files = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in PACKAGE.rglob("*.py")}
    files = {name.removesuffix(".__init__"): path for name, path in files.items()}
    found: dict[str, set[str]] = {name: set() for name in files if name != "segkd"}  # the front door imports on demand
    for name in found:
        for node in ast.walk(ast.parse(files[name].read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{name}: relative import"
                inner = [f"{node.module}.{alias.name}" for alias in node.names]
                found[name] |= {module if module in files else str(node.module) for module in inner}
            elif isinstance(node, ast.Import):
                found[name] |= {alias.name for alias in node.names}
    return {name: (modules & set(files)) - {"segkd"} for name, modules in found.items()}


def cycle(graph: dict[str, set[str]]) -> list[str]:
    """Modules that import one another in a circle; empty where none do."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def lines() -> dict[str, int]:
    """The lines of each room of the package."""
    count: Counter[str] = Counter()
    for path in sorted(PACKAGE.rglob("*.py")):
        room = path.relative_to(PACKAGE).parts[0] if path.parent != PACKAGE else "(top)"
        count[room] += len(path.read_text("utf-8").splitlines())
    return dict(sorted(count.items()))


def long_constructors(room: str) -> list[str]:
    """The classes of a room whose `__init__`, written or a dataclass's, takes more than eight arguments."""
    found = []
    for path in sorted((PACKAGE / room).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ClassDef) and arguments(node) > MOST_ARGUMENTS:
                found.append(f"{path.stem}.{node.name} ({arguments(node)})")
    return found


def arguments(node: ast.ClassDef) -> int:
    for inner in node.body:
        if isinstance(inner, ast.FunctionDef) and inner.name == "__init__":
            given = inner.args
            return len([*given.posonlyargs, *given.args, *given.kwonlyargs]) - 1
    generated = any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list)
    return sum(isinstance(inner, ast.AnnAssign) for inner in node.body) if generated else 0


class Trace:
    """What a run enters, seen by the profiler.

    Attributes:
        entered: the files of which a function was called.
        recipe: those of them in which a recipe, a block of it, or the run that holds it was an argument.
        build: the functions of builders/ that were given one from elsewhere, in order.
    """

    def __init__(self) -> None:
        from segkd.recipe.blocks import Block
        from segkd.runs.run import Run

        self.entered: set[str] = set()
        self.recipe: set[str] = set()
        self.build: list[str] = []
        self._carriers = (Block, Run)

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        code, caller = frame.f_code, frame.f_back
        if event != "call" or not code.co_filename.startswith(f"{PACKAGE}/"):
            return
        file = Path(code.co_filename).relative_to(PACKAGE).as_posix()
        self.entered.add(file)
        given = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        if any(isinstance(frame.f_locals.get(name), self._carriers) for name in given):
            self.recipe.add(file)
            if (
                file.startswith("builders/")
                and caller is not None
                and "/segkd/builders/" not in caller.f_code.co_filename
            ):
                self.build.append(code.co_name)


def traced(action: Callable[[], Any]) -> Trace:
    """What an action enters, in all of its threads."""
    trace = Trace()
    threading.setprofile(trace)
    sys.setprofile(trace)
    try:
        action()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return trace


def run_of_ddad() -> Trace:
    """What a run of two steps of DDAD by the quickstart's recipe enters."""
    from segkd import runs
    from segkd.recipe import load

    with tempfile.TemporaryDirectory() as folder:
        recipe = load("quickstart", [*TINY, f"run.dir={folder}/run"], "distill")
        return traced(lambda: runs.distill(recipe, runs.Options(quiet=True)))


def step_of_ddad() -> list[str]:
    """The files outside machine/ that DDAD's own step enters, without further terms and augmentation."""
    import torch

    from segkd import builders
    from segkd.recipe import load

    recipe = load("quickstart", [*TINY, "terms.cwd=null", "synth.augment=[]"], "distill")
    game = builders.distiller_of(recipe, builders.teacher_of(recipe.teacher), torch.device("cpu"), False)
    trace = traced(lambda: [game.play(step) for step in (0, 1)])  # the second finds images in the bank
    return sorted(file for file in trace.entered if not file.startswith("machine/"))


def rows() -> list[tuple[str, int, int | None, str]]:
    """What is counted, the figure, the most that was aimed at, if anything was, and what was counted."""
    step, run, rooms = step_of_ddad(), run_of_ddad(), lines()
    carried = sorted(file for file in run.recipe if not file.startswith("recipe/"))
    long, circle = long_constructors("training"), cycle(imports())
    return [
        ("files outside machine/ that a step of DDAD enters", len(step), 10, ", ".join(step)),
        ("times that a recipe enters builders/ in `segkd distill`", len(run.build), 3, ", ".join(run.build)),
        ("files outside recipe/ that a recipe, or a part of it, is carried through", len(carried), None, ", ".join(carried)),
        (f"classes of training/ made from more than {MOST_ARGUMENTS} arguments", len(long), 0, ", ".join(long)),
        ("modules in a circle of imports", len(circle), 0, ", ".join(circle)),
        ("lines of segkd/", sum(rooms.values()), 12_500, ", ".join(f"{room} {count:,}" for room, count in rooms.items())),
    ]  # fmt: skip


def render(found: list[tuple[str, int, int | None, str]]) -> str:
    """The page; figures above what was aimed at stand out."""
    items = (
        f"- {what}: {figure:,}{_aimed(figure, most)}{f' ({which})' if which else ''}"
        for what, figure, most, which in found
    )
    text = "\n".join(textwrap.fill(item, 128, subsequent_indent="  ", break_long_words=False) for item in items)
    return f"# The plan of the package in figures\n\nMade by `python tools/plan.py`.\n\n{text}\n"


def _aimed(figure: int, most: int | None) -> str:
    return "" if most is None else f", **missed: at most {most:,} was aimed at**" if figure > most else f" of {most:,}"


@click.command(help=inspect.getdoc(sys.modules[__name__]).split("\n")[0])
@click.option("--say", is_flag=True, help="Print the table and write nothing.")
def main(say: bool) -> None:
    text = render(rows())
    if say:
        terminal.say(text)
    else:
        PAGE.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
