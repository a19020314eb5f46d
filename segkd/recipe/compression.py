"""The recipe of a compression: a teacher as somebody has it, a student, a length. Nothing is loaded or written here."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segkd.foundation.channels import READ
from segkd.foundation.errors import RecipeError, UsageError
from segkd.recipe import hub, networks
from segkd.recipe.loading import Source
from segkd.recipe.sources import find, named, read_chain, read_overrides
from segkd.recipe.strict_yaml import dump, plain

BEGINNING: Mapping[str, Any] = {
    "extends": "base/ddad.yaml",
    "student": {
        "arch": "DeepLabV3Plus",
        "encoder": "tu-resnet10t",
        "options": {
            "channels": [32, 64, 128, 256], "stem_width": 16, "decoder_channels": 128, "decoder_aspp_dropout": 0.0,
        },
    },
    "synth": {"size": [256, 352]},
    "data": {"name": None},
    "run": {"steps": 300, "batch": 6},
}  # fmt: skip
"""What a recipe begins with where there is none: student, sizes and length of the README's example of a teacher of one's own."""
WEIGHTS = (".safetensors", ".pt", ".pth", ".pt2", ".bin", ".ckpt", ".tar")
"""How files of weights end: one that is missing is missed as such, and not as a recipe."""
ORDER = "extends method variant teacher student game synth data run"
ADVISED: Mapping[str, Any] = {"method": "ddad", "variant": "pictures"}
"""The method with which a teacher is looked at, before it is known what it is like."""
ON_PICTURES: Mapping[str, Any] = {
    "method": "kd", "variant": None, "synth": {"kind": "pictures", "pictures": ["leaves", "streets", "rooms"]},
}  # fmt: skip
"""And that for one which has no statistics, or gives no gradient."""
PAINTED: Mapping[str, Any] = {"method": "ddad", "variant": "segkd"}
"""ADVISED for images which no pictures can stand for: neither RGB nor grey."""
ADVERSARIAL: Mapping[str, Any] = {"method": "dfad", "variant": None}
"""ON_PICTURES for those."""


def from_file(teacher: str | Path) -> bool:
    """Whether a teacher is named by its weights (a file, a folder, `hf://OWNER/NAME`), and not by a recipe."""
    name = str(teacher)
    if hub.on_hub(name):
        return True
    path = Path(name).expanduser()
    if os.path.isdir(path):
        return not (path / "recipe.yaml").is_file()  # of a run's folder it is said that its recipe lies in it
    return path.suffix in WEIGHTS or (os.path.isfile(path) and path.suffix not in (".yaml", ".yml"))


def source_of(teacher: str | Path | None) -> Source:
    """A teacher as what `load` takes: a recipe as it is, and weights, or none of a network of one's own, in a recipe of defaults."""
    if teacher is None:
        return BEGINNING
    if not from_file(teacher):
        return teacher
    return {**BEGINNING, "teacher": {"weights": str(teacher)}}


