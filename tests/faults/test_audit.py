"""Row T4: no method opens a real image to train, and each that is data-free runs where there is none."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from segkd import runs
from segkd.cli.main import main
from segkd.foundation import audit
from segkd.foundation.errors import DataError
from tests.conftest import Tiny
from tests.methods.conftest import tiers

LITTLE = ("run.steps=2", "run.threads=1", "game.student_moves=1")
QUIET = runs.Options(quiet=True)


pytestmark = pytest.mark.usefixtures("own_threads")


@pytest.fixture
def nowhere(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tiny:
    """The tiny game in a folder of its own with the teacher alone: every data root is absent."""
    for name in ("tiny.yaml", "teacher.safetensors"):
        shutil.copy(tiny.folder / name, tmp_path)
    monkeypatch.delenv("SEGKD_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    return Tiny(tmp_path)


def opened() -> int:
    return audit.count("training") + audit.count("rendered")


@pytest.mark.parametrize("case", tiers())
@pytest.mark.row("T4", 2)
def test_training_opens_no_real_image(row, tiny: Tiny, nowhere: Tiny, tmp_path: Path, case: str):
    audit.install()
    shows_images = tiny.recipe(case).synth.kind == "images"
    before, looked = opened(), audit.count("evaluation")
    measured = [f"run.dir={tmp_path}/measured", "data.name=camvid", "data.watch=val", "data.final=test"]
    summary = runs.distill(tiny.recipe(case, *LITTLE, *measured), QUIET)
    assert summary["real_images_for_training"] == (4 if shows_images else 0)
    assert (opened() > before) == shows_images
    assert summary["real_images_for_evaluation"] == 4  # two of val, two of test, each with its mask
    assert audit.count("evaluation") - looked == 2 * summary["real_images_for_evaluation"]
    row.count()

    before = opened()
    recipe = nowhere.recipe(case, *LITTLE)
    if shows_images:
        with pytest.raises(DataError, match="camvid: no such folder"):
            runs.distill(recipe, QUIET)
        assert not Path(recipe.run.dir).exists()
    else:
        summary = runs.distill(recipe, QUIET)
        assert summary["real_images_for_training"] == summary["real_images_for_evaluation"] == 0
        assert opened() == before and summary["agreement"] is not None
        assert (Path(recipe.run.dir) / "student" / "model.safetensors").is_file()
    row.count()


@pytest.mark.parametrize(
    ("kind", "words"),
    [("noise", "data-free: no real image was opened to train"), ("images", "not data-free: 4 real images trained")],
)
def test_the_end_of_a_run_says_so(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, words: str
):
    method = {"noise": "noise", "images": "kd"}[kind]
    data = ["data.name=camvid", f"data.root={tiny.folder}/camvid", "data.final=null"]
    code = main(["distill", str(tiny.path), f"method={method}", "--quiet", *LITTLE, *data, f"run.dir={tmp_path}/run"])
    assert code == 0
    assert f" {words}" in capsys.readouterr().out
