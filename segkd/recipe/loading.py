"""From files and command-line values to one typed recipe, or to all of its mistakes at once."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from segkd.foundation.errors import RecipeError, UsageError
from segkd.recipe import described, hub, networks, pretrained
from segkd.recipe.blocks import OWN, DistillRecipe, Teacher, TeachRecipe
from segkd.recipe.given import RECIPE
from segkd.recipe.messages import error_line, explain, key_name, nearest, place, shown, suggestion
from segkd.recipe.own_options import Option, Options, filled_in
from segkd.recipe.precedence import (
    Layer,
    choice,
    held_back,
    layer_of,
    resolved,
    with_weights_of_terms,
    with_whole_lists,
    without_effect,
    without_foreign_names,
)
from segkd.recipe.sources import Overrides, find, no_file, read_chain, read_overrides, scalar, shown_path, tell
from segkd.recipe.strict_yaml import MAX_ERRORS, Node, plain
from segkd.recipe.terms import Further, Terms, further_terms, method_terms
from segkd.recipe.versions import with_new_names

Kind = Literal["distill", "teach"]
Source = str | Path | Mapping[str, Any]
_MODELS: dict[Kind, type[DistillRecipe] | type[TeachRecipe]] = {"distill": DistillRecipe, "teach": TeachRecipe}
_VARIANTS = ("segkd", "pictures", "paper")
WEIGHT = Option(0.0, ">= 0", "weight; 0: off")


def load(
    source: Source,
    overrides: Overrides = (),
    kind: Kind | None = None,
    methods: Mapping[str, Terms] | None = None,
    method_file: Path | None = None,
    own_teacher: str | None = None,
    fetch: bool = True,
) -> DistillRecipe | TeachRecipe:
    """Reads a recipe, with everything it extends, its presets and the command line's values.

    Args:
        source: a path, the name of a shipped recipe, or a dict, whose files are relative to the working directory.
        overrides: `key.sub=value`, the value in YAML; or a dict of values by their dotted keys.
        kind: what the recipe must be; None: a recipe with `method` distils, one with `model` teaches.
        methods: the methods that exist; None: those in `segkd/methods`.
        method_file: a user's own method, which the recipe must choose; it is read here, and not run.
        own_teacher: what a user's own teacher is called, which takes the place of the recipe's architecture.
        fetch: a teacher on the hub is downloaded where the recipe does not say how its input was normalised.

    Returns:
        The recipe, complete: the method's weights and `run.dir` are filled in.

    Raises:
        RecipeError: with one line for each mistake.
        TeacherError: the folder of the teacher's weights says not how its input was normalised.
        StorageError: the teacher cannot be downloaded.
    """
    found = read(source, overrides, kind, methods, method_file, own_teacher, fetch)
    for line in found.notes:
        tell(line)
    return found.recipe


@dataclass(frozen=True)
class Loaded:
    """A recipe, the tree that says where its values were written, and lines that whoever runs it should read."""

    recipe: DistillRecipe | TeachRecipe
    tree: Node
    notes: list[str]


def read(
    source: Source,
    overrides: Overrides = (),
    kind: Kind | None = None,
    methods: Mapping[str, Terms] | None = None,
    method_file: Path | None = None,
    own_teacher: str | None = None,
    fetch: bool = False,
) -> Loaded:
    """As `load`, with the places of all values, and without a word to the user."""
    path = Path(RECIPE) if isinstance(source, Mapping) else find(source)
    files, errors = _layers(source if isinstance(source, Mapping) else path)
    given, wrong = read_overrides(overrides)
    errors += wrong
    layers = with_whole_lists([*files, Layer(given, {})])
    chosen = choice(layers)
    known: Mapping[str, Terms] = {}
    notes: list[str] = []
    if chosen.method is not None or kind == "distill":
        known = methods if methods is not None else method_terms(extra=() if method_file is None else [method_file])
        layers, notes, wrong = with_new_names(with_weights_of_terms(layers), chosen, known)
        errors += wrong
        layers, lines = without_foreign_names(layers, chosen, known)
        notes += lines + held_back(layers, chosen) + without_effect(layers, chosen)
    tree = resolved(layers[:-1], layers[-1], chosen.presets)

    kind, wrong = _kind(tree, kind, path)
    errors += wrong
    if own_teacher is not None and kind == "teach":
        errors.append(f"{shown_path(path)}: this recipe teaches, and has no teacher that {own_teacher} could be")
    elif own_teacher is not None:
        tree, lines = _with_own_teacher(tree, own_teacher)
        notes += lines
    if own_teacher is None and kind == "distill":
        tree, lines, wrong = _with_described(tree, fetch)
        notes += lines
        errors += wrong
    further = further_terms() if kind == "distill" else {}
    if method_file is not None and chosen.method != method_file.stem:
        other = f"the recipe's method is {chosen.method}" if chosen.method else "the recipe has no method"
        errors.append(f"{shown_path(method_file)}: {other}; choose method={method_file.stem}, or leave the file out")
    unchosen = False
    if kind == "distill":
        choosing, others = _choice_errors(tree, files, known), _method_errors(tree, known, further)
        errors += _preset_errors(files, known) + choosing + others
        unchosen = bool(choosing)
    recipe, wrong = _typed(tree, _MODELS[kind], unchosen)
    if not unchosen and any(line.endswith(": missing") for line in wrong):
        errors += _no_variant(tree, files)
    errors += wrong
    if errors or recipe is None:
        errors = list(dict.fromkeys(errors))
        more = [f"{shown_path(path)}: and more mistakes than these {MAX_ERRORS}"] if len(errors) > MAX_ERRORS else []
        raise RecipeError(errors[:MAX_ERRORS] + more)
    name = run_name(path if isinstance(source, Mapping) else Path(source), given)
    complete, lines = _completed(recipe, known, further, name, fetch)
    return Loaded(complete, tree, notes + lines)


def presets(source: str | Path, own: bool = False) -> list[str]:
    """The names of a recipe's presets (`METHOD` or `METHOD.VARIANT`), as written; `own`: those of its file alone.

    Raises:
        RecipeError: a file cannot be read; its other mistakes are told by `load`.
    """
    files, _ = _layers(find(source))
    return list(dict.fromkeys(name for file in (files[-1:] if own else files) for name in file.presets))


def _layers(source: Path | Mapping[str, Any]) -> tuple[list[Layer], list[str]]:
    """A recipe and what it extends, the farthest first, and one line for each mistake."""
    trees, errors = read_chain(source)
    files: list[Layer] = []
    for tree in trees:
        layer, wrong = layer_of(tree)
        files.append(layer)
        errors += wrong
    return files, errors


def with_values(recipe: DistillRecipe | TeachRecipe, values: Mapping[str, Any]) -> DistillRecipe | TeachRecipe:
    """The recipe with some keys changed (`{"run.steps": 300}`), checked like any other.

    Raises:
        RecipeError: a key or a value is not allowed.
    """
    data = recipe.as_dict()
    for dotted, value in values.items():
        *blocks, key = dotted.split(".")
        block = data
        for name in blocks:
            block = block.setdefault(name, {})
        block[key] = value
    try:
        return type(recipe).model_validate(data)
    except ValidationError as error:
        found = [explain(item, type(recipe)) for item in _first(error.errors())]
        raise RecipeError(f"{key_name(path)}: {message}" for path, message in found) from error


def differences(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    """The dotted keys whose values differ between two recipes as dicts, sorted; a key that one lacks differs."""
    found: list[str] = []
    for key in a.keys() | b.keys():
        if key in a and key in b and isinstance(a[key], dict) and isinstance(b[key], dict):
            found += [f"{key}.{inner}" for inner in differences(a[key], b[key])]
        elif key not in a or key not in b or a[key] != b[key]:
            found.append(key)
    return sorted(found)


def unset_root(root: str) -> bool:
    """Whether a path names SEGKD_DATA, and the variable is unset or empty."""
    return "${SEGKD_DATA}" in root and not os.environ.get("SEGKD_DATA")


def expand_root(root: str) -> Path:
    """`data.root` or a weights file as a path: `${SEGKD_DATA}` becomes the environment variable, `~` the home folder.

    Weights on the hub (`hf://`) become the folder that they are in once they are downloaded.

    Raises:
        UsageError: the path names SEGKD_DATA and the variable is unset or empty.
        StorageError: the weights cannot be downloaded.
    """
    if hub.on_hub(root):
        return hub.located(root)
    if "${SEGKD_DATA}" in root:
        folder = os.environ.get("SEGKD_DATA", "")
        if not folder:
            remedy = "set the environment variable SEGKD_DATA to the folder of the data sets, or name it: data.root=DIR"
            raise UsageError(f"{root}: {remedy}")
        root = root.replace("${SEGKD_DATA}", folder)
    return Path(root).expanduser()


def run_name(source: Path, given: Node) -> str:
    """The name of a recipe's runs: the stem that it was called by, and method and variant if the command line chose them."""
    chosen = (scalar(given, key) for key in ("method", "variant"))
    return "-".join([source.stem, *(name for name in chosen if name)])


