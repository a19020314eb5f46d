"""What the pages promise: commands that are taken, lines that are said, and an own-teacher recipe that is the measured one."""

import ast
import re
import shlex
from pathlib import Path

import click
import pytest
from ruamel.yaml import YAML

from segkd.cli.main import cli
from segkd.cli.options import Session
from segkd.recipe import differences, further_terms, load, method_terms
from segkd.recipe.reference import keys

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


@pytest.mark.parametrize(
    ("measured", "variant", "also"),
    [("panel/camvid_imagenet", "pictures", {"synth.size", "run.steps"}), ("camvid_deeplab", "segkd", set())],
)
def test_the_own_teachers_recipe_is_what_was_measured(
    tmp_path: Path, measured: str, variant: str, also: set[str]
) -> None:
    """But for teacher, data and rhythm it is the panel's recipe, of another size and length, and with the tables' variant theirs."""
    (tmp_path / "my.yaml").write_text(fenced("yaml", "extends: base/ddad.yaml"), "utf-8")
    assert load(tmp_path / "my.yaml").variant == "pictures"
    mine, theirs = (load(recipe, [f"variant={variant}"]).as_dict() for recipe in (tmp_path / "my.yaml", measured))
    for recipe in (mine, theirs):
        for own in ("teacher", "data"):
            recipe.pop(own)
        for rhythm in ("dir", "eval_every", "sample_every", "save_every"):
            recipe["run"].pop(rhythm)
    assert set(differences(mine, theirs)) == also


def test_the_dataset_description_is_yaml_of_known_keys() -> None:
    assert YAML(typ="safe").load(fenced("yaml", "classes:")).keys() == {"classes", "ignore"}


def test_the_page_of_methods_has_a_row_for_each_method_and_term() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs/methods.md").read_text("utf-8"), re.MULTILINE)
    assert sorted(rows) == sorted([*method_terms(), *further_terms()])


PAGES = sorted({ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")})


def commands(page: Path) -> list[list[str]]:
    """The commands of segkd in a page's code for a shell, as words."""
    found = []
    for block in re.findall(r"```sh\n(.*?)```", page.read_text("utf-8"), re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
            lexer.whitespace_split = True
            parts: list[list[str]] = [[]]
            for word in lexer:
                parts.append([]) if set(word) <= set("&|;()<>") else parts[-1].append(word)
            for words in parts:
                if "segkd" in words and words[0] in ("segkd", "torchrun", "OMP_NUM_THREADS=4"):
                    found.append(words[words.index("segkd") + 1 :])
    return found


def parsed(words: list[str]) -> None:
    """Raises what the real command line would say of such words before it does anything."""
    command, rest, context = cli, words, None
    while isinstance(command, click.Group):
        context = command.make_context("segkd", list(rest), parent=context, obj=Session())
        name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        assert command is not None, name
    context = command.make_context(name, list(rest), parent=context)
    given = [*context.params.get("overrides", ()), *context.params.get("arguments", ())]
    for value in given:
        key = value.partition("=")[0]
        if "=" in value and not (
            key in KEYS
            or any(each.startswith(f"{key}.") for each in KEYS)
            or key.startswith(("options.", "terms.", "weights."))
        ):
            raise click.UsageError(f"{value}: no key of a recipe")


KEYS = {key.name for key in keys("")}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_of_a_page_is_one_that_the_command_line_takes(page: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for words in commands(page):
        try:
            parsed(words)
        except click.ClickException as error:
            pytest.fail(f"{page.name}: segkd {shlex.join(words)}: {error.format_message()}")


@pytest.mark.parametrize(
    "words",
    ["distil my.yaml", "distill", "distill my.yaml --stepz 3", "export a --out b --format tf", "distill a run.step=3"],
)
def test_a_command_that_is_none_is_noticed(words: str) -> None:
    with pytest.raises(click.ClickException):
        parsed(words.split())


def test_the_pages_have_commands_and_the_table_of_commands_has_each_verb() -> None:
    assert sum(len(commands(page)) for page in PAGES) > 50
    rows = re.findall(r"^\| `segkd (\w+)", (ROOT / "docs/using.md").read_text("utf-8"), re.MULTILINE)
    assert sorted(rows) == sorted(cli.commands)


def said() -> list[str]:
    """All texts in segkd's code, with a NUL for what is filled in."""
    found = []
    for path in (ROOT / "segkd").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.append("".join(part.value if isinstance(part, ast.Constant) else "\0" for part in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


def test_the_lines_of_the_page_on_trouble_are_lines_of_segkd() -> None:
    texts = said()
    lines = re.findall(r"^\| `(.+?)` \|", (ROOT / "docs/troubleshooting.md").read_text("utf-8"), re.MULTILINE)
    pieces = [piece.strip(" .") for line in lines for piece in re.split(r"\.\.\.|[:;,]| \d+ |KEY", line)]
    unknown = [piece for piece in pieces if len(piece) > 6 and not any(piece in text for text in texts)]
    assert len(lines) > 30 and not unknown


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_within_the_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text("utf-8")):
        file, _, anchor = target.partition("#")
        path = page.parent / file if file else page
        assert path.exists(), target
        heads = (
            [
                re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-")
                for head in re.findall(r"^#+ (.+)$", path.read_text("utf-8"), re.MULTILINE)
            ]
            if anchor
            else []
        )
        assert not anchor or anchor in heads, target
