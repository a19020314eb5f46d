"""What README.md promises: the commands that it names, and an own-teacher recipe that is the measured one."""

import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from segkd.recipe import further_terms, load, method_terms

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8") if (ROOT / "README.md").is_file() else ""
pytestmark = pytest.mark.skipif(not README, reason="no README.md in this checkout")


def fenced(kind: str, start: str) -> str:
    """The code block of a kind that begins so."""
    (found,) = [block for block in re.findall(rf"```{kind}\n(.*?)```", README, re.DOTALL) if block.startswith(start)]
    return found


@pytest.mark.parametrize(
    "command",
    [
        "pip install -e . && segkd distill recipes/quickstart.yaml",
        "pip install -e '.[test]' && pytest",
        "segkd distill recipes/nyuv2_deeplab.yaml",
    ],
)
def test_the_readme_has_the_commands_of_the_first_hour(command: str) -> None:
    assert command in [
        line for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL) for line in block.splitlines()
    ]


def test_ci_runs_the_readmes_test_command() -> None:
    assert "pip install --quiet -e '.[test]' && pytest" in (ROOT / ".ci" / "run").read_text("utf-8")


def test_the_own_teachers_recipe_is_the_one_that_the_tables_measured(tmp_path: Path) -> None:
    text = fenced("yaml", "extends: base/ddad.yaml")
    (tmp_path / "my.yaml").write_text(text, "utf-8")
    mine, measured = (load(recipe).as_dict() for recipe in (tmp_path / "my.yaml", "camvid_deeplab"))
    for own in ("teacher", "data"):
        mine.pop(own), measured.pop(own)
    for rhythm in ("dir", "eval_every", "sample_every", "save_every"):
        mine["run"].pop(rhythm), measured["run"].pop(rhythm)
    assert mine == measured


def test_the_dataset_description_is_yaml_of_known_keys() -> None:
    assert YAML(typ="safe").load(fenced("yaml", "classes:")).keys() == {"classes", "ignore"}


def test_the_page_of_methods_has_a_row_for_each_method_and_term() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs/methods.md").read_text("utf-8"), re.MULTILINE)
    assert sorted(rows) == sorted([*method_terms(), *further_terms()])