def _kind(tree: Node, kind: Kind | None, path: Path) -> tuple[Kind, list[str]]:
    """What the recipe is, or most likely was meant to be, and what speaks against it."""
    assert isinstance(tree.value, dict)
    keys = {key for key, node in tree.value.items() if node.value is not None}
    if "method" in keys and "model" in keys:
        where = place(tree, ("model",))
        return kind or "distill", [f"{where}: model: a recipe has method (to distil) or model (to teach), not both"]
    found: Kind | None = "distill" if "method" in keys else "teach" if "model" in keys else None
    if kind and found and kind != found:
        where = place(tree, ("method" if found == "distill" else "model",))
        raise RecipeError(f"{where}: this recipe is for the other command: segkd {found} {path}")
    if found or kind:
        return found or kind, []  # type: ignore[return-value]
    only_teach = TeachRecipe.model_fields.keys() - DistillRecipe.model_fields.keys()
    likely: Kind = "teach" if keys & only_teach or nearest("model", keys) else "distill"
    return likely, []


def _with_own_teacher(tree: Node, name: str) -> tuple[Node, list[str]]:
    """The tree with a network of the user's own for its teacher, and a line about what it said of another one."""
    said = _entries(tree, ("teacher",)) or {}
    other = [key for key in ("arch", "encoder", "options", "recipe") if key in said and said[key].value is not None]
    if "arch" in other and str(said["arch"].value).lower() == OWN:
        other.remove("arch")
    lines = (
        [f"{said[other[0]].where}: teacher.{', '.join(other)}: left out, since {name} is the teacher"] if other else []
    )
    teacher = {key: node for key, node in said.items() if key not in other} | {"arch": Node(OWN, name)}
    where = tree.value["teacher"].where if "teacher" in tree.value else tree.where
    return Node({**tree.value, "teacher": Node(teacher, where)}, tree.where), lines


