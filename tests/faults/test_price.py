"""What safety costs on the shipped quickstart, in bytes that are read and written: no time is judged."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from segkd import builders
from segkd.recipe import load
from segkd.training import distiller

TOOL = Path(__file__).parents[2] / "tools" / "price.py"


class Moved(TorchDispatchMode):
    """Bytes of the tensors that operations inside it read and write; `apart`, those within functions that are noted."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes, self.apart = 0, 0

    def __torch_dispatch__(self, operation: Any, types: Any, given: tuple = (), options: dict | None = None) -> Any:
        found = operation(*given, **(options or {}))
        if not operation.is_view:
            tensors = [x for x in tree_leaves((given, options, found)) if isinstance(x, torch.Tensor)]
            self.bytes += sum(tensor.nbytes for tensor in tensors)
        return found

    def noted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **options: Any) -> Any:
            before = self.bytes
            found = function(*given, **options)
            self.apart += self.bytes - before
            return found

        return call


def test_guarding_moves_no_more_than_a_fiftieth_of_a_steps_bytes(monkeypatch, one_thread):
    recipe = load("quickstart", ["run.precision=fp32", "run.device=cpu"], "distill")
    game = builders.distiller_of(recipe, builders.teacher_of(recipe.teacher), torch.device("cpu"), False)
    moved = Moved()
    # Snapshots of what a refused move is put back to; looks at what is kept, and at gradients.
    for place, guard in ((distiller, "Snapshot"), (distiller, "finite"), (torch.nn.utils, "get_total_norm")):
        monkeypatch.setattr(place, guard, moved.noted(getattr(place, guard)))
    with moved:
        game.play(0)
    assert 0 < moved.apart <= 0.02 * moved.bytes, f"{moved.apart / moved.bytes:.3f}"


@pytest.mark.faults
def test_the_tool_tells_what_each_guard_takes(tmp_path):
    command = [sys.executable, str(TOOL), "quickstart", "--json", str(tmp_path / "price.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "price.json").read_text())
    shares = [value for name, value in found.items() if " " in name]
    assert len(shares) == 7 and found["guarding"] == pytest.approx(sum(shares)) and min(shares) >= 0
    assert done.stdout.count("% of a step") == len(shares) + 1
