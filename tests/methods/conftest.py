"""Collects the methods by file name, and their variants from the shipped base recipe; one of them has a SegNet too."""

from pathlib import Path

import pytest

from segkd.recipe import method_terms, presets

FIRST = ("ddad", "dfad", "noise", "kd")
"""The methods that each commit's tests put into the rows of the fault matrix; all are under the common suite."""
BASE = Path(__file__).parents[2] / "recipes" / "base" / "ddad.yaml"


def cases() -> list[str]:
    """METHOD.VARIANT for each variant that the base recipe knows; METHOD alone for a method without variants."""
    known = presets(BASE)
    variants = {method: [name for name in known if name.startswith(f"{method}.")] for method in method_terms()}
    return [*(case for method, found in variants.items() for case in found or [method]), "ddad.segkd+SegNet"]


def inverts(case: str) -> bool:
    """Whether nothing but the images themselves follows judges: they are made as they are kept."""
    terms = method_terms()[case.partition(".")[0]]
    return bool(terms.pixels) and not terms.source


def tiers(variants: bool = False) -> list[object]:
    """The cases of a row of the fault matrix: `FIRST` in each commit's tests, by one variant each or by all `variants`.

    The others are in T1.
    """
    first = {method: case for case in cases() if "+" not in case and (method := case.partition(".")[0]) in FIRST}
    chosen = [case for case in cases() if case.partition(".")[0] in FIRST] if variants else first.values()
    return [pytest.param(case, marks=() if case in chosen else pytest.mark.faults) for case in cases()]


@pytest.fixture(params=cases())
def case(request: pytest.FixtureRequest) -> str:
    """A method, with its variant."""
    return request.param