def _with_described(tree: Node, fetch: bool) -> tuple[Node, list[str], list[str]]:
    """The tree with what the folder of its teacher's weights says of the network, and it does not: `described.with_described`.

    Then lines on that, and the mistake that nothing is there which could say it.
    """
    said = _entries(tree, ("teacher",)) or {}
    weights = said["weights"].value if "weights" in said else None
    whole = all(key in said and said[key].value is not None for key in ("arch", "classes"))
    if not isinstance(weights, str) or no_file(("teacher", "weights"), weights) or unset_root(weights):
        return tree, [], []
    if hub.on_hub(weights):
        named = hub.wrong_name(weights) is None
        folder = None if not named else hub.cached(weights) if whole or not fetch else hub.located(weights)
        if folder is None:
            waits = "not downloaded yet (segkd inspect does it); its folder may say what is missing"
            return tree, [], [error_line(tree, ("teacher", "weights"), waits)] if named and not whole else []
    else:
        folder = expand_root(weights)
        if not whole and not os.path.exists(folder):
            return tree, [], [error_line(tree, ("teacher", "weights"), f"no such file or folder: {shown(weights)}")]
    teacher, lines = described.with_described(said, folder)
    return Node({**tree.value, "teacher": Node(teacher, tree.value["teacher"].where)}, tree.where), lines, []  # type: ignore[dict-item]


