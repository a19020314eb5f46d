"""Five bugs that cost others dearly, put back one at a time into a copy: each must fail a test that names it."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COMMON = "tests/methods/test_common.py"


@dataclass(frozen=True)
class Canary:
    """A bug: in `file`, `good` (which occurs once) becomes `bad`, and `test` must see it."""

    file: str
    good: str
    bad: str
    test: str


CANARIES = {
    "hook leak": Canary(
        "segkd/models/taps.py",
        "            yield self.statistics\n        finally:\n            for handle in handles:\n                handle.remove()",
        "            yield self.statistics\n        finally:\n            pass",
        "tests/faults/test_players.py::test_no_hook_is_left_behind[ddad.segkd]",
    ),
    "balance over N only": Canary(
        "segkd/losses/priors.py", ".mean(dim=(0, 2, 3))", ".mean(dim=0)",
        "tests/losses/test_priors.py::test_balance_averages_over_the_pixels_not_over_the_batch_alone",
    ),
    "ignore forgotten": Canary(
        "segkd/evaluation/metrics.py", "target.masked_fill(ignored, count)", "target.masked_fill(ignored, 0)",
        "tests/evaluation/test_metrics.py::test_a_perfect_prediction_scores_one",
    ),
    # The moves' seeds are counted from where the process began, not from where the run did.
    "seed reset on resume": Canary(
        "segkd/training/distiller.py",
        'torch.manual_seed(seed_for(self.seed, step, 0 if self.latent_per_step else index, "latent"))',
        'self.drawn = getattr(self, "drawn", -1) + 1\n'
        '        torch.manual_seed(seed_for(self.seed, self.drawn, 0, "latent"))',
        "tests/faults/test_resume.py::test_resumed_after_any_step[ddad.segkd]",
    ),
    "teacher in train mode": Canary(
        "segkd/models/teacher.py", "self.eval()", "nn.Module.train(self)",
        "tests/faults/test_players.py::test_the_teacher_is_not_touched[ddad.segkd]",
    ),
    "NYUv2 mirrored": Canary(
        "segkd/data/nyuv2_mat.py",
        "images[frame - 1].transpose(2, 1, 0), labels[frame - 1].T",
        "np.rot90(images[frame - 1], -1, (1, 2)).transpose(1, 2, 0), np.rot90(labels[frame - 1], -1)",
        "tests/data/test_nyuv2.py::test_both_layouts_give_what_was_seen[40]",
    ),
}  # fmt: skip


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The package and its tests, to be spoilt."""
    for folder in ("segkd", "tests", "recipes/base"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def run(copy: Path, *tests: str) -> subprocess.CompletedProcess[str]:
    """pytest on a few tests of the copy, which sees its own segkd and nothing of this one."""
    environment = os.environ | {"PYTHONPATH": str(copy), "COLUMNS": "250", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    return subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", CANARIES)
def test_the_bug_is_caught(copy: Path, name: str) -> None:
    canary = CANARIES[name]
    text = (copy / canary.file).read_text()
    assert text.count(canary.good) == 1
    (copy / canary.file).write_text(text.replace(canary.good, canary.bad))
    done = run(copy, canary.test)
    assert done.returncode == 1, done.stdout + done.stderr
    failed = re.search(rf"^FAILED {re.escape(canary.test)} - (assert|AssertionError)", done.stdout, re.MULTILINE)
    assert failed and "1 failed" in done.stdout, done.stdout


def test_without_a_bug_all_of_them_pass(copy: Path) -> None:
    done = run(copy, *(canary.test for canary in CANARIES.values()))
    assert done.returncode == 0 and f"{len(CANARIES)} passed" in done.stdout, done.stdout + done.stderr