@dataclass(frozen=True)
class Asked:
    """What a compression is asked for.

    Attributes:
        teacher: a recipe, or the teacher's weights; None: `teacher_file` builds it with its weights.
        student: ARCH or ARCH:ENCODER; None: that of the recipe.
        budget: of the run; None: as long as the recipe says.
        values: `key=value`, on top of all.
        teacher_file: what builds a network of one's own.
    """

    teacher: str | None
    student: str | None = None
    budget: str | None = None
    values: Sequence[str] = ()
    teacher_file: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """The same in whatever words: of relative paths and values in another order it is one."""
        teacher = None if self.teacher is None else self._teacher()
        return {
            "teacher": teacher, "student": None if self.student is None else student_of(self.student), "budget": self.budget,
            "values": self.given(), "teacher_file": self.teacher_file and os.path.abspath(self.teacher_file),
        }  # fmt: skip

    def _teacher(self) -> str:
        """Its place, wherever it is named from."""
        assert self.teacher is not None
        if hub.on_hub(self.teacher) or (not os.path.exists(self.teacher) and named(self.teacher)):
            return self.teacher
        return os.path.abspath(os.path.expanduser(self.teacher))

    def given(self) -> dict[str, Any]:
        """The values as blocks. Raises RecipeError."""
        node, errors = read_overrides(self.values)
        if errors:
            raise RecipeError(errors)
        return plain(node)

    @property
    def chooses_method(self) -> bool:
        """Whether the values say which method is played."""
        return bool({"method", "variant"} & self.given().keys())

    @property
    def first(self) -> Mapping[str, Any] | None:
        """The method with which its teacher is looked at; None: the one that the values say."""
        if self.chooses_method:
            return None
        of_recipe = [] if self.teacher is None or from_file(self.teacher) else read_chain(find(self.teacher))[0]
        teachers = (tree.get("teacher") for tree in (*map(plain, of_recipe), self.given()))
        means = [each["mean"] for each in teachers if isinstance(each, dict) and isinstance(each.get("mean"), list)]
        return PAINTED if means and len(means[-1]) not in READ else ADVISED

    def tree(self, out: Path, method: Mapping[str, Any] | None, logits: str | None = None) -> dict[str, Any]:
        """What the recipe's file says; `method`: as ADVISED, None: the values', or else the recipe's own.

        Raises:
            UsageError: an unknown student, or a value that a flag says, too.
            RecipeError: values that are none, or no such recipe.
        """
        given = self.given()
        for key, flag, said in (("run.dir", "--out", True), ("run.budget", "--budget", self.budget), ("run.steps", "--budget", self.budget),
                                ("student.arch", "--student", self.student), ("student.encoder", "--student", self.student)):  # fmt: skip
            block, inner = key.split(".")
            if said and isinstance(given.get(block), dict) and inner in given[block]:
                raise UsageError(f"{key}: {flag} says it: leave one of them out")
        tree: dict[str, Any] = {}
        if self.teacher is None or from_file(self.teacher):
            tree = {key: dict(value) if isinstance(value, dict) else value for key, value in BEGINNING.items()}
            tree["teacher"] = {} if self.teacher is None else {"weights": self._teacher()}
        else:
            keys = {key for part in read_chain(find(self.teacher))[0] for key in plain(part)}
            if "model" in keys and "method" not in keys:
                raise UsageError(
                    f"{self.teacher}: teaches a network: run segkd teach {self.teacher}, and name the file that it makes"
                )
            tree["extends"] = self._teacher()
        tree = _merged(tree, method or {})
        if self.student is not None:  # what the recipe says of another student is not this one's
            others = dict.fromkeys(self._options_of_another()) or None
            tree["student"] = {**student_of(self.student), "options": others, "weights": "none"}
        if logits is not None:
            tree["game"] = {"logits": logits}
        length = {} if self.budget is None else {"budget": _seconds(self.budget), "steps": None}
        tree = _merged(_merged(tree, {"run": {**length, "dir": str(out / "run")}}), given)
        return {key: tree[key] for key in sorted(tree, key=lambda key: (key not in ORDER, ORDER.find(key)))}

    def _options_of_another(self) -> list[str]:
        """What a recipe says of its own student's options, by name: null leaves each out."""
        if self.teacher is None or from_file(self.teacher):
            return []
        said = (plain(tree).get("student") for tree in read_chain(find(self.teacher))[0])
        options = (student.get("options") for student in said if isinstance(student, dict))
        return [name for each in options if isinstance(each, dict) for name in each]

    def text(self, out: Path, method: Mapping[str, Any] | None, logits: str | None) -> str:
        """The recipe's file, to be read and changed."""
        own = "" if self.teacher_file is None else f" --teacher-file {self.teacher_file}"
        return (
            f"# Written by segkd compress, which goes on with what stands here. It is a recipe as any other:\n"
            f"# segkd distill {out / 'recipe.yaml'}{own}\n{dump(self.tree(out, method, logits))}"
        )


def _seconds(budget: str) -> str | float:
    """A time as a recipe says it: seconds as a number."""
    with suppress(ValueError):
        return float(budget) if budget.strip()[:1].isdigit() else budget
    return budget


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` on top of `base`, block by block."""
    found = dict(base)
    for key, value in over.items():
        below = found.get(key)
        found[key] = _merged(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return found


def student_of(named: str) -> dict[str, str | None]:
    """`ARCH:ENCODER` as two keys; an architecture without a choice of encoder stands alone, and its case does not count.

    Raises:
        UsageError: there is no such network, or it is no student.
    """
    name, _, encoder = named.partition(":")
    if wrong := networks.unknown_architecture(name, student=True):
        raise UsageError(f"--student {named}: {wrong}")
    arch = networks.in_its_case(name) or name
    if arch in networks.only_teachers():
        raise UsageError(
            f"--student {named}: {arch} can only be a teacher; a student is one of smp's or torchvision's, or a SegNet"
        )
    alone = arch in networks.without_encoder()
    if alone and encoder:
        raise UsageError(f"--student {named}: {arch} has no choice of encoder: --student {name}")
    if not alone and not encoder:
        raise UsageError(f"--student {named}: names no encoder, as {name}:mobilenet_v2")
    if encoder and (wrong := networks.unknown_encoder(encoder)):
        raise UsageError(f"--student {named}: {wrong}")
    return {"arch": arch, "encoder": encoder or None}
