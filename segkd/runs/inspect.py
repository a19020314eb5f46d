"""`segkd inspect`: whether a recipe's teacher can be distilled, and how."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from segkd import builders
from segkd.evaluation import inspection
from segkd.evaluation.inspection import Finding, Level
from segkd.foundation import terminal
from segkd.foundation.channels import READ, name_of
from segkd.foundation.errors import RecipeError, TeacherError
from segkd.foundation.rng import seed_for
from segkd.models.adapters import parameters_of
from segkd.models.trial import try_passes
from segkd.recipe import DistillRecipe, with_values
from segkd.recipe.compression import ADVERSARIAL, ADVISED, ON_PICTURES, PAINTED
from segkd.runs.costs import table
from segkd.runs.distill import Distillation
from segkd.runs.options import Options
from segkd.runs.place import place_of
from segkd.synthesis.source import TRIAL, Move

HOPELESS = "answers", "classes"
"""Findings that no method gets round."""
NOTHING = "no method can distil it as it is"


@dataclass(frozen=True)
class Report:
    """What was found: `findings` in order, what to do in lines, and the cost of the recipe's moves in lines.

    `method` is what suits by itself, as blocks of a recipe; None: nothing does.
    """

    teacher: str
    findings: list[Finding]
    advice: list[str]
    plan: list[str]
    method: Mapping[str, Any] | None = None

    @property
    def obstacle(self) -> Finding:
        """Why a red one is: first what no other method would do without."""
        red = [finding for finding in self.findings if finding.level == "red"]
        return min(red, key=lambda finding: finding.what not in HOPELESS)

    @property
    def verdict(self) -> Level:
        return inspection.verdict(self.findings)

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "verdict": self.verdict}

    def lines(self) -> list[str]:
        """For people: the findings in columns, and what to do."""
        told = [(f.level, f.what, f.told) for f in self.findings]
        wide = max(len(what) for _, what, _ in told)
        return [
            self.teacher, *(f"  {level:<5}  {what:<{wide}}  {said}" for level, what, said in told), f"verdict: {self.verdict}",
            *(f"  {line}" for line in (*self.advice, *self.plan)),
        ]  # fmt: skip


def inspect(recipe: DistillRecipe, options: Options, *, quick: bool = False) -> Report:
    """Load the teacher of a recipe and look at it without any data; what stands in the way of loading it is a finding, too.

    Args:
        quick: leave out what the recipe's moves take, for which a game is built and played.

    Raises:
        RecipeError: the recipe's own blocks are wrong, whatever the teacher is.
    """
    run = Distillation(recipe, options)
    name = f"{builders.described(recipe.teacher)}, {recipe.teacher.weights or 'as its file builds it'}"
    with run.blaming():
        run.place = place_of(recipe)
        method = builders.method_of(recipe, run.own)
        try:
            run.load_teacher()
        except TeacherError as error:
            return Report(name, [Finding("red", "loading", str(error))], [NOTHING], [])
        teacher, moves = run.teacher, bool(method.terms("source") or method.terms("pixels"))
        compares = moves and method.chosen.get("bn", 0) > 0
        made = f" of {teacher.classes}" if recipe.teacher.student_classes else ""
        name += f": {len(teacher.names)} classes{made}, {parameters_of(teacher) / 1e6:.2f} M parameters"
        terminal.doing("looking at the teacher")
        findings = [
            inspection.layers(teacher.network),
            inspection.shape(teacher),
        ]
        plan: list[str] = []
        follows = False
        try:
            recorded = builders.recorded_of(recipe.teacher, teacher)
            findings.insert(1, inspection.statistics(teacher.network, compares, recorded))
            follows = inspection.statistics(teacher.network, True, recorded).level != "red"
            shown = {**inspection.pictures(teacher, recipe.synth.size, 6), **_generated(recipe, run)}
            findings += inspection.answering(teacher, shown, run.place.bf16, moves)
            bearable = inspection.verdict(findings) != "red"
            if bearable and quick:  # else building the game tries the teacher
                described, size = builders.described(recipe.teacher), recipe.synth.size
                try_passes(teacher, "teacher", described, size, 1, run.place.device, run.place.bf16, follows=False)
            elif bearable:
                terminal.doing("timing updates")
                game = run.build(with_values(recipe, {"run.steps": 10} if recipe.run.budget else {}))
                plan = table(recipe, run.place, game)
        except (TeacherError, RecipeError) as error:
            findings.append(Finding("red", "distilling", str(error)))
    method, advice = _advice(findings, follows, recipe.teacher.channels)
    return Report(name, findings, advice, plan, method)


def _generated(recipe: DistillRecipe, run: Distillation) -> dict[str, Tensor]:
    """What the recipe's generator paints before it has learnt anything."""
    with torch.random.fork_rng([]), suppress(RecipeError):  # another kind of source has none
        torch.manual_seed(seed_for(recipe.run.seed, 0, 0, "weights"))
        generator = builders.generator_of(recipe, run.teacher).to(run.place.device)
        move = Move(recipe.run.seed, TRIAL, 0)
        return {"an untrained generator's images": generator.draw(4, recipe.synth.size, move).images}
    return {}


def _advice(findings: list[Finding], follows: bool, channels: int) -> tuple[Mapping[str, Any] | None, list[str]]:
    """What can distil such a teacher, and in words; `follows`: it has statistics that a generator can follow; `channels`: its images'."""
    level = {finding.what: finding.level for finding in findings}
    if "red" in map(level.get, HOPELESS):
        return None, [NOTHING]
    moved = level.get("gradients", "green") == "green"
    if channels not in READ:
        no = f"no pictures have {name_of(channels)}"
        if not moved:
            return None, [f"{NOTHING}: it gives no gradient, and {no}"]
        if not follows:
            return ADVERSARIAL, [f"method: dfad: it has no statistics to follow, and {no}"]
        return PAINTED, [f"method: ddad with variant=segkd, whose generator follows its BatchNorm statistics; {no}"]
    if not (follows and moved):
        lacks = "it has no statistics to follow" if not follows else "it gives no gradient"
        return ON_PICTURES, [
            f"method: kd on procedural pictures (method=kd synth.kind=pictures synth.pictures='[leaves, streets, rooms]'): {lacks};"
            " better, kd on photos of your own (synth.kind=folder synth.root=DIR)"
            + ("" if follows else ", or mskd on statistics recorded from them (segkd record)")
        ]  # fmt: skip
    return ADVISED, ["method: ddad with variant=pictures, whose generator follows its BatchNorm statistics"]
