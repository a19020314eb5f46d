"""Recipes from anybody: little work, few lines, and one line for a file that is none or cannot be read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from segkd.cli.main import main
from segkd.foundation.errors import RecipeError, UsageError
from segkd.recipe import Terms, load, method_terms, read_terms
from segkd.recipe.strict_yaml import MAX_ERRORS, dump
from tests.work import work_below

Write = Callable[..., Path]


def long_keys(count: int, block: str = "") -> str:
    start = f"{block}:\n" if block else ""
    return start + "".join(f"{' ' if block else ''}{'k' * 70}{number}: 1\n" for number in range(count))


LONG = "x" * 400_000
MANY = {
    "unknown keys": long_keys(2400),
    "unknown keys of a block": "method: ddad\n" + long_keys(2400, "run"),
    "unknown terms": "method: ddad\n" + long_keys(2400, "weights"),
    "unknown further terms": "method: ddad\n" + long_keys(2400, "terms"),
    "presets of unknown methods": "method: ddad\npresets:\n" + "".join(f" m{n}: {{a: 1}}\n" for n in range(2400)),
    "presets that are none": "method: ddad\n" + long_keys(2400, "presets"),
    "values of the wrong type": "method: ddad\nsynth: {sizes: [" + "[a, b], " * 3000 + "]}\n",
    "a long list": "method: ddad\nteacher: {classes: [" + "a, " * 9000 + "]}\n",
    "a long text in its place": f"method: ddad\nrun: {{seed: {LONG}, batch: {LONG}}}\n",
    "duplicate keys": "a: 1\n" * 2400,
    "tags": "".join(f"a{number}: !t 1\n" for number in range(2400)),
}  # fmt: skip


@pytest.mark.parametrize("name", MANY)
def test_thousands_of_mistakes_take_the_work_of_a_hundred(write: Write, methods: dict[str, Terms], name: str) -> None:
    path = write(MANY[name])
    with work_below(calls=5_000_000, megabytes=150), pytest.raises(RecipeError) as caught:
        load(path, methods=methods)
    assert 1 <= len(caught.value.errors) <= MAX_ERRORS + 1
    assert all(len(line) < 700 for line in caught.value.errors)


def test_no_more_than_a_hundred_mistakes_are_told_and_that_there_are_more(
    write: Write, methods: dict[str, Terms]
) -> None:
    with pytest.raises(RecipeError) as caught:
        load(write(MANY["unknown keys"]), methods=methods)
    assert caught.value.errors[-1] == f"recipe.yaml: and more mistakes than these {MAX_ERRORS}"
    with pytest.raises(RecipeError) as caught:
        load(write(MANY["duplicate keys"]), methods=methods)
    assert caught.value.errors[-1].endswith(f"and no further than the first {MAX_ERRORS} mistakes")


@pytest.mark.parametrize("block", ["teacher: {options: {", "weights: {"])
def test_a_long_text_is_not_repeated_by_aliases(write: Write, methods: dict[str, Terms], block: str) -> None:
    """A megabyte would stand for gigabytes, in each checkpoint too."""
    path = write(
        f"x: &x {LONG}\n{block}" + ", ".join(f"k{number}: *x" for number in range(4000)) + "}" * block.count("{")
    )
    with work_below(calls=500_000, megabytes=50), pytest.raises(RecipeError, match="with aliases expanded"):
        load(path, methods=methods)


def test_a_key_given_twice_hides_no_other_mistake(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    write("extends: quickstart\nrun: {seed: x}\nrun: {seed: 1}\n")
    assert main(["recipes", "validate", "recipe.yaml"]) == 2
    assert [line.split(": ")[1] for line in capsys.readouterr().err.splitlines()] == ["run", "run.seed"]


def test_a_long_chain(write: Write, distill: dict[str, Any], methods: dict[str, Terms]) -> None:
    write(distill, "0.yaml")
    for number in range(1, 25):
        write(f"extends: {number - 1}.yaml\nrun: {{seed: {number}}}\n", f"{number}.yaml")
    assert load("19.yaml", methods=methods).run.seed == 19
    with pytest.raises(RecipeError, match=r"1\.yaml:1: extends: more than 20 files"):
        load("20.yaml", methods=methods)


DIAMONDS = "class C0:\n    student = ('kd',)\n    weights = {'kd': 1.0}\n" + "".join(
    f"class C{n}(C{n - 1}, C{n - 1}, C{max(n - 2, 0)}):\n    pass\n" for n in range(1, 60)
)
METHODS = {
    "diamonds": DIAMONDS,
    "a long line of classes": "class C0:\n    student = ('kd',)\n"
    + "".join(f"class C{n}(C{n - 1}):\n    pass\n" for n in range(1, 190)),
    "many classes": "class C:\n    pass\n" * 50_000,
    "brackets": "x = " + "(" * 50_000,
    "lists": "x = " + "[" * 150 + "]" * 150,
    "signs": "class C:\n    student = " + "-" * 50_000 + "1\n",
    "sums": "class C:\n    student = " + "1+" * 50_000 + "1\n",
    "large": "#" * 2_000_000,
    "a NUL": "x = '\0'",
    "not text": "\ud800",
}


@pytest.mark.parametrize("name", METHODS)
def test_a_method_file_is_read_with_little_work_or_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "mine.py"
    path.write_bytes(METHODS[name].encode(errors="surrogatepass"))
    with work_below(calls=500_000, megabytes=200):
        try:
            assert read_terms([path])["mine"].student == ("kd",)
        except UsageError as error:
            assert str(path) in str(error) and len(str(error).splitlines()) == 1


def test_a_method_file_that_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.py")
    for path in (tmp_path, tmp_path / "pipe.py", tmp_path / "none.py"):
        with pytest.raises(UsageError, match="cannot read the method"):
            method_terms(tmp_path / "nowhere", [path])


@contextmanager
def plain_user() -> Iterator[None]:
    """As somebody whom permissions bind; the superuser reads everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def private(here: Path, distill: dict[str, Any]) -> Iterator[Path]:
    """A readable folder with a recipe that may not be read, and a folder that may not be entered, with another."""
    for folder in (here, *here.parents):
        if folder.stat().st_uid == os.geteuid() and folder != Path("/tmp"):
            folder.chmod(folder.stat().st_mode | 0o055)
    (here / "secret.yaml").write_text(dump(distill))
    (here / "closed").mkdir()
    (here / "closed/mine.yaml").write_text(dump(distill))
    (here / "child.yaml").write_text("extends: secret.yaml\n")
    (here / "other.yaml").write_text("extends: closed/mine.yaml\n")
    (here / "secret.yaml").chmod(0)
    (here / "closed").chmod(0)
    yield here
    (here / "closed").chmod(0o755)


