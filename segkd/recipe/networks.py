"""Names of architectures and encoders, read from the source of the installed packages: a recipe is checked without torch.

Where a package's source looks otherwise than it did, nothing is known, and every name passes: building it will tell.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from segkd.foundation import rooms
from segkd.recipe.messages import nearest, shown, suggestion
from segkd.recipe.options import NOT_OPTIONS

_STATED = ("NAMES", "ONLY_TEACHERS", "FROM_FOLDER", "IMAGENET")
"""Constants of a family's file that recipes are checked by."""
_ALIASES = ("timm-regnet", "timm-res2", "timm-resnest", "timm-mobilenetv3", "timm-gernet")
"""Former names of smp for encoders of timm: it takes them as `tu-` names."""


def unknown_architecture(name: str, student: bool = False) -> str | None:
    """What is wrong with the name of an architecture, in whose letters case does not count; None: nothing.

    For a `student` those that can only be teachers are not among the names that are known.
    """
    known = architectures()
    if not known or name.lower() in (other.lower() for other in known):
        return None
    named = [other for other in known if not (student and other in only_teachers())]
    return f"unknown architecture {shown(name)}{suggestion(name, named)}"


def in_its_case(name: str) -> str | None:
    """An architecture as its library writes it; None: none is called so, in letters of any case."""
    return next((known for known in architectures() if known.lower() == name.lower()), None)


def unknown_encoder(name: str) -> str | None:
    """What is wrong with the name of an encoder; None: nothing, or it has a source (`hf-hub:`), which is told elsewhere."""
    known = encoders()
    if not known or name in known or name.startswith(_ALIASES) or ":" in name:
        return None
    model = name.removeprefix("tu-").partition(".")[0]  # what follows the dot says with which weights
    of_timm = timm_models()
    if name.startswith("tu-"):
        if not of_timm or model in of_timm:
            return None
        near = nearest(model, sorted(of_timm))
        return f"unknown encoder {shown(name)}" + (
            f", did you mean 'tu-{near}'?" if near else ": timm has no such model"
        )
    near = f"tu-{name}" if model in of_timm else nearest(name, known)
    others = "smp has resnet18, mobilenet_v2, mit_b0 and others, and all of timm's are tu-NAME"
    return f"unknown encoder {shown(name)}" + (f", did you mean {near!r}?" if near else f": {others}")


@cache
def architectures() -> tuple[str, ...]:
    """The architectures of segmentation-models-pytorch and of the other families; empty where they cannot be told."""
    text = source_text("segmentation_models_pytorch", "__init__.py")
    found = re.search(r"^_?MODEL_ARCHITECTURES = \[$(.*?)^\]$", text, re.MULTILINE | re.DOTALL)
    return (*re.findall(r"^    (\w+),$", found[1], re.MULTILINE), *without_encoder()) if found else ()


@cache
def without_encoder() -> tuple[str, ...]:
    """The architectures that have no choice of encoder: those that a family's file states as its `NAMES`."""
    return tuple(name for stated in _families() for name in stated.get("NAMES", ()))


@cache
def only_teachers() -> tuple[str, ...]:
    """Those of them that are no students: their family states `ONLY_TEACHERS`."""
    return tuple(name for stated in _families() if stated.get("ONLY_TEACHERS") for name in stated["NAMES"])


@cache
def from_folder() -> tuple[str, ...]:
    """Those that the folder of their weights describes: their family states `FROM_FOLDER`."""
    return tuple(name for stated in _families() if stated.get("FROM_FOLDER") for name in stated["NAMES"])


@cache
def with_presets() -> tuple[str, ...]:
    """Those whose library trains them with ImageNet's mean and std: their family states `IMAGENET`."""
    return tuple(name for stated in _families() if stated.get("IMAGENET") for name in stated["NAMES"])


@cache
def _families() -> tuple[dict[str, Any], ...]:
    """The constants that the files of the families state, each with its value."""
    trees = (ast.parse(path.read_text("utf-8")) for path in rooms.files(rooms.FAMILIES).values())
    stated = ({getattr(node.targets[0], "id", ""): node.value for node in tree.body if isinstance(node, ast.Assign)}
              for tree in trees)  # fmt: skip
    return tuple({name: ast.literal_eval(value) for name, value in each.items() if name in _STATED} for each in stated)


@cache
def encoders() -> tuple[str, ...]:
    """smp's own encoders; empty where they cannot be told."""
    text = source_text("segmentation_models_pytorch", "encoders/*.py")
    tables = re.findall(r"^\w+_encoders = \{$(.*?)^\}$", text, re.MULTILINE | re.DOTALL)
    return tuple(name for table in tables for name in re.findall(r'^    "([^"\n]+)": \{$', table, re.MULTILINE))


@cache
def timm_models() -> frozenset[str]:
    """The models of timm, which smp takes as `tu-NAME`, and former names that timm still takes."""
    text = source_text("timm", "models/*.py")
    renamed = re.findall(r"^register_model_deprecations\(__name__, \{$(.*?)^\}\)", text, re.MULTILINE | re.DOTALL)
    former = (name for table in renamed for name in re.findall(r"['\"](\w+)['\"]\s*:", table))
    return frozenset((*re.findall(r"^@register_model\s+def (\w+)\(", text, re.MULTILINE), *former))


def unknown_options(arch: str, encoder: str | None, given: Iterable[str]) -> dict[str, str]:
    """What is wrong with options of an architecture of smp, by name; an encoder of timm has its own, which building it tells."""
    name = in_its_case(arch) or arch
    own = [option for option in defaults_of(name) if option not in NOT_OPTIONS]
    if not own or str(encoder).startswith("tu-"):
        return {}
    unknown = (option for option in given if option not in own and option not in NOT_OPTIONS)
    return {option: f"no option of {name}{suggestion(option, own)}" for option in unknown}


@cache
def defaults_of(arch: str) -> dict[str, Any]:
    """What the arguments of one of smp's architectures are where nothing is said, lists for tuples; empty for any other."""
    for tree in map(ast.parse, source_texts("segmentation_models_pytorch", "decoders/*/model.py")):
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and node.name == arch:
                made = next((each for each in node.body if getattr(each, "name", "") == "__init__"), None)
                return _defaults(made.args) if isinstance(made, ast.FunctionDef) else {}
    return {}


def _defaults(arguments: ast.arguments) -> dict[str, Any]:
    names = [each.arg for each in arguments.args]
    pairs = zip(reversed(names), reversed(arguments.defaults), strict=False)  # the last arguments have them
    return {name: _listed(ast.literal_eval(value)) for name, value in pairs}


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def source_text(package: str, pattern: str) -> str:
    """The source of a package's files, one after the other; the package is not imported."""
    return "\n".join(source_texts(package, pattern))


def source_texts(package: str, pattern: str) -> list[str]:
    """The same, each by itself."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        return []
    return [path.read_text("utf-8") for path in sorted(Path(spec.origin).parent.glob(pattern))]
