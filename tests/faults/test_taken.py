"""Folders that are somebody's own: a run says so in one line, and changes nothing in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from segkd.cli.main import main
from tests.faults.harness import TEACH
from tests.runs.test_folder import OTHERS, contents, made


@pytest.mark.row("W6", 1)
@pytest.mark.parametrize("verb", ["distill", "teach"])
@pytest.mark.parametrize("name", OTHERS)
def test_nothing_of_it_changes(row, tiny, tmp_path, monkeypatch, capsys, name, verb):
    monkeypatch.chdir(made(tmp_path / "mine", OTHERS[name]))
    if verb == "distill":
        recipe = tiny.path
    else:
        recipe = tmp_path / "teach.yaml"
        recipe.write_text(TEACH.replace("ROOT", str(tiny.folder / "camvid")))
    before = contents(Path())
    for _ in row:
        assert main([verb, str(recipe), "run.dir=.", "run.steps=1", "--quiet"]) == 5
        told = capsys.readouterr().err.splitlines()
        assert len(told) == 1 and told[0].startswith("segkd: .: is no run folder, and holds "), told
        assert contents(Path()) == before
