"""Which runs a comparison is made of."""

from dataclasses import replace

import pytest

from segkd.foundation.errors import RecipeError, UsageError
from segkd.recipe import TeachRecipe, load
from segkd.recipe.comparison import Asked, cells

BASELINES = ["noise", "kd (procedural pictures)", "kd (original images)", "labels"]


def planned(out, *methods, source="quickstart", **asked):
    return cells([source], Asked(methods, **asked), out)


def test_each_method_and_the_baselines_once_a_seed(tmp_path):
    found, lines = planned(tmp_path, "ddad.paper", "dfad", "noise", seeds=2, steps=3)
    assert [cell.row for cell in found] == ["ddad (paper)", "dfad", *BASELINES] * 2 and not lines
    assert [cell.seed for cell in found] == [0] * 6 + [1] * 6
    assert len({cell.folder for cell in found}) == 12 and all(cell.folder.is_relative_to(tmp_path) for cell in found)
    for cell in found[:5]:
        recipe = load(cell.source, cell.values, cell.verb)
        assert recipe == cell.resolved and (recipe.run.steps, recipe.run.dir) == (3, str(cell.folder))
    assert found[2].resolved.synth.kind == "noise" and found[3].resolved.synth.kind == "pictures"
    assert found[4].resolved.synth.kind == "images" and found[4].resolved.method == "kd"


def test_the_recipe_s_own_method_is_taken_where_none_is_named(tmp_path):
    assert [cell.row for cell in planned(tmp_path)[0]] == ["ddad (segkd)", *BASELINES]


def test_the_labelled_student_has_as_many_updates_of_the_same_student(tmp_path):
    distilled, taught = (planned(tmp_path, steps=3)[0][at] for at in (0, -1))
    recipe, model = distilled.resolved, taught.resolved.model
    assert isinstance(taught.resolved, TeachRecipe) and taught.verb == "teach" and taught.method is None
    assert taught.resolved.run.steps == 3 * recipe.game.student_moves and taught.resolved.output is None
    assert (model.arch, model.encoder, model.options) == (
        recipe.student.arch,
        recipe.student.encoder,
        recipe.student.options,
    )
    assert (model.mean, model.classes, model.weights) == (recipe.teacher.mean, recipe.teacher.classes, None)
    assert (
        taught.resolved.train.optimizer == recipe.student.optimizer and taught.resolved.data.final == recipe.data.final
    )
    assert taught.resolved.run.batch == recipe.run.batch


def test_a_budget_takes_the_place_of_steps(tmp_path):
    assert {cell.resolved.run.budget for cell in planned(tmp_path, budget="5m")[0]} == {300}


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ({"data.name": "null"}, "data.name is null"),
        ({"data.name": "camvid", "data.root": "${SEGKD_DATA}/camvid"}, "SEGKD_DATA is not set"),
    ],
)
def test_without_labelled_images_a_line_says_what_is_left_out(tmp_path, monkeypatch, source, why):
    monkeypatch.delenv("SEGKD_DATA", raising=False)
    found, [line] = planned(tmp_path, values=tuple(f"{key}={value}" for key, value in source.items()), seeds=2)
    assert [cell.row for cell in found[:3]] == ["ddad (segkd)", *BASELINES[:2]] and len(found) == 6
    assert line.startswith("quickstart: kd (original images) and labels left out") and why in line


@pytest.mark.parametrize(
    ("methods", "asked", "line"),
    [
        (("dfda",), {}, "--methods dfda: unknown method; expected one of "),
        (("dfad", "dfad"), {}, "--methods dfad: named twice"),
        ((), {"values": ("run.seed=3",)}, "run.seed: segkd compare sets it itself: use --seeds"),
        ((), {"values": ("run.steps=3",)}, "run.steps: segkd compare sets it itself: use --steps or --budget"),
    ],
)
def test_what_cannot_be_compared(tmp_path, methods, asked, line):
    with pytest.raises(UsageError, match=line):
        planned(tmp_path, *methods, **asked)


def test_mistakes_are_told_once_for_all_runs(tmp_path):
    with pytest.raises(RecipeError) as told:
        planned(tmp_path, "dfad", "ddad.slow", values=("run.batch=none",), seeds=2)
    lines = told.value.errors
    assert len(lines) == len(set(lines)) and any('unknown variant "slow"' in line for line in lines)
    with pytest.raises(RecipeError, match="is ddad .segkd., which is named otherwise, too"):
        planned(tmp_path, "ddad", "ddad.segkd")


def test_two_recipes_of_one_name_would_share_their_folders(tmp_path):
    with pytest.raises(UsageError, match="quickstart: two recipes of this name"):
        cells(["quickstart", "quickstart"], Asked(), tmp_path)


def test_a_method_of_one_s_own_has_to_be_named(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("from segkd.methods.dfad import DFAD\n\n\nclass Mine(DFAD):\n    pass\n")
    asked = Asked(("mine",), method_file=file, values=("synth.kind=dcgan", "synth.width=8"))
    assert [cell.row for cell in cells(["quickstart"], asked, tmp_path)[0]] == ["mine", *BASELINES]
    with pytest.raises(UsageError, match="none of --methods is mine"):
        cells(["quickstart"], replace(asked, methods=("dfad",)), tmp_path)
