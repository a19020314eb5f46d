"""Collects the methods by file name, and their variants from the shipped base recipe; one of them has a SegNet too."""

from pathlib import Path

import pytest

from segkd.recipe import method_terms, presets

BASE = Path(__file__).parents[2] / "recipes" / "base" / "ddad.yaml"


def cases() -> list[str]:
    """METHOD.VARIANT for each variant that the base recipe knows; METHOD alone for a method without variants."""
    known = presets(BASE)
    variants = {method: [name for name in known if name.startswith(f"{method}.")] for method in method_terms()}
    return [*(case for method, found in variants.items() for case in found or [method]), "ddad.segkd+SegNet"]


@pytest.fixture(params=cases())
def case(request: pytest.FixtureRequest) -> str:
    """A method, with its variant."""
    return request.param
