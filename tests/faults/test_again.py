"""A finished run that is called again with other words: it does what they say, or tells in one line why not."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from segkd.cli.main import main
from segkd.training import checkpoint
from tests.faults.test_storage import contents

pytestmark = pytest.mark.usefixtures("own_threads")
LR = "student.optimizer.lr"
# What is given to a run that has done two steps, its exit code, and what is said.
ASKED: dict[str, tuple[list[str], int, str]] = {
    "the same": ([], 0, ""),
    "the same, and a key that may differ": (["--accept", "run.steps"], 0, "finished, with the same run.steps"),
    "more steps": (["run.steps=3"], 2, "finished after 2 steps; to train it on .*--accept run.steps"),
    "more steps, accepted": (["run.steps=3", "--accept", "run.steps"], 0, "finished after 2 steps, and trained on"),
    "more steps, and more": (["run.steps=3", f"{LR}=0.05", "--accept", "run.steps"], 2, f"--accept {LR}"),
    "fewer steps": (["run.steps=1"], 2, "finished after 2 steps, which are more than run.steps 1"),
    "fewer steps, accepted": (["run.steps=1", "--accept", "run.steps"], 2, "which are more than run.steps 1"),
    "another recipe": ([f"{LR}=0.05"], 2, rf"a finished run of another recipe \({LR}\)"),
    "another recipe, accepted": ([f"{LR}=0.05", "--accept", LR], 2, f"no step is left that another {LR} could change"),
    "the other weights": (["run.headline=last"], 2, "--accept run.headline"),
    "the other weights, accepted": (["run.headline=last", "--accept", "run.headline"], 0, "made again with another run.headline"),
    "a new folder": (["--resume", "never"], 2, "holds a finished run"),
    "from a checkpoint": (["--resume", "CHECKPOINT"], 0, "finished, and played again from"),
    "from none": (["--resume", "nowhere.ckpt"], 5, "nowhere.ckpt"),
    "another data set": (["data.name=camvid"], 0, "measured again with another data.name"),
    "another root": (["data.name=camvid", "data.root=nowhere"], 3, "nowhere"),
    "more samples": (["run.sample_every=1"], 0, ""),
}  # fmt: skip


@pytest.fixture(scope="module")
def finished(tiny, tmp_path_factory) -> Path:
    """The folder of a recipe and its finished run."""
    folder = tmp_path_factory.mktemp("finished")
    given = ["run.threads=1", "run.steps=2", "run.save_every=1", "game.student_moves=1", "run.sample_every=5"]
    (folder / "own.yaml").write_text(tiny.recipe("noise", *given, "run.dir=run").to_yaml())
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["distill", "own.yaml", "--quiet"]) == 0
    return folder


@pytest.mark.row("R10", 1)
@pytest.mark.parametrize("name", ASKED)
def test_what_is_asked_is_done_or_refused(row, finished, tmp_path, monkeypatch, capsys, name):
    arguments, expected, words = ASKED[name]
    monkeypatch.chdir(shutil.copytree(finished, tmp_path / "here"))
    path = str(checkpoint.listed(Path("run/checkpoints"))[-1])
    before = contents(Path("run"))
    for _ in row:
        code = main(
            ["distill", "own.yaml", *(argument.replace("CHECKPOINT", path) for argument in arguments), "--quiet"]
        )
        told = capsys.readouterr().err.splitlines()
        assert code == expected and len(told) <= 2, told
        assert re.search(words, " ".join(told)) if words else not told, told
        if code or told == [] or "with the same" in told[0]:
            assert contents(Path("run")) == before
