"""Recipes: typed, strict, and checked without torch. `load` reads one; every mistake is a line with its place."""

from segkd.recipe.blocks import DistillRecipe, Recipe, TeachRecipe
from segkd.recipe.loading import differences, expand_root, load, presets, unset_root, with_values
from segkd.recipe.sources import find, named, shipped
from segkd.recipe.terms import Terms, further_terms, method_terms, read_terms, variant_of
from segkd.recipe.versions import filled, recalled

__all__ = [
    "DistillRecipe",
    "Recipe",
    "TeachRecipe",
    "Terms",
    "differences",
    "expand_root",
    "filled",
    "find",
    "further_terms",
    "load",
    "method_terms",
    "named",
    "presets",
    "read_terms",
    "recalled",
    "shipped",
    "unset_root",
    "variant_of",
    "with_values",
]