def _preset_errors(files: Sequence[Layer], known: Mapping[str, Terms]) -> list[str]:
    presets = ((name, node) for file in files for name, node in file.presets.items())
    return [
        f"{node.where}: {key_name(('presets', name))}: unknown method{suggestion(name.partition('.')[0], known)}"
        for name, node in _first(preset for preset in presets if preset[0].partition(".")[0] not in known)
    ]


def _variants(method: str, files: Sequence[Layer]) -> list[str]:
    names = dict.fromkeys(name for file in files for name in file.presets)
    return [name.partition(".")[2] for name in names if name.startswith(f"{method}.")]


def _choice_errors(tree: Node, files: Sequence[Layer], known: Mapping[str, Terms]) -> list[str]:
    """Unknown methods and variants, whose presets are missed then, too."""
    method, variant = scalar(tree, "method"), scalar(tree, "variant")
    if method is None:
        return []  # missing, or no text: the types say so
    if method not in known:
        own = "" if nearest(method, known) else "; one of your own: segkd distill --method-file FILE.py"
        message = f"unknown method {shown(method)}{suggestion(method, known)}{own}"
        return [error_line(tree, ("method",), message)]
    variants = dict.fromkeys((*_VARIANTS, *_variants(method, files)))
    if variant is None or variant in variants:
        return []
    return [error_line(tree, ("variant",), f"unknown variant {shown(variant)}{suggestion(variant, variants)}")]


def _no_variant(tree: Node, files: Sequence[Layer]) -> list[str]:
    """Why keys may be missing: no variant is chosen, and the presets of the method are of variants."""
    method = scalar(tree, "method")
    variants = _variants(method, files) if method and scalar(tree, "variant") is None else []
    return [error_line(tree, ("variant",), f"none is chosen; {method} has {', '.join(variants)}")] if variants else []


def _method_errors(tree: Node, known: Mapping[str, Terms], further: Mapping[str, Further]) -> list[str]:
    """Unknown terms and options: what the types cannot know."""
    method = scalar(tree, "method")
    if method not in known:
        return []
    errors: list[str] = []
    errors += _name_errors(tree, ("weights",), known[method].names, f"term of {method}")
    errors += _option_errors(tree, ("options",), known[method].options, f"option of {method}")
    errors += _name_errors(tree, ("terms",), further, "further term")
    for name, term in further.items():
        errors += _option_errors(tree, ("terms", name), {"weight": WEIGHT, **term.options}, f"option of {name}")
        said = _entries(tree, ("terms", name))
        if said is not None and ("weight" not in said or said["weight"].value is None):
            errors.append(error_line(tree, ("terms", name), f"missing: terms.{name}.weight"))
    return errors


def _name_errors(tree: Node, block: Sequence[str], known: Iterable[str], what: str) -> list[str]:
    wrong = _first(name for name in _entries(tree, block) or () if name not in known)
    return [error_line(tree, (*block, name), f"unknown {what}{suggestion(name, known)}") for name in wrong]


def _option_errors(tree: Node, block: Sequence[str], options: Options, what: str) -> list[str]:
    said = _entries(tree, block)
    if said is None:
        return []
    _, wrong = filled_in(options, {name: plain(node) for name, node in said.items() if name in options})
    lines = [error_line(tree, (*block, *path), message) for path, message in _first(wrong)]
    return _name_errors(tree, block, options, what) + lines