@pytest.mark.parametrize("name", ["secret.yaml", "child.yaml", "closed/mine.yaml", "other.yaml"])
def test_a_recipe_that_may_not_be_read(private: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    with plain_user():
        assert main(["recipes", "show", name]) == 2
        err = capsys.readouterr().err
        assert len(err.splitlines()) == 1 and "Permission denied" in err
        assert main(["recipes", "validate", name]) == 2 and main(["recipes", "cp", "secret.yaml", "c.yaml"]) == 2
    assert "bug" not in capsys.readouterr().err


def test_what_is_no_recipe_is_told(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "folder").mkdir()
    (here / "run").mkdir()
    (here / "run/recipe.yaml").write_text("a: 1\n")
    os.mkfifo(here / "pipe.yaml")
    (here / "link.yaml").symlink_to("nowhere.yaml")
    said = {
        "folder": '"folder": a folder, and no recipe file',
        "run": '"run": a folder; its recipe is recipe.yaml in it',
        "pipe.yaml": '"pipe.yaml": no regular file',
        "link.yaml": '"link.yaml": a link to nothing',
        "/dev/zero": '"/dev/zero": no regular file',
        "x" * 300: "no such recipe",
    }
    for name, line in said.items():
        for command in (["recipes", "show", name], ["recipes", "validate", name], ["recipes", "cp", name, "c.yaml"], ["distill", name]):  # fmt: skip
            assert main(command) == 2
            err = capsys.readouterr().err
            assert line in err and len(err.splitlines()) == 1
    for name in ("folder", "pipe.yaml", "/dev/zero", "link.yaml"):
        (here / "child.yaml").write_text(f"extends: {name}\n")
        assert main(["recipes", "show", "child.yaml"]) == 2
        assert capsys.readouterr().err.startswith("child.yaml:1: extends: ")


def test_a_long_list_on_the_command_line(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ", ".join(f"class{number}" for number in range(200))
    assert main(["recipes", "validate", "quickstart", f"teacher.classes=[{names}]"]) == 0
    assert main(["recipes", "validate", "quickstart", f"teacher.clases=[{names}]"]) == 2
    assert "teacher.clases: unknown key, did you mean 'classes'?" in capsys.readouterr().err
    assert main(["recipes", "validate", "quickstart", "x" * 5000]) == 2
    assert "no such recipe" in capsys.readouterr().err
