"""Recipes of another version of segkd, by a user or in runs: that version knew fewer keys, or more, or called them otherwise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

from pydantic import ValidationError

from segkd.foundation.errors import RecipeError
from segkd.recipe.blocks import DistillRecipe, TeachRecipe
from segkd.recipe.messages import explain, key_name
from segkd.recipe.own_options import filled_in
from segkd.recipe.precedence import Choice, Layer
from segkd.recipe.strict_yaml import Node
from segkd.recipe.terms import Terms, further_terms, method_terms

MOVED = ("discrepancy", "temperature", "log", "bn", "ramp")
"""What `game` once held, and a method's `options` do now: the old names go on, with a line."""


def with_new_names(
    layers: Sequence[Layer], chosen: Choice, known: Mapping[str, Terms]
) -> tuple[list[Layer], list[str], list[str]]:
    """The layers with the keys that have moved where they are now, a line that tells so, and one for each said twice.

    Where the chosen method has no such option, the key did nothing, and is left out.
    """
    own = known[chosen.method].options if chosen.method in known else MOVED
    notes: list[str] = []
    errors: list[str] = []

    def renamed(tree: Node) -> Node:
        game, options = (
            tree.value.get(block) if isinstance(tree.value, dict) else None for block in ("game", "options")
        )
        if game is None or not isinstance(game.value, dict) or not set(MOVED) & set(game.value):
            return tree
        moved = {key: node for key, node in game.value.items() if key in MOVED}
        both = dict(options.value) if options is not None and isinstance(options.value, dict) else {}
        errors.extend(
            f"{node.where}: game.{key}: is options.{key} now, and that is given too: leave one of them out"
            for key, node in moved.items()
            if key in both
        )
        kept = {key: node for key, node in moved.items() if key in own}
        words = f"called {', '.join(f'options.{key}' for key in kept)} now" if kept else ""
        if idle := [key for key in moved if key not in own]:
            words += f"{'; ' * bool(kept)}{', '.join(idle)} left out, since {chosen.method} has no such option"
        notes.append(f"{game.where}: {', '.join(f'game.{key}' for key in moved)}: {words}")
        game = Node({key: node for key, node in game.value.items() if key not in MOVED}, game.where, game.preset)
        assert isinstance(tree.value, dict)
        entries = {**tree.value, "game": game, "options": Node(both | kept, game.where, game.preset)}
        return Node(entries, tree.where, tree.preset)

    holding = [Layer(layer.blocks, {name: layer.presets[name] for name in chosen.presets if name in layer.presets})
               for layer in layers]  # fmt: skip
    return [layer.changed(renamed) for layer in holding], list(dict.fromkeys(notes)), errors


def recalled(written: object, where: str) -> tuple[DistillRecipe | TeachRecipe, list[str]]:
    """The recipe that a run has written as a dict, and the keys in it that this version does not know.

    Keys that it lacks have their defaults.

    Raises:
        RecipeError: it is no recipe, or a value means nothing here; a line for each, which begins with `where`.
    """
    if not isinstance(written, dict):
        raise RecipeError(f"{where}: holds no recipe of segkd")
    kind = TeachRecipe if "model" in written else DistillRecipe
    data, unknown = _renamed(written), []
    for error in _errors(kind, data):
        if error["type"] == "extra_forbidden":
            *above, key = error["loc"]
            block = data
            for part in above:
                block = block[part]
            del block[key]
            unknown.append(key_name(error["loc"]))
    if errors := _errors(kind, data):
        told = (explain(error, kind) for error in errors)
        raise RecipeError(f"{where}: of another version of segkd: {key_name(path)}: {words}" for path, words in told)
    recipe = kind.model_validate(data)
    return (recipe if isinstance(recipe, TeachRecipe) else _with_options(recipe, where, unknown)), sorted(unknown)


def filled(written: dict[str, Any]) -> dict[str, Any]:
    """A recipe as a run has written it, with the defaults of what did not exist then; as it is where it cannot be read."""
    try:
        recipe, _ = recalled(written, "")
    except RecipeError:
        return written
    return _below(recipe.as_dict(), _renamed(written))


def _renamed(written: dict[str, Any]) -> dict[str, Any]:
    """The same, with the keys that have moved where they are now, unless the method has no such option."""
    data = deepcopy(written)
    game, terms = data.get("game"), data.get("terms")
    if isinstance(game, dict) and (moved := {key: game.pop(key) for key in MOVED if key in game}):
        method = method_terms().get(str(data.get("method")))
        own = {key: value for key, value in moved.items() if method is None or key in method.options}
        data["options"] = {**own, **(data.get("options") or {})}
    if isinstance(terms, dict):
        data["terms"] = {name: said if isinstance(said, dict) else {"weight": said} for name, said in terms.items()}
    return data


def _with_options(recipe: DistillRecipe, where: str, unknown: list[str]) -> DistillRecipe:
    """The recipe with the options that its method and its terms have here, and those unknown that they have not."""
    method, further = method_terms().get(recipe.method), further_terms()
    blocks = {("options",): (method.options, recipe.options)} if method is not None else {}
    blocks |= {("terms", name): (further[name].options, said) for name, said in recipe.terms.items() if name in further}
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    errors: list[str] = []
    for above, (options, said) in blocks.items():
        complete, wrong = filled_in(options, said)
        errors += [
            f"{where}: of another version of segkd: {key_name((*above, *path))}: {words}" for path, words in wrong
        ]
        found[above] = complete | ({"weight": said["weight"]} if above[0] == "terms" and "weight" in said else {})
        unknown += [key_name((*above, key)) for key in said if key not in found[above]]
    if errors:
        raise RecipeError(errors)
    terms = {name: found.get(("terms", name), said) for name, said in recipe.terms.items()}
    return recipe.model_copy(update={"options": found.get(("options",), recipe.options), "terms": terms})


def _below(defaults: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """What is given, over defaults."""
    both = {key: _below(defaults[key], value) if isinstance(value, dict) and isinstance(defaults.get(key), dict) else value
            for key, value in given.items()}  # fmt: skip
    return {**defaults, **both}


def _errors(kind: type[DistillRecipe] | type[TeachRecipe], data: dict[str, Any]) -> list[Any]:
    try:
        kind.model_validate(data)
    except ValidationError as error:
        return error.errors()
    return []
