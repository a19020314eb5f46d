"""The exit code and the text of every error."""

import pickle

import pytest

from segkd.foundation import errors
from segkd.foundation.errors import RecipeError, SegkdError, Stopped, UsageError


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("SegkdError", 1),
        ("UsageError", 2),
        ("RecipeError", 2),
        ("DataError", 3),
        ("TeacherError", 3),
        ("NumbersError", 4),
        ("StorageError", 5),
    ],
)
def test_exit_code(name: str, code: int) -> None:
    error = getattr(errors, name)("what happened")
    assert isinstance(error, SegkdError)
    assert error.exit_code == code
    assert str(error) == "what happened"


@pytest.mark.parametrize(("signum", "code"), [(2, 130), (15, 143)])
def test_stopped_by_a_signal(signum: int, code: int) -> None:
    assert Stopped(signum).exit_code == code
    assert Stopped(signum).signum == signum


def test_recipe_error_holds_one_line_each() -> None:
    error = RecipeError(["a.yaml:1: x: missing", "a.yaml:2: y: missing"])
    assert isinstance(error, UsageError)
    assert error.errors == ["a.yaml:1: x: missing", "a.yaml:2: y: missing"]
    assert str(error) == "a.yaml:1: x: missing\na.yaml:2: y: missing"


@pytest.mark.parametrize("error", [RecipeError(["a", "b"]), Stopped(15)])
def test_errors_cross_process_borders(error: SegkdError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert again.exit_code == error.exit_code