def _entries(tree: Node, block: Sequence[str]) -> dict[str, Node] | None:
    """The keys of a block; None where it is not there, or no mapping."""
    node: Node | None = tree
    for name in block:
        node = node.value.get(name) if node is not None and isinstance(node.value, dict) else None
    return node.value if node is not None and isinstance(node.value, dict) else None


def _first(mistakes: Iterable[Any]) -> list[Any]:
    """No more than are told, and one: a suggestion for each of thousands would take its time."""
    return list(islice(mistakes, MAX_ERRORS + 1))


def _typed(
    tree: Node, model: type[DistillRecipe] | type[TeachRecipe], unchosen: bool = False
) -> tuple[DistillRecipe | TeachRecipe | None, list[str]]:
    try:
        return model.model_validate(plain(tree)), []
    except ValidationError as error:
        found = [explain(item, model) for item in _first(error.errors())]
        own = {("teacher", "arch"): "missing: name one, or bring a network of your own (--teacher-file FILE:FUNCTION)"}
        return None, [
            error_line(tree, path, own.get(path, message) if message == "missing" else message)
            for path, message in found
            if not (unchosen and message == "missing")  # a preset may have said it
        ]


def _completed(
    recipe: DistillRecipe | TeachRecipe,
    methods: Mapping[str, Terms],
    further: Mapping[str, Further],
    name: str,
    fetch: bool,
) -> tuple[DistillRecipe | TeachRecipe, list[str]]:
    """The recipe with the values that follow from others, and lines on them."""
    values: dict[str, Any] = {}
    lines: list[str] = []
    if recipe.run.dir is None:
        values["run.dir"] = f"runs/{name}-s{recipe.run.seed}"
    if isinstance(recipe, DistillRecipe):
        method = methods[recipe.method]
        values["weights"] = {**method.weights, **recipe.weights}
        values["options"], _ = filled_in(method.options, recipe.options)
        values["terms"] = {
            term: filled_in({"weight": WEIGHT, **further[term].options}, said)[0] for term, said in recipe.terms.items()
        }
        normalised, lines = _normalised(recipe.teacher, fetch)
        values |= normalised
    return with_values(recipe, values), lines


def _normalised(teacher: Teacher, fetch: bool) -> tuple[dict[str, Any], list[str]]:
    """The teacher's mean and std, where the recipe states none and the folder of its weights does, and lines on it."""
    if teacher.weights is None or unset_root(teacher.weights):
        return {}, []
    unsaid = {"mean", "std"} - teacher.model_fields_set
    waits = hub.on_hub(teacher.weights) and not (fetch and unsaid)
    folder = hub.cached(teacher.weights) if waits else expand_root(teacher.weights)
    if folder is None:
        return {}, [
            f"{teacher.weights}: not downloaded yet; it says what {' and '.join(sorted(unsaid))} are"
        ] if unsaid else []
    said = pretrained.input_of(folder)
    if said is None:
        from_folder = folder.is_dir() or teacher.arch.lower() in map(str.lower, networks.from_folder())
        unsaid = unsaid if from_folder else set()
        default = f"teacher.mean and std: no {pretrained.FILE} in {teacher.weights}: taken to be {list(teacher.mean)}"
        return {}, [f"{default} and {list(teacher.std)} where the recipe states none"] if unsaid else []
    values: dict[str, Any] = {}
    lines = list(said.notes)
    for key in ("mean", "std"):
        ours, theirs = getattr(teacher, key), getattr(said, key)
        if key not in teacher.model_fields_set:
            values[f"teacher.{key}"] = list(theirs)
        elif len(ours) != len(theirs) or max(abs(a - b) for a, b in zip(ours, theirs, strict=True)) > 1e-3:
            words = f"{[round(each, 4) for each in theirs]} in {said.file}"
            lines.append(f"teacher.{key}: {list(ours)}, as the recipe says, and not {words}")
    return values, lines
