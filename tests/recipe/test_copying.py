"""Copies of recipes that find, from another place, the files that the originals name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from segkd.cli.main import main
from segkd.foundation.errors import RecipeError
from segkd.recipe import find, load, shipped
from segkd.recipe.copying import anchored
from tests.recipe.test_precedence import OWN

Write = Callable[..., Path]

FORMS = {
    "plain": "extends: {0}\n",
    "quoted": "extends: '{0}'   # mine\n",
    "in double quotes": 'extends: "{0}"\n',
    "a quoted key": '"extends": {0}\n',
    "on a line of its own": "extends:\n  {0}\n",
    "with an anchor": "extends: &parent {0}\n",
    "after a byte-order mark": "\ufeffextends: {0}\n",
    "with Windows' line ends": "run: {{seed: 3}}\r\nextends: {0}\r\n",
    "all in one": "{{extends: {0}, run: {{seed: 3}}}}\n",
}  # fmt: skip


@pytest.mark.parametrize("folder", ["up", "has a # in it", "it's: mine", "\u00e9t\u00e9"])
@pytest.mark.parametrize("form", FORMS)
def test_a_relative_parent_is_found(
    write: Write, distill: dict[str, Any], tmp_path: Path, form: str, folder: str
) -> None:
    write(distill, f"{folder}/base/root.yaml")
    write(FORMS[form].format("../base/root.yaml"), f"{folder}/mine/leaf.yaml")
    assert main(["recipes", "cp", f"{folder}/mine/leaf.yaml", "copy.yaml"]) == 0
    copied, original = load("copy.yaml"), load(f"{folder}/mine/leaf.yaml")
    assert copied.model_copy(update={"run": original.run}) == original


@pytest.mark.parametrize("parent", ["base/ddad.yaml", "base/ddad", "camvid_deeplab", "camvid_cpu"])
def test_a_shipped_parent_stays_the_name_that_it_is(write: Write, tmp_path: Path, parent: str) -> None:
    text = OWN.replace("base/ddad.yaml", parent).replace("weights: x.safetensors", "weights: none.safetensors")
    text = text.replace("resnet18", "tu-resnet18")  # whose options may be those of the parent's encoders, too
    path = write(text, "deep/mine.yaml")
    assert f"extends: {parent}\n" in anchored(path)
    assert main(["recipes", "cp", "deep/mine.yaml", "copy.yaml"]) == 0
    assert load("copy.yaml").teacher == load(path).teacher
    write("run: {batch: 2}\n", f"deep/{parent}")
    assert f"extends: {tmp_path}/deep/{parent}" in anchored(path), "unless a file lies there"


def test_every_file_that_is_read_is_named_whole(write: Write, tmp_path: Path) -> None:
    text = """\
x: &x t.pt
teacher: {weights: *x, arch: FPN, statistics: s.st}   # weights: t.pt
student: {weights: "s.pt"}
model: &m {weights: &w ../m.pt}
presets:
  ddad.a: {teacher: {weights: t.pt}, student: {weights: none}}
  ddad.b: {teacher: {weights: teacher}, student: {weights: teacher}}
  dfad: {teacher: {weights: "${SEGKD_DATA}/w.pt"}, model: *m, student: {weights: *w}}
output: out.safetensors
"""
    assert (
        anchored(write(text, "a/r.yaml"))
        == f"""\
x: &x {tmp_path}/a/t.pt
teacher: {{weights: *x, arch: FPN, statistics: {tmp_path}/a/s.st}}   # weights: t.pt
student: {{weights: {tmp_path}/a/s.pt}}
model: &m {{weights: &w {tmp_path}/m.pt}}
presets:
  ddad.a: {{teacher: {{weights: {tmp_path}/a/t.pt}}, student: {{weights: none}}}}
  ddad.b: {{teacher: {{weights: {tmp_path}/a/teacher}}, student: {{weights: teacher}}}}
  dfad: {{teacher: {{weights: "${{SEGKD_DATA}}/w.pt"}}, model: *m, student: {{weights: *w}}}}
output: out.safetensors
"""
    )
    same = 'model: {weights: "${SEGKD_DATA}/w.pt"}\nstudent:\n  weights: none\nteacher: {weights: /t.pt}\n'
    assert anchored(write(same)) == same


@pytest.mark.parametrize("name", shipped())
def test_every_shipped_recipe_can_be_copied(here: Path, name: str) -> None:
    assert main(["recipes", "cp", name, "copy.yaml"]) == 0
    copied, original = load("copy.yaml").as_dict(), load(name).as_dict()
    for different in ("run", "output"):
        copied.pop(different, None), original.pop(different, None)
    assert copied == original
    assert (here / "copy.yaml").read_text().partition("\n")[0] == find(name).read_text().partition("\n")[0]


def test_targets_that_cannot_be(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "link").symlink_to("nowhere")
    for target in ("x" * 300, "no/such/folder.yaml", "link"):
        assert main(["recipes", "cp", "quickstart", target]) in (2, 5)
        err = capsys.readouterr().err
        assert len(err.splitlines()) == 1 and "bug" not in err
    assert not (here / "nowhere").exists()


def test_a_broken_recipe_is_not_copied(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    path = write("a: 1\na: 2\n")
    with pytest.raises(RecipeError, match=r"recipe\.yaml:2: a: duplicate key"):
        anchored(path)
    path.write_bytes(b"\xff\xfe")
    assert main(["recipes", "cp", "recipe.yaml", "copy.yaml"]) == 2
    assert capsys.readouterr().err == "recipe.yaml:1: not UTF-8 text\n"
